"""Text towers of open_clip whose features depend on the padding after a text: MobileCLIP-S, SigLIP, CLIPA and CoCa."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from open_clip.transformer import TextTransformer
from torch import Tensor, nn

from sotglp.backbone.text import (
    VOCABULARY_SIZE,
    LoadTokenizer,
    OpenClipText,
    Segment,
    pool_of,
    project,
    whole_sequences,
)
from sotglp.errors import UnsupportedTowerError

POOLS = ("argmax", "eos", "first", "last")


class PaddedTextTower(OpenClipText):
    """Encodes whole sequences, filled up with padding as open_clip fills them.

    Without a causal mask, every token sees the padding, and the pool ``last`` reads it. CoCa's class embedding
    (arXiv 2205.01917, section 3.1) stands after it, and sees the text alone. In open_clip's weights of CoCa, it also
    sees the first token of padding, but not itself, since their mask was shifted by one; so it does here. Unlike there,
    a token of a text that is equal to the padding, CLIP's "!", is seen.
    """

    title: ClassVar[str] = "one with padding (MobileCLIP-S, SigLIP, CLIPA) or a class token (CoCa)"

    def __init__(self, clip: nn.Module, load_tokenizer: LoadTokenizer | None = None) -> None:
        super().__init__(clip, load_tokenizer)
        if getattr(self._text, "use_pad_mask", False):
            raise UnsupportedTowerError("text tower", "it hides its padding, which no configuration of open_clip does")

    @staticmethod
    def reads(text: nn.Module) -> bool:
        """Return whether a text tower, or a model that holds its parts, is of this kind."""
        is_open_clips = isinstance(text, TextTransformer) or hasattr(text, "token_embedding")
        return is_open_clips and pool_of(text) in POOLS

    @staticmethod
    def is_configured(text: Mapping[str, Any]) -> bool:
        """Return whether open_clip builds a supported text tower of this kind from a ``text_cfg``."""
        pool, has_clips = text.get("pool_type", "argmax"), not text.get("hf_tokenizer_name")
        is_causal = not (text.get("embed_cls") or text.get("no_causal_mask")) and pool in ("argmax", "eos")
        return (
            not text.get("hf_model_name")
            and not is_causal
            and pool in POOLS
            and (has_clips or pool != "argmax")
            and (text.get("vocab_size", VOCABULARY_SIZE) == VOCABULARY_SIZE or not has_clips)
        )

    @property
    def context_length(self) -> int:
        """Largest number of tokens in a sequence, including those before and after a text."""
        return int(self._text.context_length)

    @property
    def padded_length(self) -> int | None:
        """Number of tokens that every sequence is filled up to."""
        return self.context_length

    def encode(self, segments: Sequence[Segment]) -> list[Tensor]:
        """Encode sequences as :meth:`sotglp.backbone.text.TextTower.encode` does, each as a whole."""
        encode = self._encode_filled if self._class_embedding is None else self._encode_with_class
        return [encode(sequences) for sequences in whole_sequences(segments)]

    def _encode_filled(self, sequences: Tensor) -> Tensor:
        text = self._text
        length = sequences.shape[1]
        tokens = self._fill(sequences, self.context_length) + text.positional_embedding
        tokens = text.transformer(tokens, attn_mask=text.attn_mask)
        pool = pool_of(text)
        place = {"first": 0, "last": -1}.get(str(pool), length - 1)
        return project(text, text.ln_final(tokens[:, place]))

    def _encode_with_class(self, sequences: Tensor) -> Tensor:
        text, length = self._text, sequences.shape[1]
        is_full = length == self.context_length
        sees_padding = not text.correct_cls_mask and not is_full
        tokens = self._fill(sequences, length + sees_padding)
        n_tokens = tokens.shape[1]
        tokens = torch.cat([tokens, text.cls_emb.expand(len(tokens), 1, -1)], dim=1)
        positions = text.positional_embedding
        tokens = tokens + torch.cat([positions[:n_tokens], positions[self.context_length :]])
        mask = torch.full((n_tokens + 1,) * 2, -torch.inf, dtype=tokens.dtype, device=tokens.device).triu(1)
        if text.attn_mask is None:
            mask = torch.zeros_like(mask)
        if sees_padding:
            mask[:, -1] = -torch.inf
        tokens = text.transformer(tokens, attn_mask=mask)
        return project(text, text.ln_final(tokens[:, -1]))

    def _fill(self, sequences: Tensor, length: int) -> Tensor:
        """Fill sequences (S, L, d_text) up with the embedding of padding, (S, length, d_text)."""
        padding = self.embed(torch.tensor(self.tokenizer.pad, device=sequences.device))
        n_missing = length - sequences.shape[1]
        filled = torch.cat([sequences, padding.expand(len(sequences), n_missing, -1).to(sequences.dtype)], dim=1)
        return filled.to(self._text.positional_embedding.dtype)
