"""The folder that a demo writes: its file names, and checks before the work."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from sotglp.errors import SotglpError
from sotglp.files.atomic import check_output

MODEL = "model.safetensors"
PHOTOS = "photos"
RESULT = "result.json"


def check_folder(out: Path, names: Iterable[str], *, force: bool) -> None:
    """Check that a folder can be written and, unless ``force`` is set, contains no output of a demo.

    Parameters
    ----------
    out : Path
        The folder, which need not exist.
    names : iterable of str
        Files that the demo writes there, besides images below ``PHOTOS``.
    force : bool
        Existing files are replaced.

    Raises
    ------
    SotglpError
        If a file is in the way, or can't be written.
    """
    photos = out / PHOTOS
    for folder in (out, photos):
        if os.path.exists(folder) and not os.path.isdir(folder):
            raise SotglpError(f"{folder} is a file: choose another folder")
    for name in names:
        check_output(out / name, force=force)
    if os.path.exists(photos) and not force:
        raise SotglpError(f"{photos} exists: choose another folder, or --force (force=True) to replace photos in it")
