"""The interface of image towers, and the kinds of tower that are supported.

To support another kind, add a file with a class of this interface and a row in ``READERS``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, get_args

from torch import Tensor, nn

from sotglp.backbone.coca import CocaReader
from sotglp.backbone.convolutional import ConvolutionalReader
from sotglp.backbone.resnet import ResnetReader
from sotglp.backbone.timm_vit import TimmVitReader
from sotglp.backbone.vit import VitReader
from sotglp.errors import SotglpError, UnsupportedTowerError
from sotglp.settings import PatchAttention


class TowerReader(Protocol):
    """Reads image features and patch tokens from one kind of image tower, which it holds without copying.

    ``title`` names the kind of tower in messages. ``patch_grid`` holds the rows and columns of patches, whose product
    is P, ``patch_size`` the height and width of a patch in input pixels, ``patch_width`` the width of a patch token, W,
    and ``embed_dim`` that of the joint space, d. The constructor raises a SotglpError for a variant of the tower, or a
    ``patch_attention``, that isn't supported.
    """

    title: ClassVar[str]
    patch_grid: tuple[int, int]
    patch_size: tuple[float, float]
    patch_width: int
    embed_dim: int

    def __init__(self, visual: nn.Module, patch_attention: PatchAttention) -> None: ...

    @staticmethod
    def reads(visual: nn.Module) -> bool:
        """Return whether a module is a tower of this kind."""
        ...

    @staticmethod
    def is_configured(vision: Mapping[str, Any]) -> bool:
        """Return whether open_clip builds a supported tower of this kind from a ``vision_cfg``."""
        ...

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode preprocessed images (B, 3, H, W) into image features (B, d) and patch tokens (B, P, W)."""
        ...

    def project(self, patch_tokens: Tensor) -> Tensor:
        """Project patch tokens (B, P, W) into the joint space, (B, P, d)."""
        ...


READERS: tuple[type[TowerReader], ...] = (VitReader, CocaReader, ResnetReader, TimmVitReader, ConvolutionalReader)


def make_reader(visual: nn.Module, patch_attention: PatchAttention) -> TowerReader:
    """Return the reader of an image tower; raise a SotglpError if the tower or ``patch_attention`` isn't supported."""
    kinds = get_args(PatchAttention)
    if patch_attention not in kinds:
        raise SotglpError(f"patch_attention = {patch_attention!r} is unknown: choose one of {', '.join(kinds)}")
    for reader in READERS:
        if reader.reads(visual):
            return reader(visual, patch_attention)
    *titles, last_title = (reader.title for reader in READERS)
    known = f"{', '.join(titles)} or {last_title}"
    raise UnsupportedTowerError(f"image tower {type(visual).__name__}", f"patch tokens need {known}")
