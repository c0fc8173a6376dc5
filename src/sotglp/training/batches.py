"""Encoded images of each training step: their order, their process, and stored or new views."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from sotglp.console.progress import note
from sotglp.features.banks import Bank, fill_bank
from sotglp.features.distributed import Processes
from sotglp.features.view_cache import CacheDir
from sotglp.features.views import Batch, Views, training_views
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel
from sotglp.settings import TrainConfig

# Streams of random numbers, so that no draw depends on the number of other draws.
ORDER_STREAM, VIEW_STREAM, DROPOUT_STREAM = range(3)


@dataclass(frozen=True)
class StepBatch:
    """The images of one step in this process, in parts of at most ``micro_batch``.

    ``size`` is the number of images in all processes; ``rows`` holds the indices of each part's images in the batch.
    """

    size: int
    rows: list[list[int]]
    parts: Iterator[Batch]


class FeatureSource:
    """Yields the encoded images of each training step, from stored views or encoded on demand."""

    def __init__(
        self,
        model: AdaptedModel,
        images: ImageSet,
        config: TrainConfig,
        processes: Processes,
        *,
        cache_dir: CacheDir,
        show_progress: bool,
    ) -> None:
        self._config, self._processes = config, processes
        # Features of an image tower that learns change in each step.
        is_stored = (config.views > 0 or not config.augment) and not model.backbone.adapts_images
        self._views = Views(
            model.backbone,
            images,
            training_views(model.backbone, config),
            seed=config.seed if config.augment else None,
            n_views=config.views if config.augment else 1,
            precision=config.precision,
            workers=config.workers,
            # Stored in the joint space if no projection is learned.
            projected=is_stored and model.local_projection is None,
        )
        self._bank: Bank | None = None
        if is_stored:
            self._bank = fill_bank(self._views, cache_dir, processes, show_progress=show_progress)
        elif model.backbone.adapts_images:
            note(
                f"{model.kind} learns in the image tower, so each step encodes its images again and computes their "
                "gradients",
                show=show_progress,
            )

    def steps(self, epoch: int) -> Iterator[StepBatch]:
        """Yield the batches of an epoch."""
        batches = epoch_batches(len(self._views.images), self._config, epoch)
        size = self._config.micro_batch or self._config.batch_size
        own_rows = [self._processes.share(range(len(batch))) for batch in batches]
        rows = [[own[start : start + size] for start in range(0, len(own), size)] for own in own_rows]
        flat = [batch[part] for batch, parts in zip(batches, rows, strict=True) for part in parts]
        if self._bank is None:
            encoded = self._views.encode_batches(flat, epoch, ahead=False)
        else:
            encoded = self._look_up(self._bank, flat, epoch)
        for batch, parts in zip(batches, rows, strict=True):
            yield StepBatch(len(batch), parts, islice(encoded, len(parts)))

    def _look_up(self, bank: Bank, batches: list[NDArray[np.int64]], epoch: int) -> Iterator[Batch]:
        rng = np.random.default_rng([self._config.seed, VIEW_STREAM, epoch])
        view_of = rng.integers(self._views.n_views, size=len(self._views.images))
        for batch in batches:
            yield batch, bank.rows(view_of[batch], batch)


def epoch_batches(n_images: int, config: TrainConfig, epoch: int) -> list[NDArray[np.int64]]:
    """Shuffle images into batches; an incomplete last batch is dropped, as published, unless it is the only one."""
    order = np.random.default_rng([config.seed, ORDER_STREAM, epoch]).permutation(n_images)
    size = min(config.batch_size, n_images)
    return [order[start : start + size] for start in range(0, n_images - size + 1, size)]
