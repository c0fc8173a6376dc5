"""Image features and patch tokens, read out of open_clip's own image towers.

The towers are used as they are: every weight and every layer below is the loaded module's own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import get_args

import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from sotglp.errors import SotglpError, UnsupportedTowerError
from sotglp.settings import PatchAttention


def check_vision_tower(visual: nn.Module) -> None:
    """Refuse an image tower whose patches the method can't read.

    Raises
    ------
    UnsupportedTowerError
        If the tower is neither a ViT with CLS pooling nor a ModifiedResNet.
    """
    if isinstance(visual, ModifiedResNet):
        return
    if not isinstance(visual, VisionTransformer):
        raise UnsupportedTowerError(
            f"image tower {type(visual).__name__}",
            "patch tokens need open_clip's own VisionTransformer with a CLS token, or a ModifiedResNet",
        )
    if visual.attn_pool is not None:
        raise UnsupportedTowerError("image tower", "it pools by attention and has no CLS feature of its own")
    if visual.pool_type != "tok":
        raise UnsupportedTowerError(
            "image tower", f"it pools its tokens by {visual.pool_type!r} instead of a CLS token"
        )
    if not all(isinstance(block, ResidualAttentionBlock) for block in visual.transformer.resblocks):
        raise UnsupportedTowerError("image tower", "V-V attention is not defined in its custom attention blocks")


def check_patch_attention(visual: nn.Module, patch_attention: str) -> None:
    """Refuse a kind of patch tokens that there is not, or not for this tower.

    Raises
    ------
    SotglpError
        For an unknown kind, or ``"ordinary"`` for a ResNet.
    """
    if patch_attention not in get_args(PatchAttention):
        raise SotglpError(
            f"patch_attention = {patch_attention!r} can't be used: choose one of {', '.join(get_args(PatchAttention))}"
        )
    if patch_attention == "ordinary" and isinstance(visual, ModifiedResNet):
        raise SotglpError("a ResNet has no ordinary patch stream to choose: leave patch_attention at 'value'")


def encode_vit(visual: VisionTransformer, images: Tensor) -> tuple[Tensor, Tensor]:
    """Run a ViT once for its ordinary feature and its V-V patch tokens.

    Two residual streams share every weight: the ordinary one, h, and a second one, r, that collects the V-V attention
    of each block and starts from the first block's input plus that block's ordinary attention output.

    Parameters
    ----------
    visual : VisionTransformer
        open_clip tower with CLS pooling.
    images : Tensor
        Preprocessed images, (B, 3, H, W).

    Returns
    -------
    image_features : Tensor
        What ``visual(images)`` returns, (B, d).
    patch_tokens : Tensor
        ``ln_post(r)`` without CLS, (B, P, W).

    References
    ----------
    SOT-GLP, arXiv 2603.08347, section on local features.
    """
    ordinary = visual._embeds(images)  # h, (B, 1 + P, W)
    blocks: list[ResidualAttentionBlock] = list(visual.transformer.resblocks)
    for depth, block in enumerate(blocks):
        # After the last block nothing but CLS is read from the ordinary stream: spare its patches attention and MLP.
        is_last = depth == len(blocks) - 1 and depth > 0
        n_read = 1 if is_last else ordinary.shape[1]
        attended, value_attended = _attend(block, ordinary, n_read)
        if depth == 0:
            value_stream = ordinary[:, 1:] + attended[:, 1:]  # r, (B, P, W)
        value_stream = value_stream + value_attended
        ordinary = ordinary[:, :n_read] + attended
        ordinary = (_per_image if is_last else _batched)(partial(_finish, block), ordinary)
    return _project(visual, visual.ln_post(ordinary[:, 0])), visual.ln_post(value_stream)


def encode_vit_ordinary(visual: VisionTransformer, images: Tensor) -> tuple[Tensor, Tensor]:
    """Run a ViT once for its ordinary feature and its ordinary patch tokens, to compare V-V attention with.

    Parameters
    ----------
    visual : VisionTransformer
        open_clip tower with CLS pooling.
    images : Tensor
        Preprocessed images, (B, 3, H, W).

    Returns
    -------
    image_features : Tensor
        What ``visual(images)`` returns, (B, d).
    patch_tokens : Tensor
        ``ln_post(h)`` without CLS after the last block, (B, P, W).
    """
    tokens = visual.ln_post(visual.transformer(visual._embeds(images)))
    return _project(visual, tokens[:, 0]), tokens[:, 1:]


def _project(visual: VisionTransformer, tokens: Tensor) -> Tensor:
    """Tokens after ``ln_post`` in the joint space, where the tower has a projection to it."""
    return tokens if visual.proj is None else _per_image(lambda one: one @ visual.proj, tokens)


def _finish(block: ResidualAttentionBlock, tokens: Tensor) -> Tensor:
    """Add what the MLP of a block makes of tokens (B, L, W)."""
    finished: Tensor = tokens + block.ls_2(block.mlp(block.ln_2(tokens)))
    return finished


def _batched(layer: Callable[..., Tensor], *tokens: Tensor) -> Tensor:
    """Apply a layer to the tokens of all images, (B, ...), at once."""
    return layer(*tokens)


def _per_image(layer: Callable[..., Tensor], *tokens: Tensor) -> Tensor:
    """Apply a layer to one token of each image, (B, ...): on a CPU, one image after the other.

    A product of few rows rounds by how many they are there, and the features of an image must not depend on its
    neighbours: they are kept, and compared bit for bit.
    """
    if tokens[0].device.type != "cpu":
        return layer(*tokens)
    return torch.cat([layer(*one) for one in zip(*(part.split(1) for part in tokens), strict=True)])


def _attend(block: ResidualAttentionBlock, tokens: Tensor, n_read: int) -> tuple[Tensor, Tensor]:
    """Ordinary attention for the first tokens (B, n_read, W) and V-V attention for the patches (B, P, W)."""
    attention: nn.MultiheadAttention = block.attn
    projected = F.linear(block.ln_1(tokens), attention.in_proj_weight, attention.in_proj_bias)  # (B, 1 + P, 3 W)
    query, key, value = (_split_heads(part, attention.num_heads) for part in projected.chunk(3, dim=-1))
    apply = _per_image if n_read == 1 else _batched
    ordinary = apply(F.scaled_dot_product_attention, query[:, :, :n_read], key, value)
    between_values = F.scaled_dot_product_attention(value[:, :, 1:], value, value)
    return (
        block.ls_1(apply(attention.out_proj, _merge_heads(ordinary))),
        block.ls_1(attention.out_proj(_merge_heads(between_values))),
    )


def _split_heads(tokens: Tensor, n_heads: int) -> Tensor:
    batch, length, _ = tokens.shape
    return tokens.view(batch, length, n_heads, -1).transpose(1, 2)  # (B, heads, L, W / heads)


def _merge_heads(tokens: Tensor) -> Tensor:
    return tokens.transpose(1, 2).flatten(2)  # (B, L, W)


def encode_resnet(visual: ModifiedResNet, images: Tensor) -> tuple[Tensor, Tensor]:
    """Run a ModifiedResNet once for its pooled feature and for its patches before pooling.

    Parameters
    ----------
    visual : ModifiedResNet
        open_clip tower.
    images : Tensor
        Preprocessed images, (B, 3, H, W).

    Returns
    -------
    image_features : Tensor
        What ``visual(images)`` returns, (B, d).
    patch_tokens : Tensor
        The attention pool's ``c_proj(v_proj(.))`` of the last feature map, (B, P, d): already in the joint space.

    References
    ----------
    SOT-GLP, arXiv 2603.08347, section on local features.
    """
    feature_map = visual.stem(images)
    for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        feature_map = layer(feature_map)  # at last (B, 32 width, H / 32, W / 32)
    pool = visual.attnpool
    return pool(feature_map), pool.c_proj(pool.v_proj(feature_map.flatten(2).transpose(1, 2)))
