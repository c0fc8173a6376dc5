"""Image features and patch tokens of open_clip's vision transformer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, cast

import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from sotglp.backbone.blocks import add_mlp, linear
from sotglp.backbone.low_rank import project_in
from sotglp.errors import UnsupportedTowerError
from sotglp.settings import PatchAttention


class VitReader:
    """Reads open_clip's VisionTransformer; see :class:`sotglp.backbone.readers.TowerReader`."""

    title: ClassVar[str] = "open_clip's own VisionTransformer with a CLS token or an average pool"

    def __init__(self, visual: nn.Module, patch_attention: PatchAttention) -> None:
        self._visual = cast(Any, visual)
        self._patch_attention = patch_attention
        if self._visual.pool_type not in ("tok", "avg"):
            raise UnsupportedTowerError(
                "image tower", f"it pools its tokens by {self._visual.pool_type!r} instead of a CLS token or their mean"
            )
        check_blocks(self._visual)
        self.patch_grid: tuple[int, int] = tuple(self._visual.grid_size)
        self.patch_size: tuple[float, float] = tuple(self._visual.patch_size)
        self.patch_width = int(self._visual.ln_post.normalized_shape[0])
        self.embed_dim = int(self._visual.output_dim)

    @staticmethod
    def reads(visual: nn.Module) -> bool:
        """Return whether a module is open_clip's VisionTransformer without an attention pool."""
        return isinstance(visual, VisionTransformer) and visual.attn_pool is None

    @staticmethod
    def is_configured(vision: Mapping[str, Any]) -> bool:
        """Return whether open_clip builds such a VisionTransformer from a ``vision_cfg``."""
        pool = vision.get("pool_type", "tok")
        return is_vit(vision) and not vision.get("attentional_pool") and pool in ("tok", "avg")

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images (B, 3, H, W) as :func:`encode_vit` does."""
        return encode_vit(self._visual, images.to(self._visual.conv1.weight.dtype), self._patch_attention)

    def project(self, patch_tokens: Tensor) -> Tensor:
        """Project patch tokens (B, P, W) into the joint space, (B, P, d)."""
        projection = self._visual.proj
        return patch_tokens if projection is None else patch_tokens @ projection.to(patch_tokens.dtype)


def is_vit(vision: Mapping[str, Any]) -> bool:
    """Return whether open_clip builds its own VisionTransformer from a ``vision_cfg``."""
    return not (isinstance(vision.get("layers"), list) or vision.get("timm_model_name"))


def check_blocks(visual: VisionTransformer) -> None:
    """Raise an UnsupportedTowerError if V-V attention isn't defined in the blocks of a transformer."""
    if not all(isinstance(block, ResidualAttentionBlock) for block in visual.transformer.resblocks):
        raise UnsupportedTowerError("image tower", "V-V attention is not defined in its custom attention blocks")


def encode_vit(
    visual: VisionTransformer, images: Tensor, patch_attention: PatchAttention = "value"
) -> tuple[Tensor, Tensor]:
    """Encode images (B, 3, H, W) into ``visual(images)``, (B, d), and patch tokens after ``ln_post``, (B, P, W).

    Patch tokens are those of :func:`encode_streams`. The image feature is read from CLS or, in a tower with an average
    pool (CLIPA, arXiv 2305.07017), from the mean of the ordinary patch tokens, before or after ``ln_post``.
    """
    reads_cls = visual.pool_type == "tok"
    ordinary, patches = encode_streams(visual, images, patch_attention, reads_cls=reads_cls)
    tokens = visual.ln_post(patches)
    if reads_cls:
        return _project_pooled(visual, visual.ln_post(ordinary[:, 0])), tokens
    if visual.final_ln_after_pool:
        return _project_pooled(visual, visual.ln_post(ordinary[:, 1:].mean(dim=1))), tokens
    return _project_pooled(visual, visual.ln_post(ordinary)[:, 1:].mean(dim=1)), tokens


