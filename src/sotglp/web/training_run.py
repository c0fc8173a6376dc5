"""One training of the page, in a thread: fit, serve the model, and check it by cross-fitting."""

from __future__ import annotations

import errno
import logging
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sotglp.backbone import Backbone
from sotglp.backbone_defaults import FOLDER, crossed_ood_method, default_method, preset_for
from sotglp.console.progress import listening
from sotglp.errors import SotglpError, SotglpWarning
from sotglp.features.view_cache import ViewCache
from sotglp.images.check import warn_of_two_labels
from sotglp.images.labels import warn_of_names
from sotglp.methods.method import find_method
from sotglp.scoring.cross_fit import CrossFit, cross_fit, folds_of
from sotglp.scoring.predict import Predictions
from sotglp.settings import InferenceConfig, TrainConfig, load_preset
from sotglp.training.chance import warn_near_chance
from sotglp.training.fit import Fitted, adapt
from sotglp.web.limits import NO_SPACE
from sotglp.web.training_set import Snapshot

_LOG = logging.getLogger(__name__)

Stage = Literal["waiting", "loading", "training", "checking"]
Status = Literal["running", "done", "stopped", "failed"]


class StoppedError(Exception):
    """The training was stopped."""


@dataclass(frozen=True)
class Trained:
    """A model with all that calibration and report need; ``crossed`` is None until it was checked."""

    snapshot: Snapshot
    fitted: Fitted
    config: TrainConfig
    inference: InferenceConfig
    crossed: CrossFit | None = None

    @property
    def n_correct(self) -> tuple[int, int]:
        """Correct held-out predictions of cross-fitting, and their number."""
        if self.crossed is None:
            return 0, 0
        return _n_correct(self.snapshot, self.crossed.predictions), len(self.snapshot.images)


class TrainingRun:
    """A training; its attributes are its state, which other threads read while :meth:`execute` runs.

    Attributes
    ----------
    stage, done, total
        What it does, and the steps of that stage.
    n_correct, n_checked
        Held-out predictions of cross-fitting so far.
    error : str or None
        A sentence, if it failed.
    notes : list of str
        Warnings.
    """

    def __init__(self, snapshot: Snapshot, backbone: str) -> None:
        self.snapshot = snapshot
        self.backbone = backbone
        self.status: Status = "running"
        self.stage: Stage = "waiting"
        self.done, self.total = 0, 1
        self.n_correct = self.n_checked = 0
        self.error: str | None = None
        self.notes: list[str] = []
        self._stop = threading.Event()
        self._n_folds, self._n_folds_done = 1, 0

    def stop(self) -> None:
        """Stop at the next step."""
        self._stop.set()

    def execute(self, load: Callable[[str], Backbone], publish: Callable[[Trained], None]) -> None:
        """Train, ``publish`` the model as soon as it works, and once more when it was checked; never raises."""
        try:
            with listening(self._listen), noted(self._note), tempfile.TemporaryDirectory(prefix="sotglp-") as folder:
                self._run(load, publish, Path(folder))
            self.status = "done"
        except StoppedError:
            self.status = "stopped"
        except SotglpError as error:
            self._fail(self._readable(str(error)))
        except OSError as error:
            _LOG.error("training failed for lack of resources", exc_info=error)
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            self._fail(NO_SPACE if full else "the server lacks files, memory or processes: try again in a moment")
        except Exception as error:
            _LOG.error("training failed", exc_info=error)
            self._fail("internal error: see the log of the server")

    def _run(self, load: Callable[[str], Backbone], publish: Callable[[Trained], None], folder: Path) -> None:
        self._enter("loading")
        backbone = load(self.backbone)
        self._enter("training")
        # All images of the page are used, and no worker processes: a fork copies the server's threads.
        preset = preset_for(self.backbone, load_preset(FOLDER))
        model_config, config = find_method(default_method(self.backbone)).settings_on(
            preset, {"shots": None, "workers": 0}
        )
        images, classes = self.snapshot.images, self.snapshot.classes
        smallest = images.smallest_class
        score = crossed_ood_method(self.backbone, has_shots=config.remember, smallest=smallest)
        inference = config.inference_config().with_score(score)
        warn_of_names(classes)
        warn_of_two_labels(images)
        cache = ViewCache(folder)
        fitted = adapt(backbone, images, model_config, config, classes=classes, cache_dir=cache)
        warn_near_chance(fitted, config)
        trained = Trained(self.snapshot, fitted, config, inference)
        self._enter("checking")
        publish(trained)
        if smallest < 2:
            self._note("the accuracy is unknown, since a class has a single image: give two images of each class")
            return
        self._n_folds = folds_of(images)
        crossed = cross_fit(fitted.model, fitted.images, config, inference, cache_dir=cache, on_fold=self._count)
        publish(replace(trained, crossed=crossed))

    def _enter(self, stage: Stage) -> None:
        if self._stop.is_set():
            raise StoppedError
        self.stage, self.done, self.total = stage, 0, 1

    def _listen(self, title: str, done: int, total: int) -> None:
        if self._stop.is_set():
            raise StoppedError
        # Only training takes long; a fold's bar follows those of the folds before.
        if title.startswith("training"):
            self.done, self.total = self._n_folds_done * total + done, self._n_folds * total

    def _count(self, held_out: NDArray[np.int64], predictions: Predictions) -> None:
        self._n_folds_done += 1
        self.n_correct += _n_correct(self.snapshot, predictions, held_out)
        self.n_checked += len(held_out)

    def _fail(self, error: str) -> None:
        self.status, self.error = "failed", error

    def _note(self, text: str) -> None:
        text = self._readable(text)
        if text not in self.notes:
            self.notes.append(text)

    def _readable(self, text: str) -> str:
        """Return a message with the names that were sent, in place of paths of the server."""
        for path, name in self.snapshot.names.items():
            text = text.replace(str(path), name)
        return text


def _n_correct(snapshot: Snapshot, predictions: Predictions, rows: NDArray[np.int64] | slice = slice(None)) -> int:
    targets = snapshot.images.targets(snapshot.classes)[rows]
    return int((predictions.probabilities.argmax(axis=1) == targets).sum())


@contextmanager
def noted(note: Callable[[str], None]) -> Iterator[None]:
    """Pass the library's warnings of this thread to a function, each time that they occur."""
    own = threading.get_ident()
    with warnings.catch_warnings():
        warnings.simplefilter("always", SotglpWarning)
        show = warnings.showwarning

        def show_or_note(message: Warning | str, category: type[Warning], *arguments: Any, **options: Any) -> None:
            if threading.get_ident() == own and issubclass(category, SotglpWarning):
                note(str(message))
            else:
                show(message, category, *arguments, **options)

        warnings.showwarning = show_or_note
        yield
