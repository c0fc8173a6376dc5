"""The published split of a dataset where its file is there, and another one with a warning where it isn't."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

from sotglp.datasets.class_folders import first_folder
from sotglp.datasets.entry import Splits
from sotglp.datasets.parts import Parts, splits_of
from sotglp.datasets.split_file import GUIDE, read_split_file
from sotglp.errors import SotglpError, SotglpWarning

DRAWN = "its images are split by a draw of our own"
OTHER = "its official split is read, which is not the published one"
UNDIVIDED = "its official split is read, with the published test images but those for validation among train"


class OtherSplitWarning(SotglpWarning):
    """A dataset is read by another split than the one that results are published for."""


def read_published(
    folder: Path, *, split_file: str, images: tuple[str, ...], otherwise: Callable[[Path], Parts], instead: str
) -> Splits:
    """Read the published split of a dataset, or what there is instead.

    Parameters
    ----------
    folder : Path
        The dataset's folder.
    split_file : str
        Name of the file in it with the published split.
    images : tuple of str
        Places below it where the images of that file may lie; the first that is there is taken.
    otherwise : callable
        Reads the parts of the dataset from its folder if there is no such file.
    instead : str
        What those parts are, for the warning.

    Raises
    ------
    SotglpError
        If the dataset is broken, or there is neither the file nor what there could be instead.

    Warns
    -----
    OtherSplitWarning
        If there is no such file.
    """
    if (folder / split_file).is_file():
        return read_split_file(folder / split_file, first_folder(folder, images))
    try:
        splits = splits_of(otherwise(folder), folder)
    except SotglpError as error:
        raise SotglpError(f"{folder} has no {split_file} (see {GUIDE}), and without it {error}") from error
    warnings.warn(
        f"{folder} has no {split_file}, so {instead}: numbers are not comparable with published ones "
        f"until that file lies there (see {GUIDE})",
        OtherSplitWarning,
        stacklevel=2,
    )
    return splits
