"""Nearest vocabulary tokens of learned context vectors: a hint at their meaning, not a translation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sotglp.backbone import Backbone, tiny
from sotglp.methods.base import AdaptedModel
from sotglp.methods.prompt_model import PromptModel

MAX_CLASSES = 5
N_NEAREST = 3
VECTORS_AT_ONCE = 64

ALL_CLASSES = "all classes"
"""Key of local contexts that all classes share."""


class NearWord(NamedTuple):
    """A token of the vocabulary, and its distance or cosine."""

    text: str
    value: float


@dataclass(frozen=True)
class VectorWords:
    """Nearest tokens of one context vector, by Euclidean distance (ascending), as in CoOp, and by cosine (descending).

    The cosine ignores length: the nearest tokens of a short vector by distance are short ones, whatever they mean, and
    local contexts start short.
    """

    by_distance: tuple[NearWord, ...]
    by_cosine: tuple[NearWord, ...]

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON-compatible values."""
        return {
            "by_distance": [{"token": word.text, "distance": word.value} for word in self.by_distance],
            "by_cosine": [{"token": word.text, "cosine": word.value} for word in self.by_cosine],
        }


Prompt = tuple[VectorWords, ...]
"""The nearest tokens of each of the n vectors of a context."""


@dataclass(frozen=True)
class ContextWords:
    """Nearest tokens of the learned contexts of a model, among ``n_tokens``.

    ``global_`` holds the M global contexts; empty if they were not learned. ``local`` holds the N local contexts of
    each requested class, or of ``ALL_CLASSES``; empty if there are none.
    """

    global_: tuple[Prompt, ...]
    local: dict[str, tuple[Prompt, ...]]
    n_tokens: int

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON-compatible values: lists of prompts, each a list of vectors."""

        def plain(prompts: tuple[Prompt, ...]) -> list[list[dict[str, Any]]]:
            return [[vector.to_dict() for vector in prompt] for prompt in prompts]

        return {
            "n_tokens": self.n_tokens,
            "global": plain(self.global_),
            "local": {label: plain(prompts) for label, prompts in self.local.items()},
        }


@torch.no_grad()
def context_words(
    model: AdaptedModel, classes: Sequence[str] | None = None, n_nearest: int = N_NEAREST
) -> ContextWords | None:
    """Find the nearest tokens of every vector of the learned contexts, in the frozen token embedding.

    ``classes`` are those whose local contexts to use; None for the first ``MAX_CLASSES``. The result is None for a
    model that learns no contexts. See CoOp, arXiv 2109.01134, table 4: words of the smallest Euclidean distance.
    """
    if not isinstance(model, PromptModel):
        return None
    names = model.class_names[:MAX_CLASSES] if classes is None else classes
    class_indices = {name: model.class_index(name) for name in names}
    text_of = model.backbone.text.tokenizer.token_text
    tokens = known_tokens(model.backbone)
    embedding = model.backbone.text.embed(tokens.to(model.backbone.device)).float()

    def of(contexts: Tensor) -> tuple[Prompt, ...]:
        """Nearest tokens of prompts (N, n, d_text)."""
        found = nearest_words(contexts.flatten(0, -2), embedding, tokens, n_nearest, text_of)
        n = contexts.shape[1]
        return tuple(tuple(found[start : start + n]) for start in range(0, len(found), n))

    global_ = of(model.global_prompts) if model.global_prompts.requires_grad else ()
    local: dict[str, tuple[Prompt, ...]] = {}
    if model.local_prompts is not None:
        if model.config.local_contexts == "shared":
            local[ALL_CLASSES] = of(model.local_prompts[0])
        else:
            local = {name: of(model.local_prompts[own]) for name, own in class_indices.items()}
    return ContextWords(global_, local, len(tokens))


def nearest_words(
    vectors: Tensor, embedding: Tensor, tokens: Tensor, n_nearest: int, text_of: Callable[[int], str]
) -> list[VectorWords]:
    """Find the nearest of V tokens, with vectors ``embedding`` (V, d), of each of the ``vectors`` (n, d).

    ``text_of`` is :meth:`sotglp.backbone.tokenizers.PromptTokenizer.token_text`.
    """
    n_nearest = min(n_nearest, len(tokens))
    unit = F.normalize(embedding, dim=-1)

    def words(values: Tensor, indices: Tensor) -> tuple[NearWord, ...]:
        found = zip(values.tolist(), tokens[indices.cpu()].tolist(), strict=True)
        return tuple(NearWord(text_of(token), value) for value, token in found)

    result = []
    for part in vectors.float().split(VECTORS_AT_ONCE):
        # Matrix products would round away the small distance between a vector and the token that it started from.
        distances = torch.cdist(part, embedding, compute_mode="donot_use_mm_for_euclid_dist")
        nearest = distances.topk(n_nearest, largest=False)
        closest = (F.normalize(part, dim=-1) @ unit.T).topk(n_nearest)
        result += [
            VectorWords(words(*by_distance), words(*by_cosine))
            for by_distance, by_cosine in zip(
                zip(nearest.values, nearest.indices, strict=True),
                zip(closest.values, closest.indices, strict=True),
                strict=True,
            )
        ]
    return result


def known_tokens(backbone: Backbone) -> Tensor:
    """Tokens with a trained vector, ascending, without those that stand for no text, such as [SOT] and [EOT].

    The embedded ``tiny`` was trained on a few dozen of them; the vectors of the others are random.
    """
    tokens = backbone.text.tokenizer.words()
    if backbone.fingerprint == tiny.FINGERPRINT:
        trained = tiny.trained_tokens()
        tokens = trained[trained < len(tokens)]
    return tokens
