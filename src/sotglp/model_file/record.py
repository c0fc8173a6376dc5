"""The record of a model file: everything but its tensors. Importing this module doesn't import torch."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from sotglp.backbone_defaults import default_ood_method
from sotglp.console.table import counted
from sotglp.errors import SotglpError, SotglpWarning, short_repr
from sotglp.files.header import read_json_record
from sotglp.images.labels import distinct_names
from sotglp.images.value_range import ValueRange, checked_ranges
from sotglp.methods.configs import CONFIG_OF_KIND, config_from_record
from sotglp.scoring.choice import Choice
from sotglp.scoring.rejection import Rejection
from sotglp.settings import (
    MAX_IMAGE_SIDE,
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    Calibrator,
    OodMethod,
    PatchAttention,
    Settings,
    TrainConfig,
    checked,
    current_score,
)
from sotglp.training.history import checked_history

FORMAT_VERSION, UNNAMED_VERSION = 3, 2
"""Files whose labels are the class names have the older version, which older versions of sotglp read."""
KIND_OF_OLD_FILES = "sot-glp"
"""Files from before the other methods have no kind."""

_Side = Annotated[int, Field(ge=1, le=MAX_IMAGE_SIDE)]
# Pixels range from 0 to 1, and in some models to 255: far beyond, features are not finite.
_Mean = Annotated[float, Field(ge=-1e4, le=1e4)]
_Std = Annotated[float, Field(ge=1e-4, le=1e4)]
_Temperature = Annotated[float, Field(ge=MIN_TEMPERATURE, le=MAX_TEMPERATURE)]


class PreprocessRecord(BaseModel):
    """Preprocessing of images, with open_clip's names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: tuple[_Side, _Side]
    mode: Literal["RGB"]
    mean: tuple[_Mean, _Mean, _Mean]
    std: tuple[_Std, _Std, _Std]
    interpolation: Literal["bicubic", "bilinear", "random"]
    resize_mode: Literal["shortest", "longest", "squash"]
    fill_color: int = Field(ge=0, le=255)


class BackboneRecord(BaseModel):
    """The backbone that a model was trained on; entries that older files lack have defaults."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(max_length=1000)
    pretrained: str | None
    seed: int | None = Field(ge=-(2**63), lt=2**64)
    image_size: tuple[_Side, _Side]
    fingerprint: str
    quick_gelu: bool = False
    preprocess: PreprocessRecord | None = None
    patch_attention: PatchAttention = "value"


class CalibrationRecord(BaseModel):
    """Scalars of a :class:`sotglp.scoring.calibration.Calibration`, whose arrays are tensors of the file.

    ``n_folds`` is 0 if the model was calibrated on held-out images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    ood_method: Annotated[OodMethod, BeforeValidator(current_score)]
    ood_temperature: _Temperature
    rejection: Rejection
    temperature: _Temperature
    n_folds: int = Field(ge=0, le=1000)
    calibrator: Calibrator = "temperature"

    def described(self) -> dict[str, str]:
        """Return the threshold, what it was calibrated on and what it accepts, as text for people."""
        rejection = self.rejection
        low, high = rejection.interval
        source = f"{counted(self.n_folds, 'fold')} of the shots" if self.n_folds else "held-out images"
        return {
            "unknown below": f"{rejection.threshold:.6g} ({self.ood_method} at temperature {self.ood_temperature:g})",
            "calibrated on": f"{counted(rejection.n, 'image')} in {source}",
            "accepts": f"{rejection.expected_tpr:.1%} of images of the classes (90% interval {low:.1%} to {high:.1%})",
            "probabilities": f"at temperature {self.temperature:.3g}"
            if self.calibrator == "temperature"
            else f"calibrated by {self.calibrator}",
            **({"bound": str(rejection.accepted_error)} if rejection.accepted_error else {}),
        }


