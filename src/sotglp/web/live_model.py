"""The served model, and its replacement when classes are added or removed."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from sotglp.backbone import Backbone
from sotglp.backbone.precision import choose_device
from sotglp.explain.explanation import has_maps
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel
from sotglp.methods.text_features import TextFeatures
from sotglp.model_file.load import carries_backbone, load_model
from sotglp.model_file.record import ModelRecord, read_record
from sotglp.model_file.save import save_model
from sotglp.scoring.calibration import Calibration
from sotglp.scoring.predict import text_of
from sotglp.scoring.recalibrate import ClassChange, recalibrate
from sotglp.settings import InferenceConfig, TrainConfig, checked
from sotglp.training.class_changes import with_class, without_class
from sotglp.web.limits import RefusalError


@dataclass(frozen=True)
class ServedModel:
    """An immutable model with all that predictions need; a class change replaces it as a whole.

    Attributes
    ----------
    text : TextFeatures
        Features of its prompts, encoded once instead of for each batch.
    labels : tuple
        Labels of its classes, as in the model file.
    inference : InferenceConfig
        Settings of predictions, with the score of the calibration.
    calibration : Calibration or None
        That of the file, or the one that was repeated after classes changed; None if it could not be.
    added : tuple of str
        Names of the classes that were added.
    said : str
        What was done to the calibration by the last change; empty if there was none.
    """

    model: AdaptedModel
    text: TextFeatures
    labels: tuple[str | int | float, ...]
    record: ModelRecord
    inference: InferenceConfig
    calibration: Calibration | None
    carries_backbone: bool
    added: tuple[str, ...] = ()
    said: str = ""

    @property
    def classes(self) -> list[str]:
        """Class names."""
        return list(self.model.class_names)

    @property
    def n_prompts(self) -> int:
        """Local prompts per class, N; 0 if the model has no maps."""
        return self.text.local.shape[1] if has_maps(self.model) else 0

    @property
    def can_add_classes(self) -> bool:
        """Whether this kind of model can add a class by its images alone."""
        learns_at_once = type(self.model).partial_fit_features is AdaptedModel.partial_fit_features
        has_shots = self.model.shots is not None and self.model.shots.patches is not None
        return has_shots or not (self.model.needs_shot_features and learns_at_once)

    def with_class(self, name: str, images: ImageSet) -> ServedModel:
        """Return the model with one more class, like ``sotglp classes add``."""
        label = self.record.label_of(name)
        grown = with_class(self.model, str(label), images, self._training)
        again = recalibrate(self.calibration, self.model, grown, None, self._training)
        return replace(
            self,
            model=grown,
            text=text_of(grown, self.inference),
            labels=(*self.labels, label),
            calibration=again.calibration,
            added=(*self.added, str(label)),
            said=again.said,
        )

    def without_class(self, name: str) -> ServedModel:
        """Return the model without a class."""
        shrunk = without_class(self.model, name)
        again = recalibrate(self.calibration, self.model, shrunk, ClassChange.removing(name), self._training)
        return replace(
            self,
            model=shrunk,
            text=text_of(shrunk, self.inference),
            labels=tuple(label for label, own in zip(self.labels, self.classes, strict=True) if own != name),
            calibration=again.calibration,
            added=tuple(other for other in self.added if other != name),
            said=again.said,
        )

    @property
    def _training(self) -> TrainConfig:
        # No worker processes: a fork copies the server's threads in the middle of their work.
        return (self.record.training or TrainConfig()).model_copy(update={"workers": 0})

    def save(self, path: Path, *, force: bool = False) -> None:
        """Write the model file, like ``sotglp fit`` and ``sotglp classes``."""
        save_model(
            path,
            self.model,
            classes=list(self.labels),
            training=self.record.training,
            history=None if self.added else self.record.history,
            choices=self.record.choices,
            calibration=self.calibration,
            include_backbone=self.carries_backbone,
            force=force,
        )


def load_served(
    model_file: Path,
    *,
    backbone: Backbone | None = None,
    pretrained: str | None = None,
    device: str = "auto",
    batch_size: int,
) -> ServedModel:
    """Load a model file for serving; see :func:`sotglp.model_file.load.load_model`."""
    ood_method, temperature = read_record(model_file).score
    values = {"batch_size": batch_size, "ood_method": ood_method, "temperature": temperature}
    inference = checked(InferenceConfig, values)
    model, record, calibration = load_model(
        model_file, backbone=backbone, pretrained=pretrained, device=choose_device(device)
    )
    return ServedModel(
        model,
        text_of(model, inference),
        tuple(record.classes),
        record,
        inference,
        calibration,
        carries_backbone(model_file),
    )


@dataclass
class LiveModel:
    """The current model; open requests keep the one that they started with.

    ``name`` is the file's, or that of a download; ``served`` is None until the page has trained a model.
    """

    name: str
    served: ServedModel | None
    _changes: asyncio.Lock = field(default_factory=asyncio.Lock)
    # Not the thread of predictions: training a class takes seconds.
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "sotglp-classes"))

    def __post_init__(self) -> None:
        self._first = self.served

    @property
    def current(self) -> ServedModel:
        """The model; RefusalError 409 if there is none yet."""
        if self.served is None:
            raise RefusalError(409, "there is no model yet: train one on the page, or through /training")
        return self.served

    async def add_class(self, name: str, images: ImageSet, max_added: int) -> ServedModel:
        """Add a class and serve the new model; after an error, or with ``max_added`` already, the current one stays."""
        async with self._changes:
            now = self.current
            if len(now.added) >= max_added:
                raise RefusalError(409, f"the server has the allowed {max_added} added classes: remove one first")
            grown = await asyncio.get_running_loop().run_in_executor(self._thread, now.with_class, name, images)
            self.served = grown
        return grown

    async def remove_class(self, name: str) -> ServedModel:
        """Remove an added class; without any, the model of the file and its calibration are restored."""
        async with self._changes:
            now = self.current
            if name not in now.added:
                raise RefusalError(404, f"{name!r} is not a class that was added to this server: see /model")
            if now.added == (name,):
                self.served = self._first
            else:
                loop = asyncio.get_running_loop()
                self.served = await loop.run_in_executor(self._thread, now.without_class, name)
        return self.current

    def close(self) -> None:
        """Start no further class change."""
        self._thread.shutdown(wait=False, cancel_futures=True)
