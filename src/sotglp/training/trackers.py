"""Training runs in TensorBoard, MLflow and Weights & Biases. Each library is imported when a run begins."""

from __future__ import annotations

import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any, ClassVar

from sotglp.errors import SotglpError, SotglpWarning, UnknownNameError, first_line
from sotglp.training.callbacks import EpochResult


class Tracker(ABC):
    """Base of the trackers: one that fails during a run warns and records nothing more, and training continues."""

    title: ClassVar[str]
    module: ClassVar[str]
    extra: ClassVar[str]

    def __init__(self) -> None:
        self._is_open = False

    def on_train_begin(self, settings: Mapping[str, Any]) -> None:
        """Begin a run; raise a SotglpError if the library is missing or can't record it."""
        self.check()
        try:
            self._open(settings)
        except Exception as error:  # of the library and its server
            raise SotglpError(
                f"{self.title} can't record this run ({type(error).__name__}: {first_line(error)}): mend it, or fit "
                "without it"
            ) from error
        self._is_open = True

    def on_epoch_end(self, result: EpochResult) -> None:
        """Record the numbers of an epoch under ``train/``."""
        values = {f"train/{name}": value for name, value in asdict(result).items() if name not in ("epoch", "n_epochs")}
        self._try("records no further epochs", self._log, result.epoch, values)

    def on_train_end(self, *, failed: bool) -> None:
        """End the run."""
        self._try("did not close its run", self._close, failed)
        self._is_open = False

    def check(self) -> None:
        """Raise a SotglpError if the library isn't installed."""
        if find_spec(self.module) is None:
            raise SotglpError(f'{self.title} isn\'t installed: pip install "sotglp[{self.extra}]"')

    @abstractmethod
    def _open(self, settings: Mapping[str, Any]) -> None: ...

    @abstractmethod
    def _log(self, epoch: int, values: dict[str, float]) -> None: ...

    @abstractmethod
    def _close(self, failed: bool) -> None: ...

    def _try(self, consequence: str, call: Any, *arguments: Any) -> None:
        if not self._is_open:
            return
        try:
            call(*arguments)
        except Exception as error:  # of the library and its server
            self._is_open = False
            warnings.warn(
                f"{self.title} {consequence} ({type(error).__name__}: {first_line(error)}); training continues",
                SotglpWarning,
                stacklevel=4,
            )


class TensorBoard(Tracker):
    """Write event files for TensorBoard.

    Parameters
    ----------
    log_dir : path, default "runs"
        Folder of the event files; give each run its own.
    """

    title, module, extra = "TensorBoard", "tensorboard", "tensorboard"

    def __init__(self, log_dir: str | os.PathLike[str] = "runs") -> None:
        super().__init__()
        self.log_dir = log_dir

    def _open(self, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(os.fspath(self.log_dir))  # type: ignore[no-untyped-call]
        rows = "".join(f"\n| {name} | {value} |" for name, value in settings.items())
        self._writer.add_text("settings", f"| setting | value |\n|---|---|{rows}")

    def _log(self, epoch: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def _close(self, failed: bool) -> None:
        self._writer.close()


class MLflow(Tracker):
    """Record a run in MLflow, within the active run if there is one.

    Parameters
    ----------
    experiment : str or None, default None
        Name of the experiment; None is MLflow's default. Where runs are stored, ``MLFLOW_TRACKING_URI`` says.
    run_name : str or None, default None
        Name of the run; None lets MLflow choose one.
    """

    title, module, extra = "MLflow", "mlflow", "mlflow"

    def __init__(self, experiment: str | None = None, *, run_name: str | None = None) -> None:
        super().__init__()
        self.experiment, self.run_name = experiment, run_name

    def _open(self, settings: Mapping[str, Any]) -> None:
        import mlflow

        self._mlflow: Any = mlflow
        if self.experiment is not None:
            mlflow.set_experiment(self.experiment)
        mlflow.start_run(run_name=self.run_name, nested=mlflow.active_run() is not None)
        mlflow.log_params(dict(settings))

    def _log(self, epoch: int, values: dict[str, float]) -> None:
        self._mlflow.log_metrics(values, step=epoch)

    def _close(self, failed: bool) -> None:
        self._mlflow.end_run("FAILED" if failed else "FINISHED")


class WeightsAndBiases(Tracker):
    """Record a run in Weights & Biases.

    Parameters
    ----------
    project : str or None, default None
        Name of the project.
    **options
        Further arguments of ``wandb.init``, such as ``name=`` or ``mode="offline"``.
    """

    title, module, extra = "Weights & Biases", "wandb", "wandb"

    def __init__(self, project: str | None = None, **options: Any) -> None:
        super().__init__()
        self.project, self.options = project, options

    def _open(self, settings: Mapping[str, Any]) -> None:
        import wandb

        self._run: Any = wandb.init(project=self.project, config=dict(settings), **self.options)

    def _log(self, epoch: int, values: dict[str, float]) -> None:
        self._run.log(values, step=epoch)

    def _close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


TRACKERS: dict[str, type[TensorBoard] | type[MLflow] | type[WeightsAndBiases]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WeightsAndBiases,
}
"""Trackers by the name that ``sotglp fit --track`` gives them."""


def tracker_of(text: str) -> Tracker:
    """Return the tracker of ``NAME`` or ``NAME:PLACE``: a folder of TensorBoard, an experiment or a project.

    Raise a SotglpError if there is no such tracker, or its library isn't installed.
    """
    name, _, place = text.partition(":")
    if name not in TRACKERS:
        raise UnknownNameError("tracker", name, TRACKERS)
    tracker = TRACKERS[name](place) if place else TRACKERS[name]()
    tracker.check()
    return tracker
