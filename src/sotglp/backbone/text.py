"""The text tower of an open_clip model: encodes embeddings of prompts into text features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from open_clip.transformer import ResidualAttentionBlock, TextTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from sotglp.errors import UnsupportedTowerError

VOCABULARY_SIZE = 49408
"""Tokens of CLIP's byte-pair vocabulary, which open_clip's SimpleTokenizer has."""


@dataclass(frozen=True, eq=False)
class Segment:
    """S token sequences of equal length L, each the continuation of an earlier sequence.

    ``embeddings`` (S, L, d_text) have no positions. ``before`` is the segment that they continue, of S' sequences, each
    the prefix of S / S' adjacent ones; None at [SOT].
    """

    embeddings: Tensor
    before: Segment | None = None

    @property
    def n_sequences(self) -> int:
        """Number of sequences, S."""
        return self.embeddings.shape[0]

    @property
    def start(self) -> int:
        """Position of the first token in the whole sequence."""
        return 0 if self.before is None else self.before.stop

    @property
    def stop(self) -> int:
        """Position after the last token."""
        return self.start + self.embeddings.shape[1]


class TextTower:
    """The text tower of an ``open_clip.CLIP`` or ``open_clip.CustomTextCLIP``, whose weights it refers to.

    Raises an UnsupportedTowerError unless it is a causal transformer with CLIP's vocabulary that is pooled at EOT.
    """

    def __init__(self, clip: nn.Module) -> None:
        text: Any = getattr(clip, "text", clip)
        if text is not clip and not isinstance(text, TextTransformer):
            raise UnsupportedTowerError(
                f"text tower {type(text).__name__}", "learned prompts need open_clip's own text transformer"
            )
        if getattr(text, "cls_emb", None) is not None:
            raise UnsupportedTowerError("text tower", "it is pooled at a class token (CoCa) instead of EOT")
        pool = getattr(text, "text_pool_type", getattr(text, "pool_type", None))
        if text.attn_mask is None or pool != "argmax":
            raise UnsupportedTowerError("text tower", "it is not causal and pooled at EOT, like SigLIP's and CLIPA's")
        if text.vocab_size != VOCABULARY_SIZE:
            raise UnsupportedTowerError(
                "text tower", f"it has a vocabulary of {text.vocab_size} tokens instead of CLIP's {VOCABULARY_SIZE}"
            )
        # Weights are looked up at each use, since moving the module to a device replaces its buffers.
        self._text: Any = text
        if not all(isinstance(block, ResidualAttentionBlock) for block in cast(Any, text).transformer.resblocks):
            raise UnsupportedTowerError("text tower", "its attention blocks are custom ones")

    @staticmethod
    def is_configured(text: Mapping[str, Any]) -> bool:
        """Return whether open_clip builds a supported text tower from a ``text_cfg``."""
        return (
            not any(text.get(key) for key in ("hf_model_name", "hf_tokenizer_name", "embed_cls", "no_causal_mask"))
            and text.get("pool_type", "argmax") == "argmax"
            and text.get("vocab_size", VOCABULARY_SIZE) == VOCABULARY_SIZE
        )

    @property
    def context_length(self) -> int:
        """Largest number of tokens in a sequence, including [SOT] and [EOT]."""
        return int(self._text.positional_embedding.shape[0])

    @property
    def width(self) -> int:
        """Width of a token embedding, d_text."""
        return int(self._text.positional_embedding.shape[1])

    @property
    def bytes_per_token(self) -> int:
        """Bytes of the residual stream of one token in all blocks."""
        return len(self._text.transformer.resblocks) * self.width * int(self._text.positional_embedding.itemsize)

    def embed(self, tokens: Tensor) -> Tensor:
        """Look up the embeddings of token numbers (...), without positions: (..., d_text)."""
        embeddings: Tensor = self._text.token_embedding(tokens)
        return embeddings

    def encode(self, segments: Sequence[Segment]) -> list[Tensor]:
        """Encode sequences with shared prefixes, each shared token once, into features of those that end in [EOT].

        Each segment comes after the one that it continues, and those that none continues end in [EOT]; their features
        are in the same order, not normalised, (S, d) each. The tower is causal: a token attends only to those before
        it. So the keys and values of a prefix are the same for all sequences that continue it, and tokens after [EOT]
        are not needed (SOT-GLP, arXiv 2603.08347, section on prompts; CLIP, arXiv 2103.00020, section 2.4).
        """
        text = self._text
        positions = text.positional_embedding
        # One matrix (T, W) holds all tokens, so that a linear layer is one product for any lengths.
        tokens = torch.cat(
            [(one.embeddings.to(positions.dtype) + positions[one.start : one.stop]).flatten(0, 1) for one in segments]
        )
        *blocks, last_block = text.transformer.resblocks
        for block in blocks:
            attended = _attend(block, tokens, segments, text.attn_mask)
            tokens = _finish_block(block, tokens, torch.cat([part.flatten(0, 1) for part in attended]))
        # Only [EOT] is pooled: of other tokens, the last block needs only keys and values.
        ends = [one for one in segments if all(other.before is not one for other in segments)]
        attended = _attend(last_block, tokens, segments, text.attn_mask, ends)
        at_eot = [part[:, -1] for one, part in zip(segments, _split(tokens, segments), strict=True) if one in ends]
        tokens = _finish_block(last_block, torch.cat(at_eot), torch.cat(attended).flatten(0, 1))
        features: Tensor = text.ln_final(tokens)
        if isinstance(text.text_projection, nn.Linear):
            features = text.text_projection(features)
        elif text.text_projection is not None:
            features = features @ text.text_projection
        return list(features.split([one.n_sequences for one in ends]))


def _split(tokens: Tensor, segments: Sequence[Segment]) -> list[Tensor]:
    """Split tokens (T, W) into those of each segment, (S, L, W)."""
    shapes = [one.embeddings.shape[:2] for one in segments]
    parts = tokens.split([shape.numel() for shape in shapes])
    return [part.view(*shape, -1) for part, shape in zip(parts, shapes, strict=True)]


def _attend(
    block: ResidualAttentionBlock,
    tokens: Tensor,
    segments: Sequence[Segment],
    mask: Tensor,
    ends: Sequence[Segment] | None = None,
) -> list[Tensor]:
    """Attention output of the tokens (T, W) of each segment, (S, L, W); given ``ends``, of the last ones, (S, 1, W)."""
    attention = block.attn
    projected = F.linear(block.ln_1(tokens), attention.in_proj_weight, attention.in_proj_bias)
    seen: dict[Segment, tuple[Tensor, Tensor]] = {}  # keys and values, (S, heads, stop, W / heads)
    attended = []
    for one, part in zip(segments, _split(projected, segments), strict=True):
        query, key, value = part.unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
        if one.before is not None:
            key, value = (
                torch.cat([earlier.repeat_interleave(len(now) // len(earlier), dim=0), now], dim=2)
                for earlier, now in zip(seen[one.before], (key, value), strict=True)
            )
        seen[one] = key, value
        if ends is None:
            own_mask = mask[one.start : one.stop, : one.stop].to(query.dtype)
            heads = F.scaled_dot_product_attention(query, key, value, attn_mask=own_mask)
        elif one in ends:
            heads = F.scaled_dot_product_attention(query[:, :, -1:], key, value)
        else:
            continue
        attended.append(heads.transpose(1, 2).flatten(2))
    return attended


def _finish_block(block: ResidualAttentionBlock, tokens: Tensor, attended: Tensor) -> Tensor:
    """Add attention output and MLP to the residual stream (T, W)."""
    tokens = tokens + block.ls_1(block.attn.out_proj(attended))
    stream: Tensor = tokens + block.ls_2(block.mlp(block.ln_2(tokens)))
    return stream
