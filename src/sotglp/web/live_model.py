"""The model that is served, and its successors when classes are added and removed."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

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
from sotglp.settings import InferenceConfig, TrainConfig, checked
from sotglp.training.class_changes import with_class, without_class
from sotglp.web.limits import RefusalError


@dataclass(frozen=True)
class ServedModel:
    """A model that requests see as one whole; another one takes its place, and it never changes.

    Attributes
    ----------
    model : AdaptedModel
        The model.
    text : TextFeatures
        Of its prompts, which would be encoded for each batch otherwise.
    labels : tuple
        Labels of its classes, as its file has them.
    record : ModelRecord
        What the file tells.
    inference : InferenceConfig
        How images are read, with the score that the model was calibrated for.
    calibration : Calibration or None
        None once classes have changed.
    carries_backbone : bool
        Whether the file holds the backbone's weights.
    added : tuple of str
        Names of the classes that were added.
    """

    model: AdaptedModel
    text: TextFeatures
    labels: tuple[str | int | float, ...]
    record: ModelRecord
    inference: InferenceConfig
    calibration: Calibration | None
    carries_backbone: bool
    added: tuple[str, ...] = ()

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""
        return list(self.model.class_names)

    @property
    def n_prompts(self) -> int:
        """Local prompts of a class, N; 0 of a model that can't tell where it looked."""
        return self.text.local.shape[1] if has_maps(self.model) else 0

    @property
    def can_add_classes(self) -> bool:
        """Whether this kind of model can learn one class more."""
        learns_at_once = type(self.model).partial_fit_features is AdaptedModel.partial_fit_features
        return not (self.model.needs_shot_features and learns_at_once)

    def with_class(self, name: str, images: ImageSet) -> ServedModel:
        """Learn one class more, as ``sotglp classes add`` does.

        Raises
        ------
        SotglpError
            See :func:`sotglp.training.class_changes.with_class`.
        """
        known = (self.record.training or TrainConfig()).model_dump()
        label = self.record.label_of(name)
        # No processes that decode: a server has threads, which a fork would leave in the middle of what they do.
        config = checked(TrainConfig, known | {"epochs": None, "workers": 0})
        grown = with_class(self.model, str(label), images, config)
        return replace(
            self,
            model=grown,
            text=text_of(grown, self.inference),
            labels=(*self.labels, label),
            calibration=None,
            added=(*self.added, str(label)),
        )

    def without_class(self, name: str) -> ServedModel:
        """Forget a class; see :func:`sotglp.training.class_changes.without_class`."""
        shrunk = without_class(self.model, name)
        return replace(
            self,
            model=shrunk,
            text=text_of(shrunk, self.inference),
            labels=tuple(label for label, own in zip(self.labels, self.classes, strict=True) if own != name),
            calibration=None,
            added=tuple(other for other in self.added if other != name),
        )

    def save(self, path: Path) -> None:
        """Write it to a file, as ``sotglp fit`` and ``sotglp classes`` would."""
        save_model(
            path,
            self.model,
            classes=list(self.labels),
            training=self.record.training,
            history=self.record.history,
            calibration=self.calibration,
            include_backbone=self.carries_backbone,
        )


def load_served(
    model_file: Path, *, pretrained: str | None = None, device: str = "auto", batch_size: int
) -> ServedModel:
    """Read a model file to serve it.

    Parameters
    ----------
    model_file : Path
        The file, which is never written.
    pretrained, device
        See :func:`sotglp.model_file.load.load_model`.
    batch_size : int
        Images encoded at once.

    Raises
    ------
    SotglpError
        If it can't be read.
    """
    told = read_record(model_file).calibration
    values = {"batch_size": batch_size}
    score = {"ood_method": told.ood_method, "temperature": told.ood_temperature} if told else {}
    inference = checked(InferenceConfig, values | score)
    model, record, calibration = load_model(model_file, pretrained=pretrained, device=choose_device(device))
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
    """The model that new requests get; requests under way keep the one that they began with.

    Attributes
    ----------
    name : str
        Name of the model file.
    current : ServedModel
        Replaced in one assignment.
    """

    name: str
    current: ServedModel
    _changes: asyncio.Lock = field(default_factory=asyncio.Lock)
    # Not the thread that runs the model, since a class takes seconds to learn.
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "sotglp-classes"))

    def __post_init__(self) -> None:
        self._first = self.current

    async def add_class(self, name: str, images: ImageSet) -> ServedModel:
        """Learn one class more and serve the grown model from then on.

        Raises
        ------
        SotglpError
            If it can't be learned; the model stays as it is then.
        """
        async with self._changes:
            now = self.current
            grown = await asyncio.get_running_loop().run_in_executor(self._thread, now.with_class, name, images)
            self.current = grown
        return grown

    async def remove_class(self, name: str) -> ServedModel:
        """Forget a class that was added; without any, the model and its calibration are those of the file again.

        Raises
        ------
        RefusalError
            404 if no class of that name was added.
        """
        async with self._changes:
            now = self.current
            if name not in now.added:
                raise RefusalError(404, f"no class {name!r} was added since the server started: only such can go")
            if now.added == (name,):
                self.current = self._first
            else:
                loop = asyncio.get_running_loop()
                self.current = await loop.run_in_executor(self._thread, now.without_class, name)
        return self.current

    def close(self) -> None:
        """Start no further change."""
        self._thread.shutdown(wait=False, cancel_futures=True)
