"""Figures as files: the same figure gives the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sotglp.errors import SotglpError
from sotglp.files.atomic import write_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METADATA: dict[str, dict[str, None]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None},
    ".pdf": {"CreationDate": None},
}
"""Suffixes of figures, and the metadata (dates and versions) that are left out of each."""


def check_suffix(path: Path) -> None:
    """Check that a name has the suffix of a supported format."""
    if path.suffix.lower() not in METADATA:
        raise SotglpError(f"{path} must end in {', '.join(METADATA)}, which selects the format")


def save_figure(figure: Figure, path: Path, *, force: bool) -> None:
    """Write a figure as PNG, SVG or PDF, depending on the suffix."""
    import matplotlib as mpl

    check_suffix(path)
    suffix = path.suffix.lower()
    # A fixed salt keeps the ids in an SVG the same.
    with mpl.rc_context({"svg.hashsalt": "sotglp"}):
        write_file(
            path,
            lambda beside: figure.savefig(beside, format=suffix[1:], dpi="figure", metadata=METADATA[suffix]),
            force=force,
        )
