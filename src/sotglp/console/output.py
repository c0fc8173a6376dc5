"""Results on their way to people and programs."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sotglp.console.text import printable
from sotglp.errors import SotglpError
from sotglp.files.atomic import check_output, write_file
from sotglp.files.versions import installed_versions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sotglp.errors import UnreadableImageError

STANDARD_OUTPUT = "-"

PREDICTION_COLUMNS = ("path", "label", "probability", "ood_score")
"""Of every table of predictions; a column ``set`` may follow."""

UNKNOWN = "unknown"
"""Label of an image that is rejected."""


def say(text: str, *, json_target: str | None = None) -> None:
    """Print one line for people, unless standard output is to hold JSON alone; what a terminal obeys is written out."""
    if json_target != STANDARD_OUTPUT:
        print(printable(text))


def list_unreadable(unreadable: Sequence[UnreadableImageError]) -> None:
    """Name the images that were left out, on standard error."""
    for error in unreadable:
        print(f"sotglp: left out: {printable(str(error))}", file=sys.stderr)


def check_result_file(target: str | None) -> None:
    """Refuse, before long work, to replace a file that is not an earlier result.

    Raises
    ------
    SotglpError
        If ``target`` is a folder, a file that sotglp did not write, or lies where nothing can be written.
    """
    if target is None or target == STANDARD_OUTPUT:
        return
    path = Path(target)
    check_output(path, force=True)
    if os.path.exists(path) and not _is_earlier_result(path):
        raise SotglpError(f"{path} exists and is not a result of sotglp: give another name")


def write_json(target: str, result: Mapping[str, Any]) -> None:
    """Write a result with the versions that made it; an earlier result is replaced."""
    text = json.dumps({**result, "versions": installed_versions()}, indent=2, ensure_ascii=False) + "\n"
    if target == STANDARD_OUTPUT:
        sys.stdout.write(_utf8(text).decode())
        return
    check_result_file(target)
    write_file(Path(target), lambda beside: beside.write_bytes(_utf8(text)), force=True)


def write_csv(target: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write rows below a header; an earlier result is replaced."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    if target == STANDARD_OUTPUT:
        sys.stdout.write(_utf8(buffer.getvalue()).decode())
        return
    check_result_file(target)
    write_file(Path(target), lambda beside: beside.write_bytes(_utf8(buffer.getvalue())), force=True)


def _utf8(text: str) -> bytes:
    r"""The text in UTF-8; a byte of a file name that is none is written out as ``\udce9``, which JSON reads back."""
    return text.encode("utf-8", "backslashreplace")


def _is_earlier_result(path: Path) -> bool:
    try:
        text = path.read_text(encoding="utf-8")
        if text.startswith(",".join(PREDICTION_COLUMNS)):
            return True
        return "sotglp" in json.loads(text)["versions"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def prediction(
    path: str, classes: Sequence[str | int | float], probabilities: NDArray[np.float32], ood_score: float
) -> dict[str, Any]:
    """What is told of one image, by the names that JSON has for it.

    Parameters
    ----------
    path : str
        The image.
    classes : sequence
        C labels.
    probabilities : NDArray
        (C,).
    ood_score : float
        Larger is more in-distribution.
    """
    return {
        "path": path,
        "label": classes[int(probabilities.argmax())],
        "probability": float(probabilities.max()),
        "ood_score": float(ood_score),
        "probabilities": dict(zip(map(str, classes), map(float, probabilities), strict=True)),
    }


def tell_predictions(
    predictions: Sequence[Mapping[str, Any]], about: Mapping[str, Any], csv_file: str | None, json_file: str | None
) -> None:
    """Write predictions as asked for, and print them unless a table or JSON takes standard output.

    Parameters
    ----------
    predictions : sequence of dict
        From :func:`prediction`; all may have a ``set`` of labels too.
    about : mapping
        What JSON tells beside them.
    csv_file, json_file : str or None
        Where the table and JSON go; ``-`` for standard output.
    """
    header = [*PREDICTION_COLUMNS, *(["set"] if "set" in predictions[0] else [])]
    if csv_file:
        write_csv(csv_file, header, [[_cell(row[name]) for name in header] for row in predictions])
    if json_file:
        write_json(json_file, {"predictions": predictions, **about})
    if STANDARD_OUTPUT not in (csv_file, json_file):
        for row in predictions:
            in_set = f", set: {_cell(row['set']) or 'empty'}" if "set" in row else ""
            score = f"in-distribution score {row['ood_score']:.4f}"
            say(f"{row['path']}: {row['label']} ({row['probability']:.3f}), {score}{in_set}")


def _cell(value: Any) -> Any:
    """A value as a table shows it: the classes of a set in one cell."""
    return "; ".join(map(str, value)) if isinstance(value, list) else value
