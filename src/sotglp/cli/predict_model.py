"""Predictions of a model file for ``sotglp predict``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from sotglp.backbone.precision import choose_device
from sotglp.cli.inputs import inference_config
from sotglp.console.output import label_unknown, prediction
from sotglp.errors import SotglpError, UnknownNameError, UnreadableImageError
from sotglp.images.image_set import ImageSet
from sotglp.model_file.load import load_model
from sotglp.model_file.record import CalibrationRecord, ModelRecord, read_record
from sotglp.scoring.decide import decide
from sotglp.scoring.predict import predict_each
from sotglp.settings import InferenceConfig, SetScore


def predict_with_model(
    model_file: Path,
    image_set: ImageSet,
    settings: Mapping[str, Any],
    *,
    pretrained: str | None,
    device: str,
    unknown: bool | None,
    coverage: float | None,
    sets: Mapping[str, Any],
    unreadable: list[UnreadableImageError] | None,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return predictions and further entries of the JSON.

    ``settings`` are those of :func:`inference_config`, ``sets`` those of :meth:`Calibration.sets`.
    """
    record, inference = checked_inference(model_file, settings, unknown=unknown, coverage=coverage, sets=sets)
    model, record, calibration = load_model(model_file, pretrained=pretrained, device=choose_device(device))
    models = [model, *calibration.fold_models] if calibration and coverage is not None else [model]
    by_model = predict_each(models, image_set, inference, unreadable=unreadable, score_all=False)
    found = by_model[0]
    decided = decide(by_model, calibration, inference, coverage, sets)
    rejected = [None] * len(found.indices) if decided.is_unknown is None else decided.is_unknown.tolist()
    predictions = [
        prediction(image_set.name(index), record.classes, of_classes, score, is_unknown)
        for index, of_classes, score, is_unknown in zip(
            found.indices, decided.probabilities, found.ood_scores, rejected, strict=True
        )
    ]
    if unknown is not False:
        label_unknown(predictions)
    if decided.sets is not None:
        for row, members in zip(predictions, decided.sets, strict=True):
            row["set"] = [record.classes[index] for index in members.nonzero()[0]]
    calibrated = record.calibration.model_dump() if record.calibration else None
    return predictions, {**about_scores(record, inference), "calibration": calibrated}


def about_scores(record: ModelRecord, inference: InferenceConfig) -> dict[str, Any]:
    """Return entries of the JSON on the OOD scores of predictions."""
    return {
        "ood_method": inference.ood_method,
        "temperature": inference.temperature,
        "threshold": inference.threshold_of(record.calibration),
    }


def checked_inference(
    model_file: Path,
    settings: Mapping[str, Any],
    *,
    unknown: bool | None,
    coverage: float | None,
    sets: Mapping[str, Any],
) -> tuple[ModelRecord, InferenceConfig]:
    """Return the record of a model file and how it predicts; refuse options that it can't carry out.

    Arguments are those of :func:`predict_with_model`.
    """
    if sets["per_class"] and sets["per_cluster"]:
        raise SotglpError("--per-class and --per-cluster exclude each other: give one of them")
    if coverage is None and (sets["score"] != "lac" or sets["per_class"] or sets["per_cluster"]):
        of_groups = "--per-cluster" if sets["per_cluster"] else "--set-score"
        option = "--per-class" if sets["per_class"] else of_groups
        raise SotglpError(f"{option} is for prediction sets: give --coverage too")
    if sets["score"] not in get_args(SetScore):
        raise UnknownNameError("score of sets", sets["score"], get_args(SetScore))
    record = read_record(model_file)
    inference = inference_config(record, **settings)
    _check_decisions(model_file, record.calibration, inference, unknown, coverage)
    return record, inference


def _check_decisions(
    model_file: Path,
    calibration: CalibrationRecord | None,
    inference: InferenceConfig,
    unknown: bool | None,
    coverage: float | None,
) -> None:
    """Refuse decisions that the model isn't calibrated for, before it is loaded."""
    if coverage is not None and not 0 < coverage < 1:
        raise SotglpError(f"coverage = {coverage} must be above 0 and below 1")
    if calibration is None:
        if unknown or coverage is not None:
            option = "--unknown" if unknown else "--coverage"
            raise SotglpError(
                f"{option} needs a calibrated model, but {model_file} isn't calibrated: fit it with --calibrate"
            )
    elif unknown and inference.threshold_of(calibration) is None:
        raise SotglpError(
            f"the threshold of {model_file} applies to the score {calibration.ood_method} at temperature "
            f"{calibration.ood_temperature:g}: leave --ood-method and --temperature out"
        )
