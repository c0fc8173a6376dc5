"""An image of which only the encoding is left, as a model file stores it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class StoredImage:
    """Image feature (d,) and patch tokens (P, W) of one view of an image, its centre crop, in float32 on the CPU.

    It can stand in an image set beside images that are not encoded yet, for training and predictions on the same
    backbone. All views of it are this one.
    """

    image_feature: torch.Tensor
    patch_tokens: torch.Tensor
