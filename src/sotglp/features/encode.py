"""Image sets through the frozen backbone, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sotglp.backbone import Backbone
from sotglp.backbone.precision import autocast
from sotglp.errors import UnreadableImageError
from sotglp.images.image_set import ImageSet
from sotglp.images.views import load_batches, training_transform
from sotglp.settings import Precision, TrainConfig

ENCODING_BATCH = 32


class EncodedImages(NamedTuple):
    """Features of B images from a backbone's image tower.

    Attributes
    ----------
    image_features : Tensor
        (B, d).
    patch_tokens : Tensor
        (B, P, W), or (B, P, d) if they are projected.
    projected : bool
        Whether the patch tokens are in the joint space already.
    """

    image_features: Tensor
    patch_tokens: Tensor
    projected: bool = False

    def to(self, device: torch.device) -> EncodedImages:
        """Return them on another device."""
        return self._replace(image_features=self.image_features.to(device), patch_tokens=self.patch_tokens.to(device))


Batch = tuple[NDArray[np.int64], EncodedImages]
"""Indices in the image set (B,), and these images encoded."""


def encode_batches(
    backbone: Backbone,
    images: ImageSet,
    transform: Callable[[Any], Tensor],
    batches: Sequence[NDArray[np.int64]],
    *,
    precision: Precision,
    workers: int = 0,
    seed: int | None = None,
    epoch: int = 0,
    unreadable: list[UnreadableImageError] | None = None,
) -> Iterator[Batch]:
    """Decode, transform and encode images in given batches.

    Parameters
    ----------
    backbone : Backbone
        Encodes.
    images : ImageSet
        What the batches index.
    transform : callable
        Image to tensor (3, H, W).
    batches : sequence of arrays
        Positions of each batch's images.
    precision : {"auto", "fp32", "bf16", "fp16"}
        Arithmetic of the backbone.
    workers : int, default 0
        Processes that decode.
    seed, epoch
        Fix the random draws of an augmenting transform.
    unreadable : list or None
        Collects images that can't be decoded; None raises at the first.

    Raises
    ------
    UnreadableImageError
        At an image that can't be decoded, unless ``unreadable`` collects it.
    """
    loaded = load_batches(images, transform, batches, workers=workers, seed=seed, epoch=epoch, unreadable=unreadable)
    for indices, pixels in loaded:
        with torch.no_grad(), autocast(backbone.device, precision):
            encoded = EncodedImages(*backbone.encode_image(pixels))
        yield indices, encoded


def in_order(n_images: int, batch_size: int = ENCODING_BATCH) -> list[NDArray[np.int64]]:
    """Batches of all images as they come."""
    return [np.arange(start, min(start + batch_size, n_images)) for start in range(0, n_images, batch_size)]


def training_views(backbone: Backbone, config: TrainConfig) -> Callable[[Any], Tensor]:
    """The transform that training images go through: crop and flip, or the backbone's own centre crop."""
    return training_transform(backbone.image_size, *backbone.normalisation) if config.augment else backbone.preprocess
