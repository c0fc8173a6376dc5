"""What a training run reports while it runs, and to whom. Importing this module loads no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol


@dataclass(frozen=True)
class EpochResult:
    """Result of one epoch.

    Attributes
    ----------
    epoch, n_epochs : int
        Number of the epoch, from 1, and of the last one.
    loss, loss_global, loss_local : float
        Means over the images: the loss, and that of each branch.
    accuracy : float
        Share of correct training images, before each step.
    learning_rate : float
        Step size of the epoch.
    seconds : float
        Duration of the epoch.
    """

    epoch: int
    n_epochs: int
    loss: float
    loss_global: float
    loss_local: float
    accuracy: float
    learning_rate: float
    seconds: float


class TrainingCallback(Protocol):
    """What :meth:`sotglp.SOTGLPClassifier.fit` and :func:`sotglp.training.fit.adapt` call during a run.

    The first of several processes calls it. A resumed run reports the epochs that are left, and a method without
    training none. An exception ends the run; what is stored for ``--resume`` includes the epoch.
    """

    def on_train_begin(self, settings: Mapping[str, Any]) -> None:
        """Called before the first epoch with the settings of model and training, by name."""

    def on_epoch_end(self, result: EpochResult) -> None:
        """Called after each epoch."""

    def on_train_end(self, *, failed: bool) -> None:
        """Called at the end, also of a run that failed or was interrupted."""


@contextmanager
def reporting(callbacks: Sequence[TrainingCallback], settings: Mapping[str, Any]) -> Iterator[None]:
    """Begin and end the callbacks of a run; those that have begun are ended whatever happens."""
    with ExitStack() as stack:
        for callback in callbacks:
            callback.on_train_begin(settings)
            stack.push(partial(_end, callback))
        yield


def _end(callback: TrainingCallback, kind: type[BaseException] | None, *_: object) -> None:
    callback.on_train_end(failed=kind is not None)
