"""Results for people (lines) and for programs (JSON, CSV)."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
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
"""Columns of a table of predictions; a column ``set`` may follow."""

UNKNOWN = "unknown"
"""Label of a rejected image."""


def check_outputs(
    results: Mapping[str, str | None], files: Mapping[str, Path | None] | None = None, *, force: bool = False
) -> None:
    """Check before any work that all outputs of a command can be written and that no two of them are the same.

    ``results`` are targets of JSON and CSV by option, ``-`` for standard output; an earlier result is replaced, any
    other file is kept. Other ``files`` are replaced if ``force`` is set. None is not written.
    """
    named: dict[str, str] = {}
    for option, target in {**results, **(files or {})}.items():
        if target is None:
            continue
        path = STANDARD_OUTPUT if target == STANDARD_OUTPUT else os.path.realpath(target)
        if path in named:
            where = "standard output" if path == STANDARD_OUTPUT else target
            raise SotglpError(f"{named[path]} and {option} both write to {where}: give two different outputs")
        named[path] = option
    for file in (files or {}).values():
        if file is not None:
            check_output(file, force=force)
    for target in results.values():
        _check_result(target)


def emit(lines: Iterable[str], result: Mapping[str, Any], json_file: str | None) -> None:
    """Print lines for people, unless standard output is for JSON, and write the result as JSON if asked for."""
    if json_file != STANDARD_OUTPUT:
        for line in lines:
            say(line)
    if json_file:
        write_json(json_file, result)


def say(text: str) -> None:
    """Print one line; control characters are escaped."""
    print(printable(text))


def list_unreadable(unreadable: Sequence[UnreadableImageError] | None) -> list[str]:
    """Name skipped images on standard error, and return their files for the JSON."""
    for error in unreadable or ():
        print(f"sotglp: skipped: {printable(str(error))}", file=sys.stderr)
    return [str(error.source) for error in unreadable or ()]


def write_json(target: str, result: Mapping[str, Any]) -> None:
    """Write a result and the versions that computed it as strict JSON; an earlier result is replaced.

    Numbers that JSON lacks (NaN and infinity) become null, and an entry ``undefined`` lists them.
    """
    undefined: dict[str, str] = {}
    content = _strict({**result, "versions": installed_versions()}, "", undefined)
    if undefined:
        content["undefined"] = undefined
    _write(target, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(target: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write a header and rows; an earlier result is replaced."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    _write(target, buffer.getvalue())


def prediction(
    path: str, classes: Sequence[str | int | float], probabilities: NDArray[np.float32], ood_score: float
) -> dict[str, Any]:
    """Return the entry of one image in JSON, from its probabilities (C,) of the classes."""
    return {
        "path": path,
        "label": classes[int(probabilities.argmax())],
        "probability": float(probabilities.max()),
        "ood_score": float(ood_score),
        "probabilities": dict(zip(map(str, classes), map(float, probabilities), strict=True)),
    }


def emit_predictions(
    predictions: Sequence[Mapping[str, Any]], about: Mapping[str, Any], csv_file: str | None, json_file: str | None
) -> None:
    """Write predictions as CSV and JSON, and print them unless standard output is for one of these.

    ``predictions`` come from :func:`prediction`; all may have an entry ``set``, a list of labels. ``about`` is added to
    the JSON.
    """
    header = [*PREDICTION_COLUMNS, *(["set"] if "set" in predictions[0] else [])]
    if csv_file:
        write_csv(csv_file, header, [[_cell(row[name]) for name in header] for row in predictions])
    lines = []
    for row in predictions:
        in_set = f", set: {_cell(row['set']) or 'empty'}" if "set" in row else ""
        score = f"in-distribution score {row['ood_score']:.4f}"
        lines.append(f"{row['path']}: {row['label']} ({row['probability']:.3f}), {score}{in_set}")
    emit([] if csv_file == STANDARD_OUTPUT else lines, {"predictions": predictions, **about}, json_file)


def _check_result(target: str | None) -> None:
    if target is None or target == STANDARD_OUTPUT:
        return
    path = Path(target)
    check_output(path, force=True)
    if os.path.exists(path) and not _is_earlier_result(path):
        raise SotglpError(f"{path} exists and is not a result of sotglp: give another name")


def _is_earlier_result(path: Path) -> bool:
    try:
        text = path.read_text(encoding="utf-8")
        if text.startswith(",".join(PREDICTION_COLUMNS)):
            return True
        return "sotglp" in json.loads(text)["versions"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _write(target: str, text: str) -> None:
    # Bytes of a file name that are not UTF-8 are escaped as \udce9, which JSON reads back.
    content = text.encode("utf-8", "backslashreplace")
    if target == STANDARD_OUTPUT:
        sys.stdout.write(content.decode())
        return
    _check_result(target)
    write_file(Path(target), lambda beside: beside.write_bytes(content), force=True)


def _strict(value: Any, where: str, undefined: dict[str, str]) -> Any:
    """Replace NaN and infinity by None, and note their positions in ``undefined``."""
    if isinstance(value, Mapping):
        return {key: _strict(item, f"{where}.{key}" if where else str(key), undefined) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item, f"{where}.{index}", undefined) for index, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        undefined[where] = "not a number" if math.isnan(value) else "infinite"
        return None
    return value


def _cell(value: Any) -> Any:
    return "; ".join(map(str, value)) if isinstance(value, list) else value
