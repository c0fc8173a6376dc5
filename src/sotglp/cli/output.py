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

from sotglp.errors import SotglpError
from sotglp.files import check_output, write_file
from sotglp.printable import printable

if TYPE_CHECKING:
    from sotglp.images import UnreadableImageError

STANDARD_OUTPUT = "-"


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
    from sotglp.modelfile import installed_versions

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
        if text.startswith("path,label,probability,ood_score"):
            return True
        return "sotglp" in json.loads(text)["versions"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