def encode_streams(
    visual: VisionTransformer, images: Tensor, patch_attention: PatchAttention, *, reads_cls: bool
) -> tuple[Tensor, Tensor]:
    """Encode images into the tokens of the last block, (B, 1 + P, W), and patch tokens, (B, P, W), before any norm.

    For V-V attention (SOT-GLP, arXiv 2603.08347, section on local features), two residual streams share every weight:
    the ordinary one, h, and a second one, r, that collects the V-V attention of each block and starts from the first
    block's input plus that block's ordinary attention output. Patch tokens are those of r for
    ``patch_attention="value"``, as published, and of h for ``"ordinary"``. With ``reads_cls``, only CLS may be read
    from the ordinary stream, which saves work in the last block.
    """
    ordinary = visual._embeds(images)  # h, (B, 1 + P, W)
    if patch_attention == "ordinary":
        ordinary = visual.transformer(ordinary)
        return ordinary, ordinary[:, 1:]
    blocks: list[ResidualAttentionBlock] = list(visual.transformer.resblocks)
    for depth, block in enumerate(blocks):
        # Of the last block's ordinary stream only CLS is read: its patches need no attention and no MLP.
        is_last = reads_cls and depth == len(blocks) - 1 and depth > 0
        n_read = 1 if is_last else ordinary.shape[1]
        attended, value_attended = _attend(block, ordinary, n_read)
        if depth == 0:
            value_stream = ordinary[:, 1:] + attended[:, 1:]  # r, (B, P, W)
        value_stream = value_stream + value_attended
        ordinary = ordinary[:, :n_read] + attended
        ordinary = (per_image if is_last else _batched)(partial(add_mlp, block), ordinary)
    return ordinary, value_stream


def _project_pooled(visual: VisionTransformer, tokens: Tensor) -> Tensor:
    """Pooled tokens after ``ln_post`` in the joint space, where the tower has a projection to it."""
    return tokens if visual.proj is None else per_image(lambda one: one @ visual.proj, tokens)


def _batched(layer: Callable[..., Tensor], *tokens: Tensor) -> Tensor:
    """Apply a layer to the tokens of all images, (B, ...), at once; see :func:`per_image`."""
    return layer(*tokens)


def per_image(layer: Callable[..., Tensor], *tokens: Tensor) -> Tensor:
    """Apply a layer to one token of each image, (B, ...): on a CPU, one image after the other.

    A product of few rows rounds by the number of rows, and the features of an image must not depend on the other images
    of its batch: they are stored, and compared bit for bit.
    """
    if tokens[0].device.type != "cpu":
        return layer(*tokens)
    return torch.cat([layer(*one) for one in zip(*(part.split(1) for part in tokens), strict=True)])


def _attend(block: ResidualAttentionBlock, tokens: Tensor, n_read: int) -> tuple[Tensor, Tensor]:
    """Ordinary attention for the first tokens (B, n_read, W) and V-V attention for the patches (B, P, W)."""
    attention: nn.MultiheadAttention = block.attn
    projected = project_in(attention, block.ln_1(tokens))  # (B, 1 + P, 3 W)
    heads = (part.unflatten(2, (attention.num_heads, -1)).transpose(1, 2) for part in projected.chunk(3, dim=-1))
    query, key, value = heads  # (B, heads, L, W / heads)
    apply = per_image if n_read == 1 else _batched
    ordinary = apply(F.scaled_dot_product_attention, query[:, :, :n_read], key, value)
    between_values = F.scaled_dot_product_attention(value[:, :, 1:], value, value)
    project = partial(linear, weight=attention.out_proj.weight, bias=attention.out_proj.bias)
    return (
        block.ls_1(apply(project, _merge_heads(ordinary))),
        block.ls_1(project(_merge_heads(between_values))),
    )


def _merge_heads(tokens: Tensor) -> Tensor:
    return tokens.transpose(1, 2).flatten(2)  # (B, L, W)
