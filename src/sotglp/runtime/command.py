"""``sotglp predict`` with an exported model; all of the command line that there is without the full installation."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sotglp.console.output import UNKNOWN, check_result_file, list_unreadable, prediction, tell_predictions
from sotglp.console.text import printable
from sotglp.errors import SotglpError, UnreadableImageError
from sotglp.images.folders import read_flat_folder
from sotglp.runtime.model import PortableModel
from sotglp.runtime.record import PortableRecord

ONNX_SUFFIX = ".onnx"

_REFUSED = ("--coverage", "--ood-method", "--temperature", "--pretrained", "--device", "--precision", "--workers")


@dataclass(frozen=True)
class PredictOptions:
    """Options of ``sotglp predict`` that an exported model can serve, as the command line spells them."""

    csv_file: str | None = None
    json_file: str | None = None
    unknown: bool = False
    skip_unreadable: bool = False
    batch_size: int = 32


def predict_with_exported(
    model_file: Path, images: Sequence[Path], chosen: PredictOptions, refused: Mapping[str, Any]
) -> None:
    """Do what ``sotglp predict`` does, with a file that ``sotglp export`` wrote.

    Parameters
    ----------
    model_file : Path
        The file.
    images : sequence of Path
        Images, or folders of images.
    chosen : PredictOptions
        Options.
    refused : mapping
        What was given for options that such a file can't serve, by their names; None where nothing was.

    Raises
    ------
    SotglpError
        If one of them was given, or the file or an image can't be read.
    """
    if given := [name for name, value in refused.items() if value is not None]:
        raise SotglpError(
            f"{given[0]} can't be chosen for {model_file}: an exported model has one score, temperature and arithmetic "
            "for good, so leave it out, or predict with the model file"
        )
    for target in (chosen.json_file, chosen.csv_file):
        check_result_file(target)
    paths = [found for path in images for found in (read_flat_folder(path) if os.path.isdir(path) else (path,))]
    if not paths:
        raise SotglpError("there are no images; give at least one")
    model = PortableModel.load(model_file)
    record = model.record
    if chosen.unknown and record.threshold is None:
        raise SotglpError(_no_threshold(model_file, record))
    unreadable: list[UnreadableImageError] | None = [] if chosen.skip_unreadable else None
    said = model.predict(paths, batch_size=chosen.batch_size, unreadable=unreadable, show_progress=True)
    list_unreadable(unreadable or [])
    predictions = [
        prediction(str(paths[index]), model.classes, of_classes, score)
        for index, of_classes, score in zip(said.indices, said.probabilities, said.ood_scores, strict=True)
    ]
    if chosen.unknown:
        for row, rejected in zip(predictions, model.rejects(said.ood_scores), strict=True):
            row["label"] = UNKNOWN if rejected else row["label"]
    about = {
        "ood_method": record.ood_method,
        "temperature": record.ood_temperature,
        "calibration": record.calibration,
        "unreadable": [str(error.source) for error in unreadable or []],
    }
    tell_predictions(predictions, about, chosen.csv_file, chosen.json_file)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``sotglp predict`` where the full installation is not there; a user's mistake ends with exit code 2.

    Parameters
    ----------
    arguments : sequence of str or None
        What follows ``sotglp`` on the command line; None takes it from there.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _run(given)
    except SotglpError as error:
        if "--debug" in given:
            raise
        print(f"sotglp: error: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)


def _run(given: list[str]) -> None:
    if given and given[0] != "predict" and not given[0].startswith("-"):
        raise SotglpError(
            f"`sotglp {given[0]}` needs the full installation, of which only what predicts with exported models is "
            "here: pip install sotglp"
        )
    chosen = _parser().parse_args(given)
    if chosen.model.suffix != ONNX_SUFFIX:
        raise SotglpError(
            f"{chosen.model} needs the full installation (pip install sotglp), where `sotglp export` turns it into an "
            f"{ONNX_SUFFIX} file"
        )
    refused = {option: getattr(chosen, option.strip("-").replace("-", "_")) for option in _REFUSED}
    if refused["--device"] in ("auto", "cpu"):
        refused["--device"] = None
    options = PredictOptions(chosen.csv, chosen.json, chosen.unknown, chosen.skip_unreadable, chosen.batch_size)
    predict_with_exported(chosen.model, chosen.images, options, refused)


def _parser() -> argparse.ArgumentParser:
    program = argparse.ArgumentParser("sotglp", description="What there is of sotglp without its full installation.")
    commands = program.add_subparsers(title="commands", required=True, metavar="COMMAND")
    predict = commands.add_parser(
        "predict",
        help="name the class of each image",
        description="Name the class of each image, its probability, and a score that is larger the more it is like "
        "the classes.",
        epilog="Example: sotglp predict birds.onnx garden.jpg more_photos/ --csv result.csv",
    )
    predict.add_argument("model", type=Path, metavar="MODEL", help="file that `sotglp export` wrote")
    predict.add_argument("images", type=Path, nargs="+", metavar="IMAGES", help="images, or folders of images")
    predict.add_argument("--csv", metavar="FILE", help="write a CSV table; - for standard output")
    predict.add_argument("--json", metavar="FILE", help="write the result as JSON; - for standard output")
    predict.add_argument("--unknown", action="store_true", help="say `unknown` of images below the threshold")
    predict.add_argument("--skip-unreadable", action="store_true", help="leave out images that can't be read")
    predict.add_argument("--batch-size", type=_positive, default=32, metavar="N", help="images looked at at once")
    predict.add_argument("--debug", action="store_true", help="show the traceback of an error")
    for option in _REFUSED:
        predict.add_argument(option, help=argparse.SUPPRESS)
    return program


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _no_threshold(model_file: Path, record: PortableRecord) -> str:
    if record.calibration is None:
        return f"--unknown needs a calibrated model, and {model_file} is none: fit it with --calibrate and export anew"
    return (
        f"the threshold of {model_file} is for the score {record.calibration.get('ood_method')}, and the file holds "
        f"{record.ood_method}: export it anew without --ood-method and --temperature"
    )
