"""Tokens of class names and templates, and initial values of the learned contexts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sotglp.backbone.tokenizers import ClipTokenizer, PromptTokenizer
from sotglp.errors import SotglpError
from sotglp.images.labels import prompt_name
from sotglp.settings import LocalInit

ORTHONORMAL_SCALE = 0.001

MOST_CHARACTERS = 4096
"""Longest class name or template; the tokenizer's time grows faster than the length."""


@dataclass(frozen=True)
class TokenizedClasses:
    """Tokens of C class names for prompts with ``n_context`` learned vectors.

    ``tokens`` (C, longest) are those of each name and [EOT], padded with 0 on the right; ``eot_positions`` (C,) are the
    indices of [EOT] in the whole sequence [SOT] + contexts + name + [EOT]. Other tokenizers than CLIP's have other
    tokens before and after, none or several of them.
    """

    tokens: Tensor
    eot_positions: Tensor


def tokenize_classes(
    class_names: Sequence[str], n_context: int, context_length: int, tokenizer: PromptTokenizer | None = None
) -> TokenizedClasses:
    """Tokenize class names for prompts of [SOT] + ``n_context`` learned vectors + name + [EOT].

    The text tower takes ``context_length`` tokens of ``tokenizer``, CLIP's for None. Raise a SotglpError if there are
    fewer than two classes, a name is empty or too long, or two names give the same prompt.
    """
    if len(class_names) < 2:
        raise SotglpError(
            f"a classifier needs at least two classes, not {len(class_names)} class: add images of another one"
        )
    tokenizer = tokenizer or ClipTokenizer()
    n_around = len(tokenizer.before) + len(tokenizer.after)
    seen: dict[tuple[int, ...], str] = {}
    for name in class_names:
        _check_length("class name", name)
        tokens = tuple(tokenizer.encode(prompt_name(name), continues=n_context > 0))
        if not tokens:
            raise SotglpError(f"the class name {name!r} has no text for a prompt: rename the class")
        if tokens in seen:
            raise SotglpError(
                f"the classes {seen[tokens]!r} and {name!r} give the same prompt (case is ignored and _ is read as a "
                "space): rename or merge one of them"
            )
        longest = max(context_length - n_context - n_around, 0)
        if len(tokens) > longest:
            raise SotglpError(
                f"the class name {_shortened(name)!r} has {len(tokens)} tokens, but the text tower allows {longest} "
                f"after a context of {n_context}: shorten the name"
            )
        seen[tokens] = name
    longest = max(map(len, seen)) + len(tokenizer.after)
    table = torch.zeros(len(seen), longest, dtype=torch.long)
    for row, tokens in zip(table, seen, strict=True):
        whole = torch.tensor([*tokens, *tokenizer.after])
        row[: len(whole)] = whole
    lengths = torch.tensor([len(tokens) for tokens in seen])
    return TokenizedClasses(table, n_around - 1 + n_context + lengths)


def template_tokens(template: str, context_length: int, tokenizer: PromptTokenizer | None = None) -> Tensor:
    """Tokenize a template without its placeholder, which initialises the contexts, (n,).

    Raise a SotglpError if the template does not hold ``{}`` exactly once, or has no words or too many.
    """
    if template.count("{}") != 1:
        raise SotglpError(
            f"the template {_shortened(template)!r} must hold the placeholder {{}} once, as 'A photo of a {{}}' does"
        )
    _check_length("template", template)
    tokenizer = tokenizer or ClipTokenizer()
    tokens = tokenizer.encode(prompt_name(template.replace("{}", " ")))
    longest = context_length - len(tokenizer.before) - len(tokenizer.after) - 1
    if not tokens:
        raise SotglpError(
            f"the template {_shortened(template)!r} has no words besides {{}}: a context needs at least one"
        )
    if len(tokens) > longest:
        raise SotglpError(
            f"the template {_shortened(template)!r} has {len(tokens)} tokens, but the text tower allows "
            f"{longest}: shorten it"
        )
    return torch.tensor(tokens)


def initial_local_contexts(
    n_classes: int, n_prompts: int, n_context: int, width: int, how: LocalInit, generator: torch.Generator
) -> Tensor:
    """Draw local contexts, (C, N, n, d_text), as in SOT-GLP, arXiv 2603.08347, implementation details.

    ``xavier`` draws uniformly from +-sqrt(6 / ((N + C) n d_text)), Xavier's rule (Glorot & Bengio 2010) for the 4-D
    tensor. ``orthonormal`` makes the N prompts of a class orthonormal and scales them by 0.001.
    """
    shape = (n_classes, n_prompts, n_context, width)
    if how == "xavier":
        bound = math.sqrt(6 / ((n_prompts + n_classes) * n_context * width))
        return torch.empty(shape).uniform_(-bound, bound, generator=generator)
    if n_prompts > n_context * width:
        raise SotglpError(
            f"{n_prompts} prompts can't be orthonormal in {n_context * width} dimensions: set local_init to xavier"
        )
    columns = torch.linalg.qr(torch.randn(n_classes, n_context * width, n_prompts, generator=generator)).Q
    orthonormal: Tensor = columns.mT.reshape(shape)
    return ORTHONORMAL_SCALE * orthonormal


def _check_length(kind: str, text: str) -> None:
    if len(text) > MOST_CHARACTERS:
        raise SotglpError(f"the {kind} {_shortened(text)!r} has {len(text)} characters: shorten it")


def _shortened(text: str, longest: int = 60) -> str:
    return text if len(text) <= longest else text[: longest - 3] + "..."
