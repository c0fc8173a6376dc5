"""Write a model file: one safetensors file with what a model learned, and its record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sotglp.backbone.architectures import is_known
from sotglp.errors import SotglpError
from sotglp.files.tensors import write_tensors
from sotglp.files.versions import installed_versions
from sotglp.images.labels import label_text
from sotglp.methods.base import AdaptedModel
from sotglp.methods.shot_memory import ShotMemory
from sotglp.model_file.record import FORMAT_VERSION, UNNAMED_VERSION
from sotglp.scoring.calibration import Calibration
from sotglp.scoring.choice import Choice
from sotglp.settings import TrainConfig

BACKBONE_PREFIX = "backbone."
SHOTS_PREFIX = "shots."
SHOT_TENSORS = ("features", "regions", "classes")
PATCH_TENSORS = {"rows": "patch_rows", "levels": "patch_levels", "scales": "patch_scales"}
"""Fields of ShotPatches, and their names in files."""
CALIBRATION_PREFIX = "calibration."
MAP_TENSORS = ("map_x", "map_y")
FOLD_PREFIX = "fold{}."


def save_model(
    path: Path,
    model: AdaptedModel,
    *,
    classes: list[str | int | float] | None = None,
    training: TrainConfig | None = None,
    history: list[dict[str, float]] | None = None,
    calibration: Calibration | None = None,
    choices: Sequence[Choice] = (),
    include_backbone: bool = False,
    force: bool = False,
) -> None:
    """Write a model file; the same model gives the same bytes.

    Parameters
    ----------
    path : Path
        The file to write.
    model : AdaptedModel
        The model.
    classes : list or None
        Labels, if they aren't the model's class names.
    training, history
        See :class:`sotglp.model_file.record.ModelRecord`.
    calibration : Calibration or None
        Calibration of the model.
    choices : sequence of Choice
        What held-out shots chose.
    include_backbone : bool, default False
        Store the backbone's weights too; otherwise the file stores their name and fingerprint. A custom
        ``preprocess`` isn't stored.
    force : bool, default False
        Replace an existing file.

    Raises
    ------
    SotglpError
        If the file exists and ``force`` is off, or can't be written; if ``include_backbone`` is on and open_clip has
        no architecture of the backbone's name.
    """
    backbone = model.backbone
    if include_backbone and not is_known(backbone.name):
        raise SotglpError(
            f"the backbone {backbone.name} can't be stored in a model file, since open_clip can't build it by name: "
            "leave include_backbone off, and give the backbone when the file is loaded"
        )
    labels = list(model.class_names) if classes is None else classes
    is_named = [label_text(label) for label in labels] != list(model.class_names)
    record = {
        "format_version": FORMAT_VERSION if is_named else UNNAMED_VERSION,
        "classes": labels,
        **({"names": model.class_names} if is_named else {}),
        "kind": model.kind,
        "model": model.config.model_dump(),
        "training": training.model_dump() if training else None,
        "backbone": {
            "name": backbone.name,
            "pretrained": backbone.pretrained,
            "seed": backbone.seed,
            "image_size": list(backbone.image_size),
            "fingerprint": backbone.fingerprint,
            "quick_gelu": backbone.quick_gelu,
            "preprocess": backbone.preprocess_settings,
            "patch_attention": backbone.patch_attention,
        },
        "history": history or [],
        "calibration": calibration_record(calibration),
        "versions": installed_versions(),
    }
    if model.value_ranges:  # absent otherwise, so that files without them keep their bytes
        record["value_ranges"] = {kind: list(limits) for kind, limits in model.value_ranges.items()}
    if choices:
        record["choices"] = [asdict(choice) for choice in choices]
    tensors = model.kept_tensors() | _shot_tensors(model.shots) | _calibration_tensors(calibration)
    if include_backbone:
        tensors |= {BACKBONE_PREFIX + name: tensor for name, tensor in backbone.clip.state_dict().items()}
    write_tensors(path, tensors, record, force=force)


def calibration_record(calibration: Calibration | None) -> dict[str, Any] | None:
    """Scalars of a calibration, as :class:`sotglp.model_file.record.CalibrationRecord` reads them."""
    if calibration is None:
        return None
    rejection = asdict(calibration.rejection)
    if calibration.rejection.accepted_error is None:  # so that such files keep their bytes
        del rejection["accepted_error"]
    return {
        "ood_method": calibration.ood_method,
        "ood_temperature": calibration.ood_temperature,
        "rejection": rejection,
        "temperature": calibration.temperature,
        "n_folds": len(calibration.fold_models),
        **({"calibrator": calibration.probability_map.kind} if calibration.probability_map else {}),
    }


def _shot_tensors(shots: ShotMemory | None) -> dict[str, Tensor]:
    if shots is None:
        return {}
    tensors = {SHOTS_PREFIX + name: getattr(shots, name) for name in SHOT_TENSORS}
    if shots.patches is not None:
        tensors |= {SHOTS_PREFIX + name: getattr(shots.patches, own) for own, name in PATCH_TENSORS.items()}
    return tensors


def _calibration_tensors(calibration: Calibration | None) -> dict[str, Tensor]:
    """Probabilities and folds of the calibration images, and the learned tensors of each fold's model."""
    if calibration is None:
        return {}
    tensors = {CALIBRATION_PREFIX + "true_probabilities": torch.from_numpy(calibration.true_probabilities)}
    if calibration.folds is not None:
        tensors[CALIBRATION_PREFIX + "folds"] = torch.from_numpy(calibration.folds)
    if calibration.true_classes is not None:
        for name, values in calibration.true_classes._asdict().items():
            tensors[CALIBRATION_PREFIX + name] = torch.from_numpy(values)
    if calibration.probability_map is not None:
        for name, values in zip(MAP_TENSORS, calibration.probability_map[1:], strict=True):
            tensors[CALIBRATION_PREFIX + name] = torch.from_numpy(values.copy())
    for fold, model in enumerate(calibration.fold_models):
        tensors |= {FOLD_PREFIX.format(fold) + name: tensor for name, tensor in model.kept_tensors().items()}
    return tensors
