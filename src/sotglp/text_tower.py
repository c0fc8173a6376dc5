"""The text tower of an open_clip model: embeddings of prompt sequences in, text features out."""

from __future__ import annotations

from typing import Any

import torch
from open_clip.transformer import TextTransformer
from torch import Tensor, nn

from sotglp.errors import UnservedTowerError

VOCABULARY_SIZE = 49408
"""Tokens of CLIP's byte-pair vocabulary, which open_clip's SimpleTokenizer carries."""


class TextTower:
    """A view on the text weights of an ``open_clip.CLIP`` or ``open_clip.CustomTextCLIP``; it owns nothing.

    Parameters
    ----------
    clip : nn.Module
        The open_clip model.

    Raises
    ------
    UnservedTowerError
        If the tower is not a causal transformer that reads CLIP's vocabulary and ends at EOT.
    """

    def __init__(self, clip: nn.Module) -> None:
        text = getattr(clip, "text", clip)
        if text is not clip and not isinstance(text, TextTransformer):
            raise UnservedTowerError(
                f"text tower {type(text).__name__}", "learned prompts need open_clip's own text transformer"
            )
        if getattr(text, "cls_emb", None) is not None:
            raise UnservedTowerError("text tower", "it ends in a class token of its own (CoCa) instead of EOT")
        pool = getattr(text, "text_pool_type", getattr(text, "pool_type", None))
        if text.attn_mask is None or pool != "argmax":
            raise UnservedTowerError("text tower", "it is not causal and read at EOT (nor are SigLIP's and CLIPA's)")
        if text.vocab_size != VOCABULARY_SIZE:
            raise UnservedTowerError(
                "text tower", f"it reads a vocabulary of {text.vocab_size} tokens instead of CLIP's {VOCABULARY_SIZE}"
            )
        # Read through the module at each use: moving it to a device replaces its buffers.
        self._text: Any = text

    @property
    def context_length(self) -> int:
        """Most tokens that a sequence may have, [SOT] and [EOT] counted."""
        return int(self._text.positional_embedding.shape[0])

    @property
    def width(self) -> int:
        """Width of a token embedding, d_text."""
        return int(self._text.positional_embedding.shape[1])

    def embed(self, tokens: Tensor) -> Tensor:
        """Embeddings of token numbers, without positions: (...) to (..., d_text)."""
        embeddings: Tensor = self._text.token_embedding(tokens)
        return embeddings

    def encode(self, sequences: Tensor, eot_positions: Tensor) -> Tensor:
        """Encode sequences of token embeddings.

        The tower is causal: a token sees only those before it, so what follows the longest EOT need not be there.

        Parameters
        ----------
        sequences : Tensor
            Token embeddings without positions, (S, L, d_text); L at most ``context_length``.
        eot_positions : Tensor
            Index of [EOT] in each sequence, (S,).

        Returns
        -------
        Tensor
            Text features, not normalised, (S, d).

        References
        ----------
        SOT-GLP, arXiv 2603.08347, section on prompts; CLIP, arXiv 2103.00020, section 2.4.
        """
        text = self._text
        length = sequences.shape[1]
        hidden = sequences.to(text.positional_embedding.dtype) + text.positional_embedding[:length]
        hidden = text.transformer(hidden, attn_mask=text.attn_mask[:length, :length])
        at_eot = hidden[torch.arange(len(hidden), device=hidden.device), eot_positions]
        # LayerNorm works token by token, so only the EOT tokens need it.
        features: Tensor = text.ln_final(at_eot)
        if isinstance(text.text_projection, nn.Linear):
            features = text.text_projection(features)
        elif text.text_projection is not None:
            features = features @ text.text_projection
        return features
