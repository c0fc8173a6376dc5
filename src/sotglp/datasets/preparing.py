"""Getting a dataset, where it isn't there yet."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from sotglp.datasets.entry import Entry
from sotglp.errors import SotglpError
from sotglp.files.atomic import os_reason


def check_obtainable(entry: Entry, root: Path) -> None:
    """Find out whether a dataset is there or could be downloaded.

    Raises
    ------
    SotglpError
        If neither; it says where to get the dataset and what must lie where.
    """
    if entry.download is None and not entry.place(root).is_dir():
        raise SotglpError(
            f"{entry.title} can't be downloaded by itself: get it from {entry.source} and put it in "
            f"{entry.place(root)} so that there are {', '.join(entry.layout)}"
        )


def prepare(entry: Entry, root: Path) -> bool:
    """Download a dataset unless its folder is there.

    It is fetched into a hidden folder beside its place and moved there when it is whole, so a download that was cut
    off is never taken for the dataset.

    Parameters
    ----------
    entry : Entry
        The dataset.
    root : Path
        The data root; it is made if it is missing.

    Returns
    -------
    bool
        Whether it was downloaded now.

    Raises
    ------
    SotglpError
        If it can't be downloaded, the download fails, or the disk refuses it.
    """
    check_obtainable(entry, root)
    if entry.download is None or entry.place(root).exists():
        return False
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{entry.name}.", dir=root) as beside:
            entry.download(Path(beside))
            os.rename(Path(beside) / entry.folder, root / entry.folder)
    except OSError as error:
        raise SotglpError(
            f"{entry.title} can't be put in {entry.place(root)} ({os_reason(error)}): "
            "choose a data root that you may write to and that has room"
        ) from error
    return True
