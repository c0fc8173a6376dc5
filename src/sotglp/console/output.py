"""Results for people (lines) and for programs (JSON, CSV)."""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sotglp.console.prediction_files import is_json_lines, is_parquet, json_lines, write_parquet
from sotglp.console.streams import STANDARD_OUTPUT, complain, is_standard_output, write_result
from sotglp.console.text import as_utf8, printable
from sotglp.errors import SotglpError
from sotglp.files.atomic import check_output, os_reason, write_file
from sotglp.files.versions import installed_versions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sotglp.errors import UnreadableImageError

PREDICTION_COLUMNS = ("path", "label", "probability", "ood_score", "is_unknown")
"""Columns of a table of predictions; a column ``set`` may follow."""

UNKNOWN = "unknown"
"""Label of a rejected image; its entry ``is_unknown`` is true even if a class has this name."""

_FORMULA = re.compile(r"(^|;)(?=\s*[=+\-@\u2212\ufe62\ufe63\ufe66\ufe6b\uff0b\uff0d\uff1d\uff20]|[\t\r\n])")
"""Beginnings of what a spreadsheet would compute, also after a semicolon, which separates cells in many countries."""


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
        path = STANDARD_OUTPUT if is_standard_output(str(target)) else os.path.realpath(target)
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
    if not is_standard_output(json_file):
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
        complain(f"skipped: {error}")
    return [str(error.source) for error in unreadable or ()]


def write_json(target: str, result: Mapping[str, Any]) -> None:
    """Write a result and the versions that computed it as strict JSON; an earlier result is replaced.

    Numbers that JSON lacks (NaN and infinity) become null, and an entry ``undefined`` lists them.
    """
    undefined: dict[str, str] = {}
    content = _strict({**result, "versions": installed_versions()}, "", undefined)
    if undefined:
        content["undefined"] = undefined
    _write(target, as_utf8(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"))


def write_csv(target: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write a header and rows; an earlier result is replaced."""
    _write(target, as_utf8(csv_table(header, rows)))


def spreadsheet_text(text: str) -> str:
    """Return text as it stands in a cell of :func:`csv_table`, in which nothing is a formula."""
    return _FORMULA.sub(r"\1'", text)


def csv_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a CSV table in which no text is a formula: file names come from strangers.

    Text that a spreadsheet would compute gets an apostrophe. True and False are ``true`` and ``false``, None is empty.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    # Before Python 3.13, a carriage return alone is no reason for quotes.
    quoting_writer = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(header)
    for row in rows:
        cells = [_cell(value) for value in row]
        has_return = any(isinstance(cell, str) and "\r" in cell for cell in cells)
        (quoting_writer if has_return else writer).writerow(cells)
    return buffer.getvalue()


def prediction(
    path: str,
    classes: Sequence[str | int | float],
    probabilities: NDArray[np.float32],
    ood_score: float,
    is_unknown: bool | None,
) -> dict[str, Any]:
    """Return the entry of one image in JSON, from its probabilities (C,) of the classes.

    ``is_unknown`` is None without a threshold for the score.
    """
    return {
        "path": path,
        "label": classes[int(probabilities.argmax())],
        "most_probable": classes[int(probabilities.argmax())],
        "probability": float(probabilities.max()),
        "ood_score": float(ood_score),
        "is_unknown": is_unknown,
        "probabilities": dict(zip(map(str, classes), map(float, probabilities), strict=True)),
    }


def label_unknown(predictions: Iterable[dict[str, Any]]) -> None:
    """Replace the labels of rejected images; their entries ``most_probable`` keep the class."""
    for row in predictions:
        row["label"] = UNKNOWN if row["is_unknown"] else row["label"]


def emit_predictions(
    predictions: Sequence[Mapping[str, Any]],
    about: Mapping[str, Any],
    csv_file: str | None,
    json_file: str | None,
    lines: Iterable[str],
    *,
    jsonl_file: str | None = None,
    parquet_file: Path | None = None,
) -> None:
    """Write predictions to files, and print ``lines`` unless standard output is for one of these.

    ``predictions`` come from :func:`prediction`; all may have an entry ``set``, a list of labels. ``about`` is added to
    the JSON.
    """
    header = [*PREDICTION_COLUMNS, *(["set"] if "set" in predictions[0] else [])]
    if csv_file:
        write_csv(csv_file, header, [[row[name] for name in header] for row in predictions])
    if jsonl_file:
        _write(jsonl_file, json_lines(predictions))
    if parquet_file:
        write_parquet(parquet_file, predictions, force=True)
    is_taken = is_standard_output(csv_file) or is_standard_output(jsonl_file)
    emit([] if is_taken else lines, {"predictions": predictions, **about}, json_file)


def _check_result(target: str | None) -> None:
    if target is None or is_standard_output(target) or _is_stream(target):
        return
    path = Path(target)
    check_output(path, force=True)
    if os.path.exists(path) and not _is_earlier_result(path):
        raise SotglpError(f"{path} exists and is not a result of sotglp: give another name")


def _is_stream(target: str) -> bool:
    """Whether a target is a pipe or a character device, such as /dev/null or that of ``>(program)`` in a shell."""
    try:
        mode = os.stat(target).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def _is_earlier_result(path: Path) -> bool:
    if is_parquet(path):
        return True
    try:
        text = path.read_text(encoding="utf-8")
        if text.startswith(",".join(PREDICTION_COLUMNS[:4])):
            return True
        return is_json_lines(text) or "sotglp" in json.loads(text)["versions"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _write(target: str, content: bytes) -> None:
    if is_standard_output(target):
        write_result(content.decode())
        return
    if _is_stream(target):
        _write_stream(target, content)
        return
    _check_result(target)
    write_file(Path(target), lambda beside: beside.write_bytes(content), force=True)


def _write_stream(target: str, content: bytes) -> None:
    """Write to a pipe or device that somebody reads; opening a pipe that nobody reads would wait for ever."""
    try:
        with open(os.open(target, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0)), "wb") as stream:
            if hasattr(os, "set_blocking"):  # Windows has no named pipes
                os.set_blocking(stream.fileno(), True)
            stream.write(content)
    except OSError as error:
        reason = "nobody reads it" if error.errno == errno.ENXIO else os_reason(error)
        raise SotglpError(f"{target} can't be written ({reason}): give the name of a file") from error


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
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        value = "; ".join(map(str, value))
    return spreadsheet_text(value) if isinstance(value, str) else value
