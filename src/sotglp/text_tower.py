"""The text tower of an open_clip model: embeddings of prompt sequences in, text features out."""

from __future__ import annotations

from typing import Any, cast

import torch
from open_clip.transformer import ResidualAttentionBlock, TextTransformer
from torch import Tensor, nn
from torch.nn import functional as F

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
        text: Any = getattr(clip, "text", clip)
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
        if not all(isinstance(block, ResidualAttentionBlock) for block in cast(Any, text).transformer.resblocks):
            raise UnservedTowerError("text tower", "its attention blocks are custom ones")

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

    def encode(self, trunk: Tensor, branches: Tensor, eot_positions: Tensor) -> Tensor:
        """Encode sequences that begin alike, their common beginning once.

        The tower is causal: a token sees only those before it. So the trunk's keys and values are the same for all
        branches, and what follows the longest EOT need not be there.

        Parameters
        ----------
        trunk : Tensor
            Token embeddings without positions of the common beginning, (T, d_text), at least [SOT].
        branches : Tensor
            Token embeddings without positions of the ways in which it goes on, (S, L, d_text).
        eot_positions : Tensor
            Index of [EOT] in each branch, counted from the start of the branch, (S,).

        Returns
        -------
        Tensor
            Text features, not normalised, (S, d).

        References
        ----------
        SOT-GLP, arXiv 2603.08347, section on prompts; CLIP, arXiv 2103.00020, section 2.4.
        """
        text = self._text
        n_trunk, length = len(trunk), branches.shape[1]
        positions = text.positional_embedding[: n_trunk + length]
        trunk = trunk.to(positions.dtype).unsqueeze(0) + positions[:n_trunk]
        branches = branches.to(positions.dtype) + positions[n_trunk:]
        mask = text.attn_mask[: n_trunk + length, : n_trunk + length]
        for block in text.transformer.resblocks:
            trunk, branches = _run_block(block, trunk, branches, mask)
        at_eot = branches[torch.arange(len(branches), device=branches.device), eot_positions]
        # LayerNorm works token by token, so only the EOT tokens need it.
        features: Tensor = text.ln_final(at_eot)
        if isinstance(text.text_projection, nn.Linear):
            features = text.text_projection(features)
        elif text.text_projection is not None:
            features = features @ text.text_projection
        return features


def _run_block(block: ResidualAttentionBlock, trunk: Tensor, branches: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """One transformer block on a trunk (1, T, W) and on branches (S, L, W) that also see the trunk."""
    n_trunk = trunk.shape[1]
    trunk_query, trunk_key, trunk_value = _heads(block, trunk)  # (1, heads, T, W / heads)
    query, key, value = _heads(block, branches)  # (S, heads, L, W / heads)
    trunk_attended = F.scaled_dot_product_attention(
        trunk_query, trunk_key, trunk_value, attn_mask=mask[:n_trunk, :n_trunk].to(trunk_query.dtype)
    )
    attended = F.scaled_dot_product_attention(
        query,
        torch.cat([trunk_key.expand(len(key), -1, -1, -1), key], dim=2),
        torch.cat([trunk_value.expand(len(value), -1, -1, -1), value], dim=2),
        attn_mask=mask[n_trunk:].to(query.dtype),
    )
    return _finish_block(block, trunk, trunk_attended), _finish_block(block, branches, attended)


def _heads(block: ResidualAttentionBlock, tokens: Tensor) -> tuple[Tensor, ...]:
    """Query, key and value of each head, from (S, L, W)."""
    attention = block.attn
    projected = F.linear(block.ln_1(tokens), attention.in_proj_weight, attention.in_proj_bias)
    n_sequences, length, _ = tokens.shape
    return projected.view(n_sequences, length, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4).unbind()


def _finish_block(block: ResidualAttentionBlock, tokens: Tensor, attended: Tensor) -> Tensor:
    """Add what was attended to (S, heads, L, W / heads), and the MLP, to the residual stream (S, L, W)."""
    tokens = tokens + block.ls_1(block.attn.out_proj(attended.transpose(1, 2).flatten(2)))
    stream: Tensor = tokens + block.ls_2(block.mlp(block.ln_2(tokens)))
    return stream
