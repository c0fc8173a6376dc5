"""What the backbone needs of an image tower, and the kinds of tower that are supported.

A further kind of tower takes one file with a class of this interface, and one row in ``READERS``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, get_args

from torch import Tensor, nn

from sotglp.backbone.resnet import ResnetReader
from sotglp.backbone.vit import VitReader
from sotglp.errors import SotglpError, UnsupportedTowerError
from sotglp.settings import PatchAttention


class TowerReader(Protocol):
    """Reads image features and patch tokens from one kind of image tower, which it holds without copying.

    The constructor raises a SotglpError for a variant of the tower, or a ``patch_attention``, that isn't supported.

    Attributes
    ----------
    title : str
        Name of the kind of tower, for messages.
    patch_grid : tuple of int
        Rows and columns of patches; P is their product.
    patch_size : tuple of int
        Height and width of a patch in input pixels.
    patch_width : int
        Width of a patch token, W.
    """

    title: ClassVar[str]
    patch_grid: tuple[int, int]
    patch_size: tuple[int, int]
    patch_width: int

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


READERS: tuple[type[TowerReader], ...] = (VitReader, ResnetReader)


def make_reader(visual: nn.Module, patch_attention: PatchAttention) -> TowerReader:
    """Return the reader of an image tower.

    Raises
    ------
    SotglpError
        If the tower isn't supported, or ``patch_attention`` is unknown or not for this tower.
    """
    kinds = get_args(PatchAttention)
    if patch_attention not in kinds:
        raise SotglpError(f"patch_attention = {patch_attention!r} is unknown: choose one of {', '.join(kinds)}")
    for reader in READERS:
        if reader.reads(visual):
            return reader(visual, patch_attention)
    titles = " or ".join(reader.title for reader in READERS)
    raise UnsupportedTowerError(f"image tower {type(visual).__name__}", f"patch tokens need {titles}")
