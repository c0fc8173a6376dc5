"""Image features and patch tokens of timm's vision transformers: EVA, PE-Core, SigLIP, ViTamin, MobileCLIP-B, ..."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, cast

import torch
from open_clip.timm_model import TimmModel
from timm.layers import Attention, AttentionPoolLatent, AttentionRope
from timm.models import is_model_in_modules
from timm.models.eva import Eva, EvaAttention, EvaBlock, EvaBlockPostNorm
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from sotglp.errors import SotglpError, UnsupportedTowerError
from sotglp.settings import PatchAttention

FAMILIES = ("eva", "vision_transformer", "vision_transformer_hybrid", "vitamin")
"""Modules of timm whose models qualify, for configurations; a loaded tower is examined itself."""

POOLS = ("", "avg", "map", "token")


class TimmVitReader:
    """Reads open_clip's TimmModel with a vision transformer; see :class:`sotglp.backbone.readers.TowerReader`.

    Patch tokens are those of V-V attention (SOT-GLP, arXiv 2603.08347, section on local features) after the last norm
    of the trunk, or the ordinary ones. Rotary positions change queries and keys only, so V-V attention has none. A
    patch is projected as the tower projects an image of one token: an attention pool over one token is its value path.
    """

    title: ClassVar[str] = "a timm vision transformer"

    def __init__(self, visual: nn.Module, patch_attention: PatchAttention) -> None:
        self._visual = cast(Any, visual)
        self._patch_attention = patch_attention
        trunk = self._visual.trunk
        if reason := _reason_against(trunk):
            raise UnsupportedTowerError(f"image tower {type(trunk).__name__}", reason)
        if trunk.patch_embed.img_size is not None:
            # open_clip's configuration of ViTamin-XL-384 has 256 pixels, and its trunk and weights 384.
            self._visual.image_size = tuple(trunk.patch_embed.img_size)
        rows, columns = trunk.patch_embed.grid_size
        self.patch_grid: tuple[int, int] = rows, columns
        embed = trunk.patch_embed
        height, width = self._visual.image_size
        # A hybrid's patch size counts positions of a feature map, not pixels.
        size = (height / rows, width / columns) if hasattr(embed, "backbone") else tuple(embed.patch_size)
        self.patch_size: tuple[float, float] = size
        # Of an image of a size that is not fixed, timm leaves no pixels out.
        is_fixed = getattr(embed, "strict_img_size", True) or getattr(embed, "dynamic_img_pad", False)
        if not (is_fixed or hasattr(embed, "backbone")) and (height % size[0] or width % size[1]):
            raise SotglpError(
                f"images of {height} x {width} pixels can't be divided into patches of {size[0]} x {size[1]}: choose "
                "an image size that is a multiple of it"
            )
        self.patch_width = int(trunk.embed_dim)
        heads = [
            one for part in (trunk.head, self._visual.head) for one in part.modules() if isinstance(one, nn.Linear)
        ]
        pool = trunk.attn_pool
        self.embed_dim = heads[-1].out_features if heads else self.patch_width if pool is None else pool.out_features

    @staticmethod
    def reads(visual: nn.Module) -> bool:
        """Return whether a module is a vision transformer of timm; the constructor examines its blocks."""
        return isinstance(visual, TimmModel) and isinstance(visual.trunk, VisionTransformer | Eva)

    @staticmethod
    def is_configured(vision: Mapping[str, Any]) -> bool:
        """Return whether open_clip builds a tower of one of ``FAMILIES`` from a ``vision_cfg``."""
        name = vision.get("timm_model_name")
        return bool(name) and vision.get("timm_pool", "avg") in POOLS and is_model_in_modules(name, FAMILIES)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images (B, 3, H, W) into ``visual(images)``, (B, d), and patch tokens (B, P, W).

        A CPU encodes one image after the other: products of few rows round by the number of rows, and the features of
        an image must not depend on the other images of its batch.
        """
        images = images.to(next(self._visual.trunk.parameters()).dtype)
        if images.device.type != "cpu":
            return self._encode(images)
        # timm's attention can't reshape an empty batch: its shapes are those of another image.
        parts = images.split(1) if len(images) else [images.new_zeros(1, *images.shape[1:])]
        features, patches = zip(*(self._encode(image) for image in parts), strict=True)
        return torch.cat(features)[: len(images)], torch.cat(patches)[: len(images)]

    def project(self, patch_tokens: Tensor) -> Tensor:
        """Project patch tokens (B, P, W) into the joint space, (B, P, d)."""
        trunk, tokens = self._visual.trunk, patch_tokens
        if trunk.attn_pool is not None:
            tokens = _pool_each(trunk.attn_pool, tokens)
        projected: Tensor = self._visual.head(trunk.head(trunk.fc_norm(tokens)))
        return projected

    def _encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        trunk = self._visual.trunk
        stream, ropes = _embed(trunk, images)  # h, (B, prefix + P, W)
        n_prefix = trunk.num_prefix_tokens
        values = stream[:, n_prefix:]  # r, (B, P, W)
        for depth, (block, rope) in enumerate(zip(trunk.blocks, ropes, strict=True)):
            if self._patch_attention == "value":
                normed = stream if isinstance(block, EvaBlockPostNorm) else block.norm1(stream)
                if depth == 0:
                    ordinary = block.attn(normed) if rope is None else block.attn(normed, rope=rope)
                    values = values + _into_stream(block, ordinary)[:, n_prefix:]
                values = values + _into_stream(block, _attend_values(block.attn, normed, n_prefix))
            stream = block(stream) if rope is None else block(stream, rope=rope)
        stream = trunk.norm(stream)
        patches = trunk.norm(values) if self._patch_attention == "value" else stream[:, n_prefix:]
        return self._visual.head(trunk.forward_head(stream)), patches


