"""What the backbone needs of an image tower, and the kinds of tower that are supported.

A further kind of tower takes one file with a class of this interface, and one row in ``READERS``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, get_args

import torch
from torch import Tensor, nn

from sotglp.backbone.resnet import ResnetReader
from sotglp.backbone.vit import VitReader
from sotglp.errors import SotglpError, UnsupportedTowerError
from sotglp.settings import PatchAttention


class TowerReader(Protocol):
    """Reads image features and patch tokens from one kind of image tower.

    Parameters
    ----------
    visual : nn.Module
        The tower. The reader holds it without copying anything.
    patch_attention : {"value", "ordinary"}
        Source of a ViT's patch tokens.

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
    embed_dim : int
        Size of the joint embedding, d.
    dtype : torch.dtype
        Type of the images that the tower takes.

    Raises
    ------
    UnsupportedTowerError
        If the tower is a variant that is not supported.
    SotglpError
        If the tower has no such patch tokens.
    """

    title: ClassVar[str]

    def __init__(self, visual: nn.Module, patch_attention: PatchAttention) -> None: ...

    @staticmethod
    def reads(visual: nn.Module) -> bool:
        """Return whether a module is a tower of this kind."""
        ...

    @staticmethod
    def is_configured(vision: Mapping[str, Any]) -> bool:
        """Return whether open_clip builds a supported tower of this kind from a ``vision_cfg``."""
        ...

    @property
    def patch_grid(self) -> tuple[int, int]: ...  # noqa: D102

    @property
    def patch_size(self) -> tuple[int, int]: ...  # noqa: D102

    @property
    def patch_width(self) -> int: ...  # noqa: D102

    @property
    def embed_dim(self) -> int: ...  # noqa: D102

    @property
    def dtype(self) -> torch.dtype: ...  # noqa: D102

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
    UnsupportedTowerError
        If there is no reader for this kind or variant of tower.
    SotglpError
        For an unknown ``patch_attention``, or one that the tower does not have.
    """
    kinds = get_args(PatchAttention)
    if patch_attention not in kinds:
        raise SotglpError(f"patch_attention = {patch_attention!r} is unknown: choose one of {', '.join(kinds)}")
    for reader in READERS:
        if reader.reads(visual):
            return reader(visual, patch_attention)
    titles = " or ".join(reader.title for reader in READERS)
    raise UnsupportedTowerError(f"image tower {type(visual).__name__}", f"patch tokens need {titles}")


def is_configured(vision: Mapping[str, Any]) -> bool:
    """Return whether open_clip builds a supported image tower from a ``vision_cfg``."""
    return any(reader.is_configured(vision) for reader in READERS)
