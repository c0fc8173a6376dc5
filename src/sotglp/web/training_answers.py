"""Answers about training on the page: JSON objects, field by field."""

from __future__ import annotations

from pydantic import Field

from sotglp.scoring.intervals import share
from sotglp.web.answers import Answer, LimitsAnswer, Unreadable, limits_answer
from sotglp.web.limits import Limits
from sotglp.web.training import TrainedState, Training
from sotglp.web.training_run import Stage, Status, TrainingRun


class KeptImage(Answer):
    """An image of a class; its picture is at /training/images/ID."""

    id: int
    name: str = Field(description="File name, as sent.")


class KeptClass(Answer):
    """A class and its images."""

    id: int
    name: str
    images: list[KeptImage]


class Accuracy(Answer):
    """Accuracy on images that were held out in cross-fitting."""

    n_correct: int
    n: int
    low: float = Field(description="Lower bound of the 95 % confidence interval, a fraction.")
    high: float
    chance: float = Field(description="Accuracy of always answering the largest class.")


class RunAnswer(Answer):
    """The last training."""

    status: Status
    stage: Stage
    done: int = Field(description="Steps of this stage that are done.")
    total: int
    backbone: str
    accuracy: Accuracy | None = Field(description="So far.")
    error: str | None
    notes: list[str] = Field(description="Warnings.")


class TrainedAnswer(Answer):
    """The trained model, which the other paths use."""

    number: int = Field(description="Changes whenever the served model does.")
    backbone: str
    n_images: int
    is_current: bool = Field(description="Whether classes and images are those that it was trained on.")
    accuracy: Accuracy | None = Field(description="Null until cross-fitting has ended.")
    tpr: float | None = Field(description="Target share of images of the classes to accept; null if not calibrated.")
    saved_as: str | None = Field(description="Name of the file beside the server; see --out.")
    notes: list[str] = Field(description="Warnings of the training.")
    calibration_notes: list[str] = Field(description="Warnings of the last calibration.")


class TrainingAnswer(Answer):
    """Everything that the page shows, so that it can be loaded again at any time."""

    classes: list[KeptClass]
    backbones: list[str] = Field(description="Backbones to choose from; the first one is the default.")
    run: RunAnswer | None
    model: TrainedAnswer | None
    limits: LimitsAnswer
    max_images: int = Field(description="Most images of all classes together.")


class ImagesAdded(Answer):
    """What became of the images of a request."""

    added: list[int] = Field(description="Ids of the added images.")
    left_out: list[Unreadable] = Field(description="Images that can't be used, and why.")
    training: TrainingAnswer


def training_answer(training: Training, limits: Limits) -> TrainingAnswer:
    """Return the state of a training."""
    return TrainingAnswer(
        classes=[
            KeptClass(
                id=one.id, name=one.name, images=[KeptImage(id=image.id, name=image.name) for image in one.images]
            )
            for one in training.images.classes
        ],
        backbones=list(training.options.backbones),
        run=_run_answer(training.run) if training.run else None,
        model=_trained_answer(training.model, training.images.revision) if training.model else None,
        limits=limits_answer(limits),
        max_images=limits.max_training_images,
    )


def _run_answer(run: TrainingRun) -> RunAnswer:
    return RunAnswer(
        status=run.status,
        stage=run.stage,
        done=run.done,
        total=run.total,
        backbone=run.backbone,
        accuracy=_accuracy(run.n_correct, run.n_checked, run.snapshot.chance),
        error=run.error,
        notes=list(run.notes),
    )


def _trained_answer(state: TrainedState, revision: int) -> TrainedAnswer:
    trained, calibration = state.trained, state.served.calibration
    return TrainedAnswer(
        number=state.number,
        backbone=trained.fitted.model.backbone.name,
        n_images=len(trained.snapshot.images),
        is_current=trained.snapshot.revision == revision,
        accuracy=_accuracy(*trained.n_correct, trained.snapshot.chance),
        tpr=calibration.rejection.tpr if calibration else None,
        saved_as=state.saved_as.name if state.saved_as else None,
        notes=list(state.notes),
        calibration_notes=list(state.calibration_notes),
    )


def _accuracy(n_correct: int, n: int, chance: float) -> Accuracy | None:
    interval = share(n_correct, n).interval
    if interval is None:
        return None
    return Accuracy(n_correct=n_correct, n=n, low=interval.low, high=interval.high, chance=chance)