def _reason_against(trunk: Any) -> str | None:
    """Return why patch tokens of a transformer are not defined, or None."""
    for block in trunk.blocks:
        if not isinstance(block, Block | EvaBlock | EvaBlockPostNorm):
            return f"V-V attention is not defined in its {type(block).__name__}"
        attention = block.attn
        is_plain = isinstance(attention, Attention | AttentionRope | EvaAttention) and attention.gate is None
        if not is_plain or getattr(attention, "num_kv_groups", 1) > 1:
            return f"V-V attention is not defined in its {type(attention).__name__}, which has gates or shared values"
    pool = trunk.attn_pool
    if pool is None:
        return None if trunk.global_pool in ("token", "avg") else f"it pools its tokens by {trunk.global_pool!r}"
    if not isinstance(pool, AttentionPoolLatent) or pool.pos_embed is not None or pool.pool not in ("token", "avg"):
        return f"a patch has no place in its pool, {type(pool).__name__}"
    return None


def _embed(trunk: Any, images: Tensor) -> tuple[Tensor, list[Tensor | None]]:
    """Return the input of the first block, (B, prefix + P, W), and the rotary positions of each block."""
    tokens = trunk.patch_embed(images)
    depth = len(trunk.blocks)
    if isinstance(trunk, VisionTransformer):
        return trunk.norm_pre(trunk.patch_drop(trunk._pos_embed(tokens))), [None] * depth
    tokens, rope = trunk._pos_embed(tokens)
    is_mixed = rope is not None and getattr(trunk, "rope_mixed", False)
    return trunk.norm_pre(tokens), list(rope) if is_mixed else [rope] * depth


def _attend_values(attention: Any, normed: Tensor, n_prefix: int) -> Tensor:
    """V-V attention of the patches among all tokens (B, prefix + P, W), after the output projection, (B, P, W)."""
    value = _values(attention, normed).unflatten(2, (attention.num_heads, -1)).transpose(1, 2)  # (B, heads, L, d_h)
    between = F.scaled_dot_product_attention(value[:, :, n_prefix:], value, value)
    attended: Tensor = attention.proj(attention.norm(between.transpose(1, 2).flatten(2)))
    return attended


def _values(attention: Any, normed: Tensor) -> Tensor:
    """Values of tokens (B, L, W), with all heads side by side."""
    if attention.qkv is None:
        values: Tensor = attention.v_proj(normed)
        return values
    width = attention.qkv.out_features // 3
    bias = attention.qkv.bias
    bias = getattr(attention, "v_bias", None) if bias is None else bias[2 * width :]
    return F.linear(normed, attention.qkv.weight[2 * width :], bias)


def _into_stream(block: Any, attended: Tensor) -> Tensor:
    """Scale or normalise attention output as a block does before it adds it to its stream."""
    if isinstance(block, EvaBlockPostNorm):
        normed: Tensor = block.norm1(attended)
        return normed
    if isinstance(block, EvaBlock):
        return attended if block.gamma_1 is None else block.gamma_1 * attended
    scaled: Tensor = block.ls1(attended)
    return scaled


def _pool_each(pool: AttentionPoolLatent, tokens: Tensor) -> Tensor:
    """Pool each token (..., W) as if it were the only one: the softmax over one token is 1."""
    bias = pool.kv.bias
    width = pool.kv.out_features // 2
    values = F.linear(tokens, pool.kv.weight[width:], None if bias is None else bias[width:])
    pooled: Tensor = pool.proj(values)
    return pooled if pool.mlp is None else pooled + pool.mlp(pool.norm(pooled))