@dataclass(frozen=True)
class ModelRecord:
    """Record of a model file.

    Attributes
    ----------
    classes : list
        Class labels in the model's order: text or whole numbers.
    model : Settings
        Settings of the model; their type depends on its kind.
    training : TrainConfig or None
        Settings of the training run.
    backbone : dict
        See :class:`BackboneRecord`.
    history : list of dict
        Loss, accuracy and learning rate of each epoch.
    calibration : CalibrationRecord or None
        None if the model isn't calibrated.
    versions : dict
        Versions of the packages that wrote the file.
    class_names : list of str
        Names of the classes in prompts: the labels as text, unless others were given.
    value_ranges : dict
        Black and white of gray images with more than 8 bits, by kind; see :mod:`sotglp.images.value_range`.
    choices : tuple of Choice
        What held-out shots chose; empty if the user or defaults chose all settings.
    """

    classes: list[str | int | float]
    model: Settings
    training: TrainConfig | None
    backbone: dict[str, Any]
    history: list[dict[str, float]] = field(default_factory=list)
    calibration: CalibrationRecord | None = None
    versions: dict[str, str] = field(default_factory=dict)
    class_names: list[str] = field(default_factory=list)
    value_ranges: dict[str, ValueRange] = field(default_factory=dict)
    choices: tuple[Choice, ...] = ()

    @property
    def default_ood_method(self) -> OodMethod:
        """OOD score of the backbone, for a model that isn't calibrated."""
        has_shots = self.training is not None and self.training.remember
        return default_ood_method(self.backbone["name"], has_shots=has_shots)

    @property
    def score(self) -> tuple[OodMethod, float]:
        """OOD score and its temperature: the calibrated ones, or else those of the backbone."""
        if self.calibration:
            return self.calibration.ood_method, self.calibration.ood_temperature
        return self.default_ood_method, 1.0

    def label_of(self, name: str) -> str | int | float:
        """Convert a class name to a label of the type that the model has.

        Raise a SotglpError if its labels are numbers and the name isn't a whole number.
        """
        if any(isinstance(label, str) for label in self.classes):
            return name
        try:
            return int(name)
        except ValueError as error:
            raise SotglpError(f"the model's class labels are numbers, not {name!r}: give a whole number") from error


def read_record(path: Path) -> ModelRecord:
    """Read the record of a model file, without its tensors.

    Raises
    ------
    SotglpError
        If the file is missing, damaged, not a model file or written by a newer version.
    """
    return parse_record(path, read_json_record(path, "model file"))


def parse_record(path: Path, raw: dict[str, Any]) -> ModelRecord:
    """Check the JSON of a model file's record; see :func:`read_record`."""
    version = raw.get("format_version")
    if type(version) is not int or version < 1:
        raise SotglpError(
            f"{path} can't be read as a model file: its record is damaged (format_version = {short_repr(version)})"
        )
    if version > FORMAT_VERSION:
        raise SotglpError(
            f"{path} has format {short_repr(version)}, but this sotglp reads up to {FORMAT_VERSION}: update sotglp"
        )
    kind = raw.get("kind", KIND_OF_OLD_FILES)
    if not isinstance(kind, str) or kind not in CONFIG_OF_KIND:
        raise SotglpError(
            f"{path} holds a model of kind {short_repr(kind)}, which this sotglp doesn't support: update sotglp"
        )
    try:
        if not all(isinstance(label, str | int | float) for label in list(raw["classes"])):
            raise TypeError("class labels")
        names = distinct_names(raw["classes"])
        if version > UNNAMED_VERSION and len(distinct_names(raw["names"], "class name")) == len(names):
            names = [*map(str, raw["names"])]
        elif version > UNNAMED_VERSION:
            raise ValueError("the numbers of labels and names differ")
        record = ModelRecord(
            classes=list(raw["classes"]),
            class_names=names,
            model=config_from_record(kind, raw["model"]),
            training=checked(TrainConfig, raw["training"]) if raw["training"] else None,
            backbone=BackboneRecord(**raw["backbone"]).model_dump(mode="json", exclude_unset=True),
            history=checked_history(raw["history"]),
            calibration=_calibration_record(path, raw),
            versions=dict(raw["versions"]),
            value_ranges=checked_ranges(raw.get("value_ranges", {})),
            choices=tuple(Choice(**choice) for choice in raw.get("choices", [])),
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join([error.title.removesuffix("Record").lower(), *map(str, first["loc"])])
        raise SotglpError(
            f"{path} can't be read as a model file: its record is damaged ({where}: {first['msg'].lower()})"
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise SotglpError(f"{path} can't be read as a model file: its record is damaged ({error})") from error
    return record


def _calibration_record(path: Path, raw: dict[str, Any]) -> CalibrationRecord | None:
    if raw["format_version"] == 1:
        if raw["threshold"] is not None:
            message = f"{path} has a threshold of an older sotglp, which lacks its uncertainty: calibrate again"
            warnings.warn(message, SotglpWarning, stacklevel=3)
        return None
    return CalibrationRecord(**raw["calibration"]) if raw["calibration"] is not None else None
