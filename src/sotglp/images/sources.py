"""Images as users name them to ``sotglp predict``: files, folders, manifests, patterns, addresses, standard input."""

from __future__ import annotations

import atexit
import glob
import os
import re
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from sotglp.errors import SotglpError, SotglpWarning
from sotglp.images.columns import Columns
from sotglp.images.folders import describe_left_out, read_flat_folder
from sotglp.images.formats import HEAD_BYTES, ending, format_of, is_image_file
from sotglp.images.manifest import ANY_COLUMNS, MANIFEST_SUFFIXES, read_manifest
from sotglp.images.paths import find_file, is_remote, local_path

STANDARD_INPUT = "-"

_CONTROL = re.compile("[\0-\x08\x0e-\x1f]")

_MOST_INPUT = 64 * 2**20
"""Bytes on standard input: an image, or the names of half a million files."""

_temporary: set[str] = set()
"""Files with images from standard input."""


def find_images(names: Sequence[str | os.PathLike[str]], columns: Columns = ANY_COLUMNS) -> tuple[Path, ...]:
    """Return the image files that the user names, in order.

    A name is a file, a folder of images, a manifest, a pattern such as ``photos/*.jpg`` that the shell left as it is, a
    file:// address, or ``-`` for standard input: an image, or a list of any of these, one a line or separated by NUL.
    ``columns`` chooses rows and columns of manifests. Raise a SotglpError about a name without images.
    """
    listed: list[str] = []
    images: list[Path] = []
    texts = [os.fspath(name) for name in names]
    for position, given in enumerate(texts):
        if given != STANDARD_INPUT or os.path.exists(given):
            listed.append(local_path(given))
            continue
        if STANDARD_INPUT in texts[position + 1 :]:
            raise SotglpError("standard input (-) can be read once; give - once")
        listed += _standard_input()
    for name in listed:
        images += _named(name, columns)
    if columns != ANY_COLUMNS and not any(_is_manifest(name) for name in listed):
        raise SotglpError("--split and --path-column are for manifests; give one, or leave them out")
    return tuple(images)


def display_name(path: str) -> str:
    """Return the name of an image file for people: "-" for an image from standard input."""
    return STANDARD_INPUT if path in _temporary else path


def _is_manifest(name: str) -> bool:
    """Whether a name is that of a manifest, not of a folder or a pattern that matches manifests."""
    is_pattern = glob.has_magic(name) and not os.path.exists(name)
    return Path(name).suffix.lower() in MANIFEST_SUFFIXES and not os.path.isdir(name) and not is_pattern


def _named(name: str, columns: Columns) -> Sequence[Path]:
    path = Path(name)
    if os.path.isdir(path):
        return read_flat_folder(path)
    if _is_manifest(name):
        return read_manifest(path, columns, with_labels=False)[0]
    if os.path.exists(path):
        return (path,)
    if is_remote(name):
        raise SotglpError(f"{name[:200]} is an address; download the image, and give its path")
    if not glob.has_magic(name):
        return (find_file(Path(), name) or path,)
    matches = sorted(Path(match) for match in glob.glob(name, recursive=True))
    images = [match for match in matches if os.path.isfile(match) and is_image_file(match)]
    left_out = Counter(ending(match.name) for match in set(matches) - set(images) if os.path.isfile(match))
    if not images:
        found = f" ({describe_left_out(left_out)})" if left_out else ""
        what = "matches folders, but no image" if matches and not left_out else f"matches no image{found}"
        raise SotglpError(f"the pattern {name} {what}; check it")
    if left_out:
        warnings.warn(f"of the pattern {name}, {describe_left_out(left_out)}", SotglpWarning, stacklevel=3)
    return images


def _standard_input() -> list[str]:
    """Return the names that standard input lists, or that of a temporary file with the image that it holds."""
    if sys.stdin is None or sys.stdin.isatty():
        raise SotglpError("- reads standard input, which is a terminal; redirect an image, or a list of images")
    content = sys.stdin.buffer.read(_MOST_INPUT + 1)
    if len(content) > _MOST_INPUT:
        raise SotglpError(f"standard input has more than {_MOST_INPUT} bytes; give a file or a manifest")
    if format_of(content[:HEAD_BYTES]) is not None:
        folder = tempfile.mkdtemp(prefix="sotglp-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        image = Path(folder, "standard-input")
        image.write_bytes(content)
        _temporary.add(str(image))
        return [str(image)]
    separator = b"\0" if b"\0" in content[:65536] else b"\n"
    lines = [os.fsdecode(line.strip(b"\r\n")) for line in content.removeprefix(b"\xef\xbb\xbf").split(separator)]
    names = [local_path(name) for name in lines if name.strip()]
    if not names:
        raise SotglpError("standard input is empty; give an image, or a list of images, one a line")
    if any(_CONTROL.search(name) for name in names):
        raise SotglpError("standard input is neither an image in a supported format nor a list of images")
    if STANDARD_INPUT in names:
        raise SotglpError("the list on standard input names itself (-); leave that line out")
    return names
