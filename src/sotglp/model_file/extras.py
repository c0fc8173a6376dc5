"""What a model file holds beside what was learned: the memory of the shots, and the calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from sotglp.errors import SotglpError
from sotglp.methods.base import AdaptedModel
from sotglp.methods.registry import build_model
from sotglp.methods.shot_memory import ShotMemory
from sotglp.scoring.calibration import Calibration
from sotglp.scoring.rejection import Rejection
from sotglp.settings import InferenceConfig, OodMethod

SHOTS_PREFIX = "shots."
CALIBRATION_PREFIX = "calibration."
FOLD_PREFIX = "fold{}."


_Share = Annotated[float, Field(ge=0, le=1)]


class RejectionRecord(BaseModel):
    """See :class:`sotglp.scoring.rejection.Rejection`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    threshold: float
    tpr: float = Field(gt=0, le=1)
    n: int = Field(ge=1)
    expected_tpr: _Share
    interval: tuple[_Share, _Share]


class CalibrationRecord(BaseModel):
    """Scalars of a :class:`sotglp.scoring.calibration.Calibration` in a model file; arrays are tensors.

    ``n_folds`` is 0 where it was made on images that were kept from training.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    ood_method: OodMethod
    ood_temperature: float = Field(gt=0)
    rejection: RejectionRecord
    temperature: float = Field(gt=0)
    n_folds: int = Field(ge=0, le=1000)

    def is_for(self, inference: InferenceConfig) -> bool:
        """Whether images that are read so are scored as the threshold wants it."""
        return (self.ood_method, self.ood_temperature) == (inference.ood_method, inference.temperature)


def shot_tensors(shots: ShotMemory | None) -> dict[str, Tensor]:
    """The memory of the shots by name, as a file keeps it."""
    if shots is None:
        return {}
    return {SHOTS_PREFIX + name: getattr(shots, name) for name in ("features", "regions", "classes")}


def restored_shots(tensors: Mapping[str, Tensor], model: AdaptedModel) -> ShotMemory | None:
    """The memory that a file's tensors hold, or None.

    Raises
    ------
    SotglpError
        If they do not fit the model.
    """
    if not tensors:
        return None
    parts = [tensors.get(SHOTS_PREFIX + name) for name in ("features", "regions", "classes")]
    features, regions, classes = (torch.empty(0) if part is None else part for part in parts)
    fits = features.ndim == 2 and features.shape[1] == model.backbone.embed_dim
    fits = fits and (features.dtype, regions.dtype, classes.dtype) == (torch.float32, torch.float32, torch.int64)
    if not fits or not ((classes >= 0) & (classes < len(model.class_names))).all():
        raise SotglpError("the features of its shots do not fit the backbone or the classes")
    return ShotMemory(features, regions, classes)


def calibration_record(calibration: Calibration | None) -> dict[str, Any] | None:
    """What a file tells of a calibration in words and numbers."""
    if calibration is None:
        return None
    return {
        "ood_method": calibration.ood_method,
        "ood_temperature": calibration.ood_temperature,
        "rejection": asdict(calibration.rejection),
        "temperature": calibration.temperature,
        "n_folds": len(calibration.fold_models),
    }


def calibration_tensors(calibration: Calibration | None) -> dict[str, Tensor]:
    """What a file keeps of a calibration in tensors: probabilities, folds, and what the model of each fold learned."""
    if calibration is None:
        return {}
    tensors = {CALIBRATION_PREFIX + "true_probabilities": torch.from_numpy(calibration.true_probabilities)}
    if calibration.folds is not None:
        tensors[CALIBRATION_PREFIX + "folds"] = torch.from_numpy(calibration.folds)
    for fold, model in enumerate(calibration.fold_models):
        tensors |= {FOLD_PREFIX.format(fold) + name: tensor for name, tensor in model.kept_tensors().items()}
    return tensors


def calibration_prefixes(record: CalibrationRecord) -> tuple[str, ...]:
    """What the names of these tensors start with."""
    return (CALIBRATION_PREFIX, *(FOLD_PREFIX.format(fold) for fold in range(record.n_folds)))


def restored_calibration(record: CalibrationRecord, tensors: Mapping[str, Tensor], model: AdaptedModel) -> Calibration:
    """The calibration of a model, from what its file tells and keeps.

    Raises
    ------
    SotglpError
        If they do not fit each other or the model.
    """
    probabilities = tensors.get(CALIBRATION_PREFIX + "true_probabilities", torch.empty(0, 0))
    folds = tensors.get(CALIBRATION_PREFIX + "folds")
    fits = probabilities.ndim == 1 and probabilities.is_floating_point() and (folds is not None) == (record.n_folds > 0)
    if folds is not None:
        fits = fits and folds.shape == probabilities.shape and folds.dtype == torch.int64
        fits = fits and torch.equal(folds.unique(), torch.arange(record.n_folds))
    fits = fits and len(probabilities) in (0, record.rejection.n)
    if not fits or not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise SotglpError("its calibration does not fit together")
    models = []
    for fold in range(record.n_folds):
        prefix = FOLD_PREFIX.format(fold)
        own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        fold_model = build_model(model.backbone, model.class_names, model.config)
        fold_model.restore(own)
        models.append(fold_model.eval())
    return Calibration(
        record.ood_method,
        record.ood_temperature,
        Rejection(**record.rejection.model_dump()),
        record.temperature,
        probabilities.float().numpy(),
        None if folds is None else folds.numpy(),
        tuple(models),
    )
