"""The text tower learns to give a text the row that its teacher predicts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from open_clip.transformer import TextTransformer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from torch.nn.utils.rnn import pad_sequence

from pretraining.photo.texts import TEMPLATES
from pretraining.run_folder import pack_state, restore_state
from sotglp.backbone.photo import CONFIG, MIXING, TABLE
from sotglp.backbone.tokenizers import clip_tokenizer


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of the student.

    Attributes
    ----------
    steps, batch_size : int
        Number of AdamW steps, and texts in each.
    learning_rate, weight_decay : float
        Of AdamW; the rate is warmed up over ``warm_up`` steps, then falls by a cosine.
    rank : int
        Columns of the token table, r.
    contrast, contrast_scale : float
        Weight of the contrastive loss, and factor on its cosines.
    longest : int
        Texts of more tokens are left out.
    seed : int
        Seed of weights, order and templates.
    """

    steps: int = 5000
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warm_up: int = 50
    rank: int = 96
    contrast: float = 0.3
    contrast_scale: float = 20.0
    longest: int = 12
    seed: int = 1


class Student(nn.Module):
    """open_clip's causal text transformer on token embeddings that are a product of two matrices.

    Parameters
    ----------
    token_table : Tensor
        Start of the table, (V, r): principal components of the tokens' sentence embeddings.
    recipe : Recipe
        Hyperparameters.
    """

    def __init__(self, token_table: Tensor, recipe: Recipe) -> None:
        super().__init__()
        settings = CONFIG["text_cfg"]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.text = TextTransformer(**(settings | {"vocab_size": 1}), output_dim=CONFIG["embed_dim"])
            mixing = torch.randn(token_table.shape[1], settings["width"])
        self.text.token_embedding = nn.Identity()
        self.table = nn.Parameter(token_table.clone())
        self.mixing = nn.Parameter(mixing * (0.05 / math.sqrt(token_table.shape[1])))

    def forward(self, tokens: Tensor) -> Tensor:
        """Encode token numbers (B, L), zero after the end, into normalised features (B, d)."""
        text: Any = self.text
        length = tokens.shape[1]
        hidden = self.table[tokens] @ self.mixing + text.positional_embedding[:length]
        hidden = text.transformer(hidden, attn_mask=text.attn_mask[:length, :length])
        at_end = text.ln_final(hidden[torch.arange(len(tokens)), tokens.argmax(dim=1)])
        features: Tensor = normalize(at_end @ text.text_projection, dim=-1)
        return features

    def weights(self) -> dict[str, Tensor]:
        """Return the weights under the names that :func:`sotglp.backbone.photo.pack` takes."""
        weights = {f"text.{name}": tensor.detach() for name, tensor in self.text.state_dict().items()}
        return weights | {TABLE: self.table.detach(), MIXING: self.mixing.detach()}


def token_table(embeddings: Tensor, rank: int) -> Tensor:
    """Return the first principal components (V, rank) of the tokens' sentence embeddings (V, E), of unit variance."""
    centred = (embeddings - embeddings.mean(0)).double()
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    components: Tensor = centred @ vectors[:, -rank:].flip(1)
    return (components / components.std()).float()


def tokenize(texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return the token numbers of texts with start and end, padded with 0, (n, longest), and their lengths, (n,)."""
    tokenizer = clip_tokenizer()
    rows = [torch.tensor([tokenizer.sot_token_id, *tokenizer.encode(text), tokenizer.eot_token_id]) for text in texts]
    return pad_sequence(rows, batch_first=True), torch.tensor([len(row) for row in rows])


class Distillation:
    """A training run of the student that can be saved and resumed.

    Parameters
    ----------
    texts : sequence of str
        Texts, each once.
    targets : Tensor
        The teacher's normalised rows, (n, d), in half or single precision.
    weights : Tensor
        Weight of each text in the loss, (n,).
    repeats : Tensor
        How many times as often as others a text is drawn, (n,).
    table : Tensor
        Start of the token table, (V, r).
    recipe : Recipe
        Hyperparameters.
    """

    def __init__(
        self, texts: Sequence[str], targets: Tensor, weights: Tensor, repeats: Tensor, table: Tensor, recipe: Recipe
    ) -> None:
        self.recipe = recipe
        self.student = Student(table, recipe)
        self.step = 0
        lengths = tokenize(texts)[1].numpy()
        self._drawn = np.repeat(np.arange(len(texts)), np.where(lengths <= recipe.longest, repeats.numpy(), 0))
        self._lengths = lengths
        self._texts, self._targets, self._weights = list(texts), targets, weights
        decayed = [one for name, one in self.student.named_parameters() if one.ndim > 1 and name != "table"]
        others = [one for name, one in self.student.named_parameters() if one.ndim <= 1 or name == "table"]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=recipe.learning_rate,
            betas=(0.9, 0.98),
        )

    def run(self, until: int | None = None) -> Iterator[dict[str, float]]:
        """Train up to step ``until`` (default: the recipe's last), yielding the losses of each step."""
        while self.step < (self.recipe.steps if until is None else until):
            for group in self.optimizer.param_groups:
                group["lr"] = self._learning_rate()
            tokens, targets, weights = self._batch()
            features = self.student(tokens)
            cosine = (weights * (1 - (features * targets).sum(1))).sum() / weights.sum()
            logits = self.recipe.contrast_scale * features @ targets.T
            same = (targets @ targets.T > 0.98) & ~torch.eye(len(targets), dtype=torch.bool)
            contrast = cross_entropy(logits.masked_fill(same, -torch.inf), torch.arange(len(targets)))
            loss = cosine + self.recipe.contrast * contrast
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
            self.optimizer.step()
            self.step += 1
            yield {"step": self.step, "cosine": float(cosine.detach()), "contrast": float(contrast.detach())}

    def state(self) -> dict[str, Tensor]:
        """Return everything needed to resume, as copied tensors by name."""
        return pack_state({"student": self.student}, self.optimizer, self.step)

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Resume from the tensors that :meth:`state` returned."""
        self.step = restore_state({"student": self.student}, self.optimizer, tensors)

    def _learning_rate(self) -> float:
        recipe = self.recipe
        warm = min(1.0, (self.step + 1) / recipe.warm_up)
        return recipe.learning_rate * warm * (0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * self.step / recipe.steps)))

    def _batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Draw texts of similar length, in one template, and their targets and weights."""
        generator = np.random.default_rng([self.recipe.seed, self.step])
        size = self.recipe.batch_size
        # Of many batches' worth of texts, sorted by length, one batch is taken: little padding, no fixed partners.
        pool = generator.choice(self._drawn, size=16 * size)
        pool = pool[np.argsort(self._lengths[pool], kind="stable")]
        start = int(generator.integers(16)) * size
        chosen = pool[start : start + size]
        template = TEMPLATES[0] if generator.random() < 0.5 else TEMPLATES[generator.integers(len(TEMPLATES))]
        texts = [self._texts[i] for i in chosen]
        lowered = generator.random(size) < 0.7
        texts = [text.lower() if low else text for text, low in zip(texts, lowered, strict=True)]
        tokens, _ = tokenize([template.format(text) for text in texts])
        return tokens, self._targets[chosen].float(), self._weights[chosen]


@torch.inference_mode()
def encode_texts(student: Student, texts: Sequence[str]) -> Tensor:
    """Encode texts into normalised features, (n, d)."""
    features: Tensor = student(tokenize(texts)[0])
    return features
