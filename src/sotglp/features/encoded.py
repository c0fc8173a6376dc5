"""Images of a set in their order, encoded by the backbone now or looked up in the cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sotglp.backbone import Backbone
from sotglp.features.banks import DiskBank, Views
from sotglp.features.encode import Batch, encode_batches, in_order
from sotglp.images.decode import UnreadableImageError
from sotglp.images.image_set import ImageSet
from sotglp.settings import Reading
from sotglp.training.distributed import Processes


def encoded(
    backbone: Backbone,
    images: ImageSet,
    reading: Reading,
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
    reading : Reading
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
    views = Views(backbone, images, backbone.preprocess, precision=reading.precision, workers=reading.workers)
    about = views.describe() if cache_dir else None
    if cache_dir is None or about is None:
        yield from encode_batches(
            backbone,
            images,
            backbone.preprocess,
            in_order(len(images), reading.batch_size),
            precision=reading.precision,
            workers=reading.workers,
            unreadable=unreadable,
        )
        return
    bank = DiskBank(
        views,
        about,
        cache_dir,
        Processes(backbone.device),
        unreadable=unreadable,
        show_progress=reading.show_progress,
    )
    for batch in in_order(len(bank.readable), reading.batch_size):
        indices = bank.readable[batch]
        yield indices, *bank.rows(np.zeros_like(indices), indices)
