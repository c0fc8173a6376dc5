"""Image files as tables and users name them: addresses, backslashes, composed and decomposed names."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path, PurePath
from urllib.parse import unquote

from sotglp.images.labels import INVISIBLE

_FILE_URL = re.compile(r"file:/*(?:localhost(?=/))?", re.IGNORECASE)
# One slash is left of two where an address was made a path.
_REMOTE = re.compile(r"(?:https?|ftp|s3|gs|gcs|hf|az|abfss?|hdfs)://?[^/]|data:image/", re.IGNORECASE)


def is_remote(text: str) -> bool:
    """Whether text is the address of something on the network, or holds the image itself."""
    return _REMOTE.match(text) is not None


def local_path(text: str) -> str:
    """Return the path of a file:// address, or the text itself."""
    address = _FILE_URL.match(text)
    if address is None or address.end() == len(text) or os.path.exists(text):
        return text
    path = unquote(text[address.end() :])
    return "/" + path.lstrip("/") if os.sep == "/" else path


def find_file(folder: Path, name: str) -> Path | None:
    """Return the file that a name means, relative to a folder, or None.

    Backslashes may stand for slashes, and an accent may be part of its letter (NFC) or follow it (NFD, as macOS writes
    names): that is tried if there is no file of exactly this name.
    """
    name = local_path(name)
    slashed = name.replace("\\", "/")
    for tried in (name, slashed, unicodedata.normalize("NFC", slashed), unicodedata.normalize("NFD", slashed)):
        if os.path.isfile(folder / tried):
            return folder / tried
    if slashed.isascii():
        return None
    found = _walk(folder, slashed, lambda entry, part: _composed(entry) == _composed(part))
    return found if found is not None and os.path.isfile(found) else None


def why_missing(folder: Path, name: str) -> str:
    """Return what is odd about a name without a file, or the file that was probably meant; "" if nothing is known."""
    if found := INVISIBLE.search(name):
        return f", which has the invisible character U+{ord(found[0]):04X}"
    if os.path.isdir(folder / name):
        return ", which is a folder"
    near = _walk(folder, local_path(name).replace("\\", "/"), _is_near)
    if near is None:
        near = _walk(folder, PurePath(name.replace("\\", "/")).name, _is_near)
    return f" (did you mean {near.relative_to(folder) if near.is_relative_to(folder) else near}?)" if near else ""


def _walk(folder: Path, name: str, is_same: Callable[[str, str], bool]) -> Path | None:
    """Return the only path below a folder whose parts are equal to those of a name, or the same."""
    current = folder
    for part in PurePath(name).parts:
        if os.path.exists(current / part):
            current = current / part
            continue
        try:
            entries = [entry for entry in os.listdir(current) if is_same(entry, part)]
        except (OSError, ValueError):
            return None
        if len(entries) != 1:
            return None
        current = current / entries[0]
    return current


def _is_near(entry: str, part: str) -> bool:
    """Whether names differ by letter case, spaces around them, or an ending that the second one lacks."""
    first, second = _composed(entry).casefold(), _composed(part).strip("'\" ").casefold()
    return second in (first, os.path.splitext(first)[0])


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)
