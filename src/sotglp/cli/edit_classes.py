"""Changes of a model file's classes for ``sotglp classes``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sotglp.backbone.precision import choose_device
from sotglp.console.output import emit, list_unreadable
from sotglp.console.table import counted
from sotglp.errors import UnreadableImageError
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel
from sotglp.methods.shot_features import stored_shots
from sotglp.model_file.load import carries_backbone, load_model
from sotglp.model_file.record import ModelRecord
from sotglp.model_file.save import calibration_record, save_model
from sotglp.scoring.recalibrate import ClassChange, recalibrate
from sotglp.settings import TrainConfig
from sotglp.training.class_changes import renamed, with_class, without_class


class ModelEdit:
    """A model file that is loaded, and the file to write the changed model to."""

    def __init__(
        self, model_file: Path, record: ModelRecord, out: Path, pretrained: str | None, device: str, force: bool
    ) -> None:
        self._model_file, self._record, self._out, self._force = model_file, record, out, force
        loaded = load_model(model_file, pretrained=pretrained, device=choose_device(device))
        self._model, self._calibration = loaded.model, loaded.calibration

    def add(
        self,
        name: str,
        images: ImageSet,
        epochs: int | None,
        others: ImageSet | None,
        cache_dir: Path | None,
        skip_unreadable: bool,
        json_file: str | None,
    ) -> None:
        """Train a class on images and write the model."""
        unreadable: list[UnreadableImageError] | None = [] if skip_unreadable else None
        label = self._record.label_of(name)
        grown = with_class(
            self._model,
            str(label),
            images,
            self._training,
            others=others,
            epochs=epochs,
            cache_dir=cache_dir,
            unreadable=unreadable,
            show_progress=True,
        )
        about = {"added": label, "unreadable": list_unreadable(unreadable)}
        line = f"{self._out}: {label} is class {len(grown.class_names)}"
        if others is None and (stored := stored_shots(self._model)):
            line += f", fitted beside {counted(len(stored), 'stored shot')} of the others"
        self._write(grown, None, [*self._record.classes, label], line, about, json_file)

    def remove(self, name: str, json_file: str | None) -> None:
        """Remove a class and write the model."""
        left = without_class(self._model, name)
        labels = [label for label, text in self._labels() if text != name]
        self._write(
            left,
            ClassChange.removing(name),
            labels,
            f"{self._out}: {counted(len(labels), 'class', 'classes')} without {name}",
            {"removed": name},
            json_file,
        )

    def rename(self, old: str, new: str, json_file: str | None) -> None:
        """Rename a class and write the model."""
        label = self._record.label_of(new)
        changed = renamed(self._model, old, str(label))
        labels = [label if text == old else own for own, text in self._labels()]
        about = {"renamed": old, "name": label}
        change = ClassChange.renaming(old, str(label))
        self._write(changed, change, labels, f"{self._out}: {old} is now {label}", about, json_file)

    @property
    def _training(self) -> TrainConfig:
        return self._record.training or TrainConfig()

    def _labels(self) -> zip[tuple[Any, str]]:
        return zip(self._record.classes, self._model.class_names, strict=True)

    def _write(
        self,
        model: AdaptedModel,
        change: ClassChange | None,
        labels: list[Any],
        line: str,
        about: dict[str, Any],
        json_file: str | None,
    ) -> None:
        again = recalibrate(self._calibration, self._model, model, change, self._training, show_progress=True)
        save_model(
            self._out,
            model,
            classes=labels,
            training=self._record.training,
            history=self._record.history if change else None,  # a class that was added was learned in another run
            choices=self._record.choices,
            calibration=again.calibration,
            include_backbone=carries_backbone(self._model_file),
            force=self._force,
        )
        line += f"; {again.said}" if again.said else ""
        result = {"classes": labels, **about, "calibration": calibration_record(again.calibration)}
        emit([line], result, json_file)
