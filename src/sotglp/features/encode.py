"""Encode an image set in order, now or from the feature cache."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from sotglp.backbone import Backbone
from sotglp.errors import UnreadableImageError
from sotglp.features.banks import CachedBank, row_bytes
from sotglp.features.distributed import Processes
from sotglp.features.view_cache import CacheDir, ViewCache
from sotglp.features.views import Batch, Views, in_order
from sotglp.images.image_set import ImageSet
from sotglp.settings import InferenceConfig


def encode_images(
    backbone: Backbone,
    images: ImageSet,
    inference: InferenceConfig,
    cache_dir: CacheDir = None,
    unreadable: list[UnreadableImageError] | None = None,
) -> Iterator[Batch]:
    """Encode images in order, in batches.

    With ``cache_dir``, features are stored for other runs, or for other steps of this run in a
    :class:`sotglp.features.view_cache.ViewCache`, patches in half precision. ``unreadable`` collects images
    that can't be decoded; None raises an UnreadableImageError at the first.
    """
    views = Views(backbone, images, backbone.preprocess, precision=inference.precision, workers=inference.workers)
    is_full = isinstance(cache_dir, ViewCache) and not cache_dir.fits(len(images) * row_bytes(views))
    if cache_dir is None or is_full or views.describe() is None:
        yield from views.encode_batches(in_order(len(images), inference.batch_size), unreadable=unreadable)
        return
    processes = Processes(backbone.device)
    bank = CachedBank(views, cache_dir, processes, unreadable=unreadable, show_progress=inference.show_progress)
    for batch in in_order(len(bank.readable), inference.batch_size):
        indices = bank.readable[batch]
        yield indices, bank.rows(np.zeros_like(indices), indices)


def encode_image_features(
    backbone: Backbone, images: ImageSet, inference: InferenceConfig, cache_dir: CacheDir = None
) -> Tensor:
    """Encode images and return only their image features, (n, d), float32; arguments as :func:`encode_images`."""
    batches = encode_images(backbone, images, inference, cache_dir)
    return torch.cat([encoded.image_features.float() for _, encoded in batches])
