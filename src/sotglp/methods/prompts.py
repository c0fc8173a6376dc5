"""Prompts: class names and templates as tokens, and what learned contexts start from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

from sotglp.errors import SotglpError
from sotglp.images.labels import prompt_name
from sotglp.settings import LocalInit

ORTHONORMAL_SCALE = 0.001

MOST_CHARACTERS = 4096
"""Class names and templates that are longer are refused unread: the tokenizer's time grows faster than the text."""


@cache
def clip_tokenizer() -> SimpleTokenizer:
    """CLIP's byte-pair tokenizer; its vocabulary lies inside the open_clip package."""
    return SimpleTokenizer()


@dataclass(frozen=True)
class TokenizedClasses:
    """Tokens of class names, and where they end, for prompts with ``n_context`` learned vectors.

    Attributes
    ----------
    tokens : Tensor
        Tokens of each name and [EOT], filled with 0 on the right, (C, longest).
    eot_positions : Tensor
        Index of [EOT] in the whole sequence [SOT] + contexts + name + [EOT], (C,).
    """

    tokens: Tensor
    eot_positions: Tensor


def tokenize_classes(class_names: Sequence[str], n_context: int, context_length: int) -> TokenizedClasses:
    """Tokenize class names for prompts of [SOT] + ``n_context`` vectors + name + [EOT].

    Parameters
    ----------
    class_names : sequence of str
        Names, C of them; underscores are read as spaces.
    n_context : int
        Learned context vectors before the name, n.
    context_length : int
        Most tokens that the text tower takes.

    Raises
    ------
    SotglpError
        If there are no two classes, a name is empty or too long, or two names give the same prompt.

    References
    ----------
    SOT-GLP, arXiv 2603.08347, section on prompts.
    """
    if len(class_names) < 2:
        raise SotglpError(
            f"a classifier needs at least two classes, and there is {len(class_names)} class: add images of another"
        )
    tokenizer = clip_tokenizer()
    seen: dict[tuple[int, ...], str] = {}
    for name in class_names:
        _check_length("class name", name)
        tokens = tuple(tokenizer.encode(prompt_name(name)))
        if not tokens:
            raise SotglpError(f"the class name {name!r} has no text that a prompt could hold: rename the class")
        if tokens in seen:
            raise SotglpError(
                f"the classes {seen[tokens]!r} and {name!r} give the same prompt (case is ignored and _ is read as a "
                "space): rename or merge one of them"
            )
        room = context_length - n_context - 2
        if len(tokens) > room:
            raise SotglpError(
                f"the class name {_shortened(name)!r} has {len(tokens)} tokens, but the text tower has room for "
                f"{max(room, 0)} beside a context of {n_context}: shorten the name"
            )
        seen[tokens] = name
    longest = max(map(len, seen)) + 1
    table = torch.zeros(len(seen), longest, dtype=torch.long)
    for row, tokens in zip(table, seen, strict=True):
        row[: len(tokens)] = torch.tensor(tokens)
        row[len(tokens)] = tokenizer.eot_token_id
    lengths = torch.tensor([len(tokens) for tokens in seen])
    return TokenizedClasses(table, 1 + n_context + lengths)


def template_tokens(template: str, context_length: int) -> Tensor:
    """Tokens that the contexts start from: those of the template without its placeholder, (n,).

    Raises
    ------
    SotglpError
        If the template has no single ``{}``, no words beside it, or too many of them.
    """
    if template.count("{}") != 1:
        raise SotglpError(
            f"the template {_shortened(template)!r} must hold the placeholder {{}} once, as 'A photo of a {{}}' does"
        )
    _check_length("template", template)
    tokens = clip_tokenizer().encode(prompt_name(template.replace("{}", " ")))
    if not tokens:
        raise SotglpError(
            f"the template {_shortened(template)!r} has no words beside {{}}: a context needs at least one"
        )
    if len(tokens) > context_length - 3:
        raise SotglpError(
            f"the template {_shortened(template)!r} has {len(tokens)} tokens, but the text tower takes "
            f"{context_length} in all: shorten it"
        )
    return torch.tensor(tokens)


def initial_local_contexts(
    n_classes: int, n_prompts: int, n_context: int, width: int, how: LocalInit, generator: torch.Generator
) -> Tensor:
    """Random local contexts, (C, N, n, d_text).

    ``xavier`` draws uniformly from +-sqrt(6 / ((N + C) n d_text)): Xavier's rule for the whole 4-D tensor.
    ``orthonormal`` makes the N prompts of a class orthonormal and scales them by 0.001.

    References
    ----------
    SOT-GLP, arXiv 2603.08347, implementation details; Glorot & Bengio 2010 for Xavier's rule.
    """
    shape = (n_classes, n_prompts, n_context, width)
    if how == "xavier":
        bound = math.sqrt(6 / ((n_prompts + n_classes) * n_context * width))
        return torch.empty(shape).uniform_(-bound, bound, generator=generator)
    if n_prompts > n_context * width:
        raise SotglpError(
            f"{n_prompts} prompts can't be orthonormal in {n_context * width} dimensions: use local_init='xavier'"
        )
    columns = torch.linalg.qr(torch.randn(n_classes, n_context * width, n_prompts, generator=generator)).Q
    orthonormal: Tensor = columns.mT.reshape(shape)
    return ORTHONORMAL_SCALE * orthonormal


def _check_length(kind: str, text: str) -> None:
    if len(text) > MOST_CHARACTERS:
        raise SotglpError(f"the {kind} {_shortened(text)!r} has {len(text)} characters: shorten it")


def _shortened(text: str, longest: int = 60) -> str:
    return text if len(text) <= longest else text[: longest - 3] + "..."
