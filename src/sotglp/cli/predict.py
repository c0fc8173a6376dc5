"""``sotglp predict``: the class of each image, how sure, and whether it belongs to any."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sotglp.cli import options
from sotglp.console.output import UNKNOWN, check_result_file, list_unreadable, prediction, tell_predictions
from sotglp.errors import SotglpError

if TYPE_CHECKING:
    from sotglp.errors import UnreadableImageError
    from sotglp.model_file.record import CalibrationRecord
    from sotglp.settings import InferenceConfig


def predict(
    model_file: options.ModelFile,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES...", help="Images, or folders of images.")],
    csv_file: Annotated[
        str | None,
        typer.Option("--csv", metavar="FILE", help="Write a CSV table; - for standard output."),
    ] = None,
    unknown: Annotated[
        bool, typer.Option("--unknown", help="Say `unknown` of images below the threshold of a calibrated model.")
    ] = False,
    coverage: Annotated[
        float | None,
        typer.Option(
            help="Give a set of classes too, which holds the right one in this share of cases, such as 0.9; calibrated "
            "models only."
        ),
    ] = None,
    ood_method: options.OodMethod = None,
    temperature: options.Temperature = None,
    pretrained: options.Pretrained = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    workers: options.Workers = 0,
    batch_size: options.BatchSize = 32,
    skip_unreadable: options.SkipUnreadable = False,
    json_file: options.Json = None,
    debug: options.Debug = False,
) -> None:
    """Name the class of each image, its probability, and a score that is larger the more it is like the classes.

    [bold]Example[/bold]: sotglp predict birds.safetensors garden.jpg more_photos/ --csv result.csv
    """
    if model_file.suffix == ".onnx":
        from sotglp.runtime.command import PredictOptions, predict_with_exported

        refused = {
            "--coverage": coverage,
            "--ood-method": ood_method,
            "--temperature": temperature,
            "--pretrained": pretrained,
            "--device": None if device in ("auto", "cpu") else device,
            "--precision": None if precision in ("auto", "fp32") else precision,
            "--workers": workers or None,
        }
        chosen = PredictOptions(csv_file, json_file, unknown, skip_unreadable, batch_size)
        predict_with_exported(model_file, images, chosen, refused)
        return

    import numpy as np

    from sotglp.backbone.precision import choose_device
    from sotglp.model_file.load import load_model
    from sotglp.model_file.record import read_record
    from sotglp.scoring.predict import predict_each

    for target in (json_file, csv_file):
        check_result_file(target)
    told = read_record(model_file).calibration
    inference = options.inference_config(batch_size, workers, precision, ood_method, temperature, told)
    _check_decisions(model_file, told, inference, unknown, coverage)
    image_set = options.images_of(images)
    model, record, calibration = load_model(model_file, pretrained=pretrained, device=choose_device(device))
    unreadable: list[UnreadableImageError] | None = [] if skip_unreadable else None
    models = [model, *calibration.fold_models] if calibration and coverage is not None else [model]
    said_by_each = predict_each(models, image_set, inference, unreadable=unreadable, score_all=False)
    list_unreadable(unreadable or [])
    said = said_by_each[0]
    probabilities = calibration.probabilities(said.probabilities) if calibration else said.probabilities
    predictions = [
        prediction(image_set.name(index), record.classes, of_classes, score)
        for index, of_classes, score in zip(said.indices, probabilities, said.ood_scores, strict=True)
    ]
    if calibration and unknown:
        for row, rejected in zip(predictions, calibration.rejects(said.ood_scores), strict=True):
            row["label"] = UNKNOWN if rejected else row["label"]
    if calibration and coverage is not None:
        sets = calibration.sets(np.stack([one.probabilities for one in said_by_each]), coverage)
        for row, members in zip(predictions, sets, strict=True):
            row["set"] = [record.classes[place] for place in members.nonzero()[0]]
    about = {
        "ood_method": inference.ood_method,
        "temperature": inference.temperature,
        "calibration": told.model_dump() if told else None,
        "unreadable": [str(error.source) for error in unreadable or []],
    }
    tell_predictions(predictions, about, csv_file, json_file)


def _check_decisions(
    model_file: Path,
    calibration: CalibrationRecord | None,
    inference: InferenceConfig,
    unknown: bool,
    coverage: float | None,
) -> None:
    """Refuse decisions that the model was not calibrated for, before it is loaded."""
    if coverage is not None and not 0 < coverage < 1:
        raise SotglpError(f"coverage = {coverage} must be above 0 and below 1")
    if calibration is None:
        if unknown or coverage is not None:
            option = "--unknown" if unknown else "--coverage"
            raise SotglpError(f"{option} needs a calibrated model, and {model_file} is none: fit it with --calibrate")
        return
    if unknown and inference.threshold_of(calibration) is None:
        raise SotglpError(
            f"the threshold of {model_file} is for the score {calibration.ood_method} at temperature "
            f"{calibration.ood_temperature:g}: leave --ood-method and --temperature out"
        )
