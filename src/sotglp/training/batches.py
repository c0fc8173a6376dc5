"""The images of each training step, encoded: in which order, by which process, from where."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sotglp.features.banks import Bank, fill_bank
from sotglp.features.distributed import Processes
from sotglp.features.views import Batch, Views, encode_batches, training_views
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel
from sotglp.settings import TrainConfig

# Streams of random numbers, so that no draw depends on how many another one made.
ORDER_STREAM, VIEW_STREAM, DROPOUT_STREAM = range(3)


@dataclass(frozen=True)
class StepBatch:
    """The images of one step that this process has, in parts of at most ``micro_batch``.

    Attributes
    ----------
    size : int
        Images of the step in all processes.
    rows : list of list of int
        Places of each part's images in the whole batch.
    parts : iterator
        Encoded images of each part.
    """

    size: int
    rows: list[list[int]]
    parts: Iterator[Batch]


class FeatureSource:
    """Encoded images of each training step, from stored views or encoded as they are needed."""

    def __init__(
        self,
        model: AdaptedModel,
        images: ImageSet,
        config: TrainConfig,
        processes: Processes,
        *,
        cache_dir: Path | None,
        show_progress: bool,
    ) -> None:
        self._backbone, self._images, self._config = model.backbone, images, config
        self._processes = processes
        self._bank: Bank | None = None
        if config.views > 0 or not config.augment:
            # What training leaves alone is computed once: patches up to the joint space, if no projection is learned.
            views = Views(
                model.backbone,
                images,
                training_views(model.backbone, config),
                seed=config.seed if config.augment else None,
                n_views=config.views if config.augment else 1,
                precision=config.precision,
                workers=config.workers,
                projected=model.local_projection is None,
            )
            self._bank = fill_bank(views, cache_dir, processes, show_progress=show_progress)

    def steps(self, epoch: int) -> Iterator[StepBatch]:
        """The steps of an epoch."""
        batches = epoch_batches(len(self._images), self._config, epoch)
        size = self._config.micro_batch or self._config.batch_size
        own_rows = [self._processes.share(range(len(batch))) for batch in batches]
        rows = [[own[start : start + size] for start in range(0, len(own), size)] for own in own_rows]
        flat = [batch[part] for batch, parts in zip(batches, rows, strict=True) for part in parts]
        encoded = self._encode(flat, epoch) if self._bank is None else self._look_up(self._bank, flat, epoch)
        for batch, parts in zip(batches, rows, strict=True):
            yield StepBatch(len(batch), parts, islice(encoded, len(parts)))

    def _encode(self, batches: list[NDArray[np.int64]], epoch: int) -> Iterator[Batch]:
        config = self._config
        return encode_batches(
            self._backbone,
            self._images,
            training_views(self._backbone, config),
            batches,
            precision=config.precision,
            workers=config.workers,
            seed=config.seed,
            epoch=epoch,
        )

    def _look_up(self, bank: Bank, batches: list[NDArray[np.int64]], epoch: int) -> Iterator[Batch]:
        rng = np.random.default_rng([self._config.seed, VIEW_STREAM, epoch])
        n_views = self._config.views if self._config.augment else 1
        view_of = rng.integers(n_views, size=len(self._images))
        for batch in batches:
            yield batch, bank.rows(view_of[batch], batch)


def epoch_batches(n_images: int, config: TrainConfig, epoch: int) -> list[NDArray[np.int64]]:
    """Shuffled batches of an epoch; the last incomplete one is dropped, as published, unless it is the only one."""
    order = np.random.default_rng([config.seed, ORDER_STREAM, epoch]).permutation(n_images)
    size = min(config.batch_size, n_images)
    return [order[start : start + size] for start in range(0, n_images - size + 1, size)]
