"""Read the JSON record in the header of a safetensors file, without torch."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from sotglp.errors import SotglpError

METADATA_KEY = "sotglp"
MAX_HEADER_BYTES = 16 * 2**20


@contextmanager
def open_tensor_file(path: Path, kind: str, framework: str) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Open a safetensors file that sotglp wrote and yield the handle and the file's record.

    ``kind`` names the file in messages. ``framework`` is "pt" or, without importing torch, "numpy".
    """
    # Unlike path.is_file(), os.path.isfile returns False for a name that is too long for the file system.
    if not os.path.isfile(path):
        raise SotglpError(f"there is no {kind} {path}")
    try:
        check_header_length(path, kind)
        with safe_open(path, framework=framework, device="cpu") as file:
            metadata = file.metadata() or {}
            if METADATA_KEY not in metadata:
                raise SotglpError(
                    f"{path} is a safetensors file, but no {kind} of sotglp: give one that `sotglp fit` wrote"
                )
            record = json.loads(metadata[METADATA_KEY])
            if not isinstance(record, dict):
                raise SotglpError(f"{path} can't be read as a {kind}: its record is damaged")
            check_json_values(record, f"{path} can't be read as a {kind}: its record is damaged")
            yield file, record
    # The record's JSON may be nested deeper than Python reads.
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        if isinstance(error, SotglpError):
            raise
        if isinstance(error, PermissionError):
            raise SotglpError(f"{path} can't be read ({error.strerror}): check its permissions") from error
        reason = str(error)[:200]
        raise SotglpError(f"{path} can't be read as a {kind}: it is damaged or something else ({reason})") from error


def check_json_values(record: Mapping[str, Any], subject: str) -> None:
    """Refuse what JSON of Python reads but sotglp never writes: NaN, infinity and halves of surrogate pairs."""
    pending: list[tuple[str, Any]] = [("", record)]
    while pending:
        where, value = pending.pop()
        if isinstance(value, dict):
            pending += ((f"{where}.{key}" if where else key, item) for key, item in value.items())
            pending += ((where, key) for key in value)
        elif isinstance(value, list):
            pending += ((f"{where}.{index}", item) for index, item in enumerate(value))
        elif isinstance(value, float) and not math.isfinite(value):
            raise SotglpError(f"{subject} ({where} is {value})")
        elif isinstance(value, str) and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise SotglpError(f"{subject} ({where} has text that isn't Unicode)") from None


def read_json_record(path: Path, kind: str) -> dict[str, Any]:
    """Read the record of a safetensors file; see :func:`open_tensor_file`."""
    with open_tensor_file(path, kind, "numpy") as (_, record):
        return record


def check_header_length(path: Path, kind: str) -> None:
    """Refuse a safetensors file whose header is longer than MAX_HEADER_BYTES, before it is parsed."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > MAX_HEADER_BYTES:
        raise SotglpError(
            f"{path} can't be read as a {kind}: its header would have {length} bytes, and {MAX_HEADER_BYTES} is the "
            "most that is read; it is damaged or something else"
        )
