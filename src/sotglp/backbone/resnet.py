"""Image features and patches of CLIP's ResNet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, cast

from open_clip.modified_resnet import ModifiedResNet
from torch import Tensor, nn

from sotglp.errors import SotglpError
from sotglp.settings import PatchAttention


class ResnetReader:
    """Reads open_clip's ModifiedResNet; see :class:`sotglp.backbone.readers.TowerReader`.

    Its patches are the attention pool's ``c_proj(v_proj(.))`` of the last feature map, so they are in the joint space
    already (SOT-GLP, arXiv 2603.08347, section on local features).
    """

    title: ClassVar[str] = "a ModifiedResNet"

    def __init__(self, visual: nn.Module, patch_attention: PatchAttention) -> None:
        if patch_attention == "ordinary":
            raise SotglpError("a ResNet has no ordinary patch tokens: leave patch_attention at 'value'")
        self._visual = tower = cast(Any, visual)
        size = tower.image_size
        height, width = (size, size) if isinstance(size, int) else size
        self.patch_size: tuple[float, float] = 32, 32  # the stride of the last feature map
        self.patch_grid = height // 32, width // 32
        self.patch_width = self.embed_dim = int(tower.output_dim)

    @staticmethod
    def reads(visual: nn.Module) -> bool:
        """Return whether a module is a ModifiedResNet."""
        return isinstance(visual, ModifiedResNet)

    @staticmethod
    def is_configured(vision: Mapping[str, Any]) -> bool:
        """Return whether open_clip builds a ModifiedResNet from a ``vision_cfg``."""
        return isinstance(vision.get("layers"), list) and not vision.get("timm_model_name")

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images (B, 3, H, W) into ``visual(images)``, (B, d), and projected patches (B, P, d)."""
        visual = self._visual
        feature_map = visual.stem(images.to(visual.conv1.weight.dtype))
        for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
            feature_map = layer(feature_map)  # in the end (B, 32 width, H / 32, W / 32)
        pool = visual.attnpool
        return pool(feature_map), pool.c_proj(pool.v_proj(feature_map.flatten(2).transpose(1, 2)))

    def project(self, patch_tokens: Tensor) -> Tensor:
        """Return the patches as they are."""
        return patch_tokens
