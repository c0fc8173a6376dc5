"""Low-rank updates of the query, key and value matrices of open_clip's attention (LoRA, arXiv 2106.09685)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F

from sotglp.backbone.blocks import linear

MATRICES = 3
"""Adapted matrices of a block: query, key and value."""


class LowRankUpdates:
    """The updates ``scale * up @ down`` of the matrices of a tower's L blocks of width W.

    They refer to parameters that a model owns: ``down`` (L, 3, r, W) and ``up`` (L, 3, W, r). While a model ``learns``,
    they are computed beside the frozen product, and a share ``dropout`` of their inputs is left out, drawn for each
    matrix, token and feature. Otherwise they are added to the frozen matrices, whose product takes no longer.
    """

    def __init__(self, down: nn.Parameter, up: nn.Parameter, scale: float, dropout: float) -> None:
        self.down, self.up, self.scale, self.dropout = down, up, scale, dropout
        self.learns = False
        self._seed, self._n_drawn = 0, 0

    def begin_step(self, seed: int) -> None:
        """Set the seed of what is left out in the next training step."""
        self._seed, self._n_drawn = seed, 0

    def merged(self, depth: int, weight: Tensor) -> Tensor:
        """Return the matrices of a block, (3 W, W), with their update, outside of autograd."""
        down, up = self.down[depth].detach(), self.up[depth].detach()
        # Outer products, since mixed precision would round a matrix product.
        update = torch.stack([up[..., one, None] * down[:, None, one] for one in range(down.shape[1])]).sum(dim=0)
        return weight + self.scale * update.flatten(0, 1)

    def product(self, depth: int, tokens: Tensor) -> Tensor:
        """Multiply tokens (..., W) by the update alone, (..., 3 W), with gradients."""
        inputs = self._with_dropout(tokens.expand(MATRICES, *tokens.shape))
        narrow = torch.einsum("m...w,mrw->m...r", inputs, self.down[depth])
        return self.scale * torch.einsum("m...r,mvr->...mv", narrow, self.up[depth]).flatten(-2)

    def _with_dropout(self, inputs: Tensor) -> Tensor:
        if not self.dropout:
            return inputs
        # A generator by number, not one for all, so that the updates can be copied and stored.
        generator = torch.Generator(inputs.device).manual_seed(self._seed + self._n_drawn)
        self._n_drawn += 1
        kept = torch.empty_like(inputs, memory_format=torch.contiguous_format)
        return inputs * kept.bernoulli_(1 - self.dropout, generator=generator) / (1 - self.dropout)


class LowRankAttention(nn.MultiheadAttention):
    """Self-attention whose query, key and value matrices have an update, number ``depth`` of a tower's ``updates``."""

    updates: LowRankUpdates
    depth: int

    def forward(self, query: Tensor, *_: Any, attn_mask: Tensor | None = None, **__: Any) -> Any:
        """Attend from tokens (B, L, W) to themselves, as open_clip's blocks ask for; no attention weights (None)."""
        projected = project_in(self, query).unflatten(2, (MATRICES, self.num_heads, -1))
        queries, keys, values = projected.permute(2, 0, 3, 1, 4)  # (B, heads, L, W / heads)
        heads = F.scaled_dot_product_attention(queries, keys, values, attn_mask=attn_mask)
        return self.out_proj(heads.transpose(1, 2).flatten(2)), None


def project_in(attention: nn.MultiheadAttention, tokens: Tensor) -> Tensor:
    """Compute queries, keys and values (..., 3 W) of normed tokens (..., W), with low-rank updates if there are any."""
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    if not isinstance(attention, LowRankAttention):
        return linear(tokens, weight, bias)
    updates, depth = attention.updates, attention.depth
    if updates.learns:
        return linear(tokens, weight, bias) + updates.product(depth, tokens)
    return linear(tokens, updates.merged(depth, weight), bias)


def attentions(tower: nn.Module) -> list[nn.MultiheadAttention]:
    """Return the attention of each of a tower's blocks that are open_clip's own."""
    return [
        cast(nn.MultiheadAttention, block.attn)
        for block in tower.modules()
        if isinstance(block, ResidualAttentionBlock)
    ]


def new_matrices(
    layers: Sequence[nn.MultiheadAttention], rank: int, generator: torch.Generator
) -> tuple[nn.Parameter, nn.Parameter]:
    """Return ``down``, drawn as torch draws linear layers, and ``up``, zeros, so that the first update is zero."""
    like = layers[0].in_proj_weight
    width = like.shape[1]
    bound = 1 / math.sqrt(width)
    drawn = torch.empty(len(layers), MATRICES, rank, width).uniform_(-bound, bound, generator=generator)
    return nn.Parameter(drawn.to(like)), nn.Parameter(like.new_zeros(len(layers), MATRICES, width, rank))


def add_updates(layers: Sequence[nn.MultiheadAttention], updates: LowRankUpdates) -> None:
    """Make the attention layers of a tower use the updates, in place."""
    for depth, layer in enumerate(layers):
        layer.__class__ = LowRankAttention
        adapted = cast(LowRankAttention, layer)
        adapted.updates, adapted.depth = updates, depth


def merge_updates(model: nn.Module) -> None:
    """Put the updates of all attention layers of a model into their weights, in place; other weights stay shared."""
    for layer in model.modules():
        if isinstance(layer, LowRankAttention):
            merged = layer.updates.merged(layer.depth, layer.in_proj_weight)
            layer.in_proj_weight = nn.Parameter(merged, requires_grad=False)
            del layer.updates, layer.depth
            layer.__class__ = nn.MultiheadAttention  # type: ignore[assignment]
