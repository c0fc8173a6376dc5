"""Image features and patch tokens of CoCa's vision transformer, which pools by attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, cast

from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from sotglp.backbone.vit import check_blocks, encode_streams, is_vit, per_image
from sotglp.errors import UnsupportedTowerError
from sotglp.settings import PatchAttention


class CocaReader:
    """Reads open_clip's VisionTransformer with an attention pool; see :class:`sotglp.backbone.readers.TowerReader`.

    The pool (CoCa, arXiv 2205.01917, section 3.2) has learned queries, and the image feature is the answer to the first
    one. Patch tokens are those of V-V attention after the pool's norm; a patch is projected by the value path of the
    pool, which is what any query reads from an image that has no other token.
    """

    title: ClassVar[str] = "open_clip's own VisionTransformer with CoCa's attention pool"

    def __init__(self, visual: nn.Module, patch_attention: PatchAttention) -> None:
        self._visual = tower = cast(Any, visual)
        self._patch_attention = patch_attention
        if tower.attn_pool_contrastive is not None or tower.pool_type != "tok":
            raise UnsupportedTowerError("image tower", "its image feature isn't read from the first query of its pool")
        check_blocks(tower)
        self.patch_grid: tuple[int, int] = tuple(tower.grid_size)
        self.patch_size: tuple[float, float] = tuple(tower.patch_size)
        self.patch_width = int(tower.attn_pool.ln_k.normalized_shape[0])
        self.embed_dim = int(tower.output_dim)

    @staticmethod
    def reads(visual: nn.Module) -> bool:
        """Return whether a module is open_clip's VisionTransformer with an attention pool."""
        return isinstance(visual, VisionTransformer) and visual.attn_pool is not None

    @staticmethod
    def is_configured(vision: Mapping[str, Any]) -> bool:
        """Return whether open_clip builds such a VisionTransformer from a ``vision_cfg``."""
        return is_vit(vision) and vision.get("attentional_pool") is True and vision.get("pool_type", "tok") == "tok"

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images (B, 3, H, W) into ``visual(images)[0]``, (B, d), and patch tokens, (B, P, W)."""
        visual = self._visual
        images = images.to(visual.conv1.weight.dtype)
        ordinary, patches = encode_streams(visual, images, self._patch_attention, reads_cls=False)
        return per_image(self._pool, ordinary), visual.attn_pool.ln_k(patches)

    def project(self, patch_tokens: Tensor) -> Tensor:
        """Project patch tokens (B, P, W) into the joint space, (B, P, d)."""
        pool: nn.MultiheadAttention = self._visual.attn_pool.attn
        weight = pool.v_proj_weight
        if weight is None:  # query and tokens have the same width
            weight = pool.in_proj_weight.chunk(3)[2]
        values = F.linear(patch_tokens, weight, pool.in_proj_bias.chunk(3)[2])
        return self._project_answer(pool.out_proj(values))

    def _pool(self, tokens: Tensor) -> Tensor:
        return self._project_answer(self._visual.attn_pool(tokens)[:, 0])

    def _project_answer(self, answer: Tensor) -> Tensor:
        normed = self._visual.ln_post(answer)
        projection = self._visual.proj
        projected: Tensor = normed if projection is None else normed @ projection
        return projected
