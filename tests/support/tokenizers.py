"""A tokenizer of a small vocabulary, without any package."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LetterTokenizer:
    """One token for each letter of the alphabet, from 10 on, and the given ones around a text."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = (2,)
    pad: int = 1

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        return [10 + ord(letter) - ord("a") for letter in text.lower() if "a" <= letter <= "z"]

    def token_text(self, token: int) -> str:
        return chr(token - 10 + ord("a"))

    def words(self) -> Tensor:
        return torch.arange(10, 36)

    def whole(self, text: str, length: int) -> list[int]:
        """Tokens of a text with those around it, filled up to a length."""
        tokens = [*self.before, *self.encode(text), *self.after]
        return tokens + [self.pad] * (length - len(tokens))
