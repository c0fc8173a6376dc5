"""Pictures as files: the same picture gives the same bytes."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from sotglp.errors import SotglpError
from sotglp.files.atomic import write_file

UNNAMED: dict[str, dict[str, None]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None},
    ".pdf": {"CreationDate": None},
}
"""Endings of picture files, and what would make two files of one picture differ: dates and versions."""


def check_ending(path: Path) -> None:
    """Refuse a name that doesn't say which kind of picture it is of.

    Raises
    ------
    SotglpError
        If it ends otherwise than the kinds that can be written.
    """
    if path.suffix.lower() not in UNNAMED:
        raise SotglpError(f"{path} must end in {', '.join(UNNAMED)}, which says what kind of picture is written")


def save_figure(figure: Figure, path: Path, *, force: bool) -> None:
    """Write a picture as PNG, SVG or PDF, as the name ends.

    Raises
    ------
    SotglpError
        If the name ends otherwise, ``path`` exists and ``force`` is off, or the disk refuses the write.
    """
    check_ending(path)
    ending = path.suffix.lower()
    # Random names of an SVG's parts would make each one another.
    with mpl.rc_context({"svg.hashsalt": "sotglp"}):
        write_file(
            path,
            lambda beside: figure.savefig(beside, format=ending[1:], dpi="figure", metadata=UNNAMED[ending]),
            force=force,
        )
