"""Download a dataset."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from sotglp.datasets.entry import Entry
from sotglp.errors import SotglpError
from sotglp.files.atomic import os_reason


def check_obtainable(entry: Entry, root: Path) -> None:
    """Raise SotglpError with the dataset's source and layout if it neither exists nor can be downloaded."""
    if entry.download is None and not os.path.isdir(entry.path(root)):
        raise SotglpError(
            f"{entry.title} can't be downloaded automatically: get it at {entry.source} and put it in "
            f"{entry.path(root)}, with the layout {', '.join(entry.layout)}"
        )


def prepare(entry: Entry, root: Path) -> bool:
    """Download a dataset unless its folder exists; return whether it was downloaded.

    It is downloaded into a hidden folder and renamed at the end, so that an interrupted download is never read.
    """
    check_obtainable(entry, root)
    if entry.download is None or os.path.exists(entry.path(root)):
        return False
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{entry.name}.", dir=root) as beside:
            entry.download(Path(beside))
            os.rename(Path(beside) / entry.folder, root / entry.folder)
    except OSError as error:
        raise SotglpError(
            f"{entry.title} can't be written to {entry.path(root)} ({os_reason(error)}): "
            "choose a writable data root with enough space"
        ) from error
    return True
