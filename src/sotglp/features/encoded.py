"""Images of a set in their order, encoded by the backbone now or looked up in the cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sotglp.backbone import Backbone
from sotglp.errors import UnreadableImageError
from sotglp.features.banks import DiskBank, Views
from sotglp.features.distributed import Processes
from sotglp.features.encode import Batch, encode_batches, in_order
from sotglp.images.image_set import ImageSet
from sotglp.settings import InferenceConfig


def encode_images(
    backbone: Backbone,
    images: ImageSet,
    inference: InferenceConfig,
    cache_dir: Path | None = None,
    unreadable: list[UnreadableImageError] | None = None,
) -> Iterator[Batch]:
    """Encode images in order, in batches.

    Parameters
    ----------
    backbone : Backbone
        Encodes; its own preprocessing comes before.
    images : ImageSet
        The images.
    inference : InferenceConfig
        How they are read.
    cache_dir : Path or None
        Folder where encoded images are kept for other runs, their patches in half precision; None keeps none.
    unreadable : list or None
        Collects images that can't be decoded; None raises at the first.

    Raises
    ------
    UnreadableImageError
        At an image that can't be decoded, unless ``unreadable`` collects it.
    """
    views = Views(backbone, images, backbone.preprocess, precision=inference.precision, workers=inference.workers)
    about = views.describe() if cache_dir else None
    if cache_dir is None or about is None:
        yield from encode_batches(
            backbone,
            images,
            backbone.preprocess,
            in_order(len(images), inference.batch_size),
            precision=inference.precision,
            workers=inference.workers,
            unreadable=unreadable,
        )
        return
    bank = DiskBank(
        views,
        about,
        cache_dir,
        Processes(backbone.device),
        unreadable=unreadable,
        show_progress=inference.show_progress,
    )
    for batch in in_order(len(bank.readable), inference.batch_size):
        indices = bank.readable[batch]
        yield indices, bank.rows(np.zeros_like(indices), indices)


def encode_image_features(
    backbone: Backbone, images: ImageSet, inference: InferenceConfig, cache_dir: Path | None = None
) -> Tensor:
    """Encode images and return only their image features, (n, d), float32; arguments as :func:`encode_images`."""
    batches = encode_images(backbone, images, inference, cache_dir)
    return torch.cat([encoded.image_features.float() for _, encoded in batches])
