"""Sets of images that are checked together: the splits in a folder, or one set."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from sotglp.errors import SotglpWarning, some_names
from sotglp.images.columns import Columns
from sotglp.images.image_set import ImageSet
from sotglp.images.layout import FolderLayoutError, is_split


def read_sets(path: Path, columns: Columns) -> dict[Path, ImageSet]:
    """Read a folder of class folders or a manifest, or each split in a folder such as photos/train and photos/test.

    Warn of folders beside the splits, which are left out. Raise a SotglpError as :meth:`ImageSet.from_path` does.
    """
    try:
        return {path: ImageSet.from_path(path, columns)}
    except FolderLayoutError:
        folders = sorted(entry.name for entry in os.scandir(path) if entry.is_dir() and not entry.name.startswith("."))
        splits = [name for name in folders if is_split(name)]
        if len(splits) < 2:
            raise
    if others := [name for name in folders if name not in splits]:
        warnings.warn(
            f"{path} holds splits ({some_names(splits)}); folders beside them are not checked: {some_names(others)}",
            SotglpWarning,
            stacklevel=2,
        )
    return {path / name: ImageSet.from_path(path / name) for name in splits}
