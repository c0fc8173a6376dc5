"""Image features and patches of convolutional timm towers with an average pool."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from open_clip.timm_model import TimmModel
from timm.models import is_model_in_modules
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sotglp.errors import SotglpError, UnsupportedTowerError, first_line
from sotglp.settings import PatchAttention

# fmt: off
FAMILIES = (
    "byoanet", "byobnet", "convmixer", "convnext", "cspnet", "cspnext", "densenet", "dla", "dpn", "efficientnet",
    "fastvit", "hrnet", "inception_resnet_v2", "inception_v3", "inception_v4", "nasnet", "nfnet", "pnasnet", "regnet",
    "res2net", "resnest", "resnet", "resnetv2", "rexnet", "selecsls", "senet", "sknet", "starnet", "tresnet",
    "visformer", "vovnet", "xception", "xception_aligned",
)
# fmt: on
"""Modules of timm whose models qualify, for configurations; a loaded tower is examined itself."""

POOLS = frozenset({"adaptive_avg_pool2d", "mean"})

HEAD = frozenset(
    {
        *("conv2d", "dropout", "flatten", "linear", "permute", "reshape", "squeeze", "view", "__get__"),
        *("gelu", "hardswish", "hardsigmoid", "layer_norm", "relu", "silu", "tanh"),
    }
)
"""Functions that may follow the pool: each position of a feature map can go through them alone."""


class ConvolutionalReader:
    """Reads open_clip's TimmModel; see :class:`sotglp.backbone.readers.TowerReader`.

    The image feature is the head of the average-pooled feature map. The patches are the same head of each position of
    the map, so they are in the joint space already. Where only affine layers follow the pool (EfficientNet, FastViT),
    their mean is the image feature; a norm or an MLP (ConvNeXt) is applied to each of them.
    """

    title: ClassVar[str] = "a convolutional timm tower with average pooling"

    def __init__(self, visual: nn.Module, patch_attention: PatchAttention) -> None:
        if patch_attention == "ordinary":
            raise SotglpError("a convolutional tower has no ordinary patch tokens: leave patch_attention at 'value'")
        self._visual = cast(Any, visual)
        try:
            feature_map, head_calls, features = _run_on_meta(self._visual)
        except RuntimeError as error:  # a kernel is larger than its feature map
            size = " x ".join(map(str, self._visual.image_size))
            raise SotglpError(
                f"images of {size} pixels don't fit {type(self._visual.trunk).__name__} ({first_line(error)}): choose "
                "a larger image size"
            ) from error
        reason = _reason_against(self._visual.trunk.num_features, feature_map, head_calls, features)
        if reason is not None or features is None:
            raise UnsupportedTowerError(f"image tower {type(self._visual.trunk).__name__}", str(reason))
        height, width = self._visual.image_size
        rows, columns = feature_map.shape[2:]
        self.patch_grid = rows, columns
        self.patch_size = height / rows, width / columns  # the stride, where it divides the image
        self.patch_width = self.embed_dim = int(features.shape[1])

    @staticmethod
    def reads(visual: nn.Module) -> bool:
        """Return whether a module is a tower of timm; the constructor examines which one."""
        return isinstance(visual, TimmModel)  # after the readers of other towers of timm, in READERS

    @staticmethod
    def is_configured(vision: Mapping[str, Any]) -> bool:
        """Return whether open_clip builds a tower of one of ``FAMILIES`` with average pool from a ``vision_cfg``."""
        name = vision.get("timm_model_name")
        pool, projection = vision.get("timm_pool", "avg"), vision.get("timm_proj", "linear") or ""
        # Without a pool of its own, a configuration keeps the trunk's, unless it uses the trunk's classifier.
        is_averaged = pool == "avg" or (pool == "" and projection in ("linear", "mlp"))
        return bool(name) and is_averaged and is_model_in_modules(name, FAMILIES)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images (B, 3, H, W) into ``visual(images)``, (B, d), and patches in the joint space, (B, P, d).

        A CPU chooses its convolutions by the number of images, and the features of an image must not depend on the
        other images of its batch: there, each is encoded alone.
        """
        images = images.to(next(self._visual.trunk.parameters()).dtype)
        if images.device.type != "cpu":
            return self._encode(images)
        parts = [
            self._encode(image.contiguous(memory_format=torch.channels_last)) for image in images.split(1)
        ]  # in this format, convolutions are up to twice as fast
        features, patches = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        return features, patches

    def project(self, patch_tokens: Tensor) -> Tensor:
        """Return the patches as they are."""
        return patch_tokens

    def _encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        feature_map = self._visual.trunk.forward_features(images)  # (B, F, h, w)
        positions = feature_map.permute(0, 2, 3, 1).flatten(0, 2)[:, :, None, None]  # (B P, F, 1, 1)
        rows, columns = self.patch_grid
        patches = _head(self._visual, positions).unflatten(0, (-1, rows * columns))
        return _head(self._visual, feature_map), patches


def _head(visual: Any, feature_map: Tensor) -> Tensor:
    """Pool and project feature maps (B, F, h, w): (B, d)."""
    features: Tensor = visual.head(visual.trunk.forward_head(feature_map))
    return features


def _reason_against(n_channels: int, feature_map: Any, head_calls: list[str], features: Tensor | None) -> str | None:
    """Return why the positions of a tower's feature map have no place in its head, or None."""
    if not isinstance(feature_map, Tensor) or feature_map.ndim != 4 or feature_map.shape[1] != n_channels:
        return "it has no feature map (B, F, h, w) before its pool"
    if not head_calls or head_calls[0] not in POOLS:
        return "its feature map is not pooled by its average"
    if not HEAD.issuperset(head_calls[1:]):
        others = ", ".join(sorted(set(head_calls[1:]) - HEAD))
        return f"layers after its average pool can't be applied to each position ({others})"
    return "its head does not fit its feature map" if features is None or features.ndim != 2 else None


def _run_on_meta(visual: Any) -> tuple[Any, list[str], Tensor | None]:
    """Return the feature map, the functions that the head applies to it and the features, all without computing them.

    A copy of the tower on the meta device gives exact shapes, whatever the padding of its convolutions, in
    milliseconds. The features are None if the head fails.
    """
    values = [*visual.parameters(), *visual.buffers()]
    memo: dict[int, Any] = {id(value): value.detach().to("meta") for value in values}
    tower = copy.deepcopy(visual, memo).eval()
    images = torch.empty(1, 3, *visual.image_size, device="meta", dtype=values[0].dtype)
    names = _FunctionNames()
    with torch.no_grad():
        feature_map = tower.trunk.forward_features(images)
        try:
            with names:
                features = _head(tower, feature_map)
        except (RuntimeError, TypeError, AttributeError):  # open_clip builds heads of the wrong width for some trunks
            return feature_map, names.called, None
    return feature_map, names.called, features


class _FunctionNames(TorchFunctionMode):
    """Records the names of the torch functions that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.called: list[str] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Record a call, and make it."""
        self.called.append(getattr(func, "__name__", str(func)))
        return func(*args, **(kwargs or {}))
