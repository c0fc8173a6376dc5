"""The text tower of an open_clip model: encodes embeddings of prompts into text features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F

from sotglp.backbone.blocks import add_mlp, linear
from sotglp.backbone.low_rank import project_in
from sotglp.backbone.tokenizers import ClipTokenizer, PromptTokenizer
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


LoadTokenizer = Callable[[], PromptTokenizer]
"""Loads a tokenizer when it is used first: encoding images needs none."""


class OpenClipText:
    """What text towers of open_clip's own transformer blocks share; they refer to the weights of the model.

    Parameters
    ----------
    clip : nn.Module
        The open_clip model.
    load_tokenizer : callable or None, default None
        Loads the tokenizer; None for CLIP's.

    Raises
    ------
    UnsupportedTowerError
        If the tower's vocabulary, pool or blocks are not supported.
    """

    def __init__(self, clip: nn.Module, load_tokenizer: LoadTokenizer | None = None) -> None:
        # Weights are looked up at each use, since moving the module to a device replaces its buffers.
        self._text: Any = getattr(clip, "text", clip)
        self._load_tokenizer = load_tokenizer
        check_vocabulary(self._text.vocab_size, load_tokenizer)
        if pool_of(self._text) == "argmax" and load_tokenizer is not None and self._class_embedding is None:
            raise UnsupportedTowerError("text tower", "it is pooled at the largest token, which only CLIP's [EOT] is")
        if not all(isinstance(block, ResidualAttentionBlock) for block in self._text.transformer.resblocks):
            raise UnsupportedTowerError("text tower", "its attention blocks are custom ones")

    @cached_property
    def tokenizer(self) -> PromptTokenizer:
        """The tokenizer of its vocabulary."""
        return ClipTokenizer() if self._load_tokenizer is None else self._load_tokenizer()

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

    @property
    def _class_embedding(self) -> Tensor | None:
        embedding: Tensor | None = getattr(self._text, "cls_emb", None)
        return embedding


class TextTower(OpenClipText):
    """The causal text tower of an ``open_clip.CLIP`` or ``open_clip.CustomTextCLIP``, whose weights it refers to.

    It is pooled at the end of a sequence, so that tokens after it are not needed, and sequences with a common prefix
    share its keys and values. Raises an UnsupportedTowerError for other towers: see ``sotglp.backbone.text_readers``.
    """

    title: ClassVar[str] = "a causal transformer of open_clip that is pooled at the end of a text"

    padded_length: ClassVar[int | None] = None
    """Number of tokens that every sequence is filled up to, None if it is encoded as long as it is."""

    @staticmethod
    def reads(text: nn.Module) -> bool:
        """Return whether a text tower, or a model that holds its parts, is of this kind."""
        is_causal = getattr(text, "attn_mask", None) is not None and getattr(text, "cls_emb", None) is None
        return is_causal and pool_of(text) in ("argmax", "eos")

    @staticmethod
    def is_configured(text: Mapping[str, Any]) -> bool:
        """Return whether open_clip builds a supported text tower of this kind from a ``text_cfg``."""
        pool, needs_vocabulary = text.get("pool_type", "argmax"), not text.get("hf_tokenizer_name")
        return (
            not any(text.get(key) for key in ("hf_model_name", "embed_cls", "no_causal_mask"))
            and (pool == "argmax") == needs_vocabulary
            and pool in ("argmax", "eos")
            and (text.get("vocab_size", VOCABULARY_SIZE) == VOCABULARY_SIZE or not needs_vocabulary)
        )

    @property
    def context_length(self) -> int:
        """Largest number of tokens in a sequence, including those before and after a text."""
        return int(self._text.positional_embedding.shape[0])

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
        features = project(text, text.ln_final(tokens))
        return list(features.split([one.n_sequences for one in ends]))


def pool_of(text: Any) -> str | None:
    """Return open_clip's name of the pool of a text tower, or of a model that holds its parts."""
    pool: str | None = getattr(text, "text_pool_type", getattr(text, "pool_type", None))
    return pool


def check_vocabulary(n_tokens: int, load_tokenizer: LoadTokenizer | None) -> None:
    """Raise an UnsupportedTowerError if a tower without a tokenizer has another vocabulary than CLIP's."""
    if load_tokenizer is None and n_tokens != VOCABULARY_SIZE:
        raise UnsupportedTowerError(
            "text tower",
            f"it has a vocabulary of {n_tokens} tokens instead of CLIP's {VOCABULARY_SIZE} and no tokenizer is given "
            "(tokenizer=)",
        )


def project(text: Any, pooled: Tensor) -> Tensor:
    """Project pooled tokens (S, W) of open_clip's text transformer into the joint space, (S, d)."""
    projection = text.text_projection
    if projection is None:
        return pooled
    features: Tensor = projection(pooled) if isinstance(projection, nn.Linear) else pooled @ projection
    return features


def whole_sequences(segments: Sequence[Segment]) -> list[Tensor]:
    """Return the embeddings of the sequences that no other continues, from the first token on, (S, L, d_text) each."""

    def whole(one: Segment) -> Tensor:
        if one.before is None:
            return one.embeddings
        earlier = whole(one.before)
        repeated = earlier.repeat_interleave(one.n_sequences // len(earlier), dim=0)
        return torch.cat([repeated.to(one.embeddings.dtype), one.embeddings], dim=1)

    return [whole(one) for one in segments if all(other.before is not one for other in segments)]


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
    projected = project_in(attention, block.ln_1(tokens))
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
    projection = block.attn.out_proj
    return add_mlp(block, tokens + block.ls_1(linear(attended, projection.weight, projection.bias)))
