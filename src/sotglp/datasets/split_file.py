"""The split files of CoOp (split_zhou_*.json): the published parts of the few-shot benchmarks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sotglp.datasets.entry import Splits
from sotglp.datasets.parts import Sample, splits_of
from sotglp.errors import SotglpError, short_repr
from sotglp.files.regular import read_regular

GUIDE = "https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md"
"""Page that links to the split files."""


def read_split_file(path: Path, images: Path) -> Splits:
    """Read the train, validation and test images that a split file lists.

    Parameters
    ----------
    path : Path
        JSON with the lists "train", "val" and "test" of [image file, number of its class, name of its class].
    images : Path
        Folder that the image files are relative to.

    Raises
    ------
    SotglpError
        If the file can't be read or isn't such JSON, a list is missing or empty, an image isn't there, a class of val
        or test is none of train's, or numbers and names of classes don't pair off.

    References
    ----------
    Zhou et al., arXiv 2109.01134, and DATASETS.md of their repository.
    """
    content = _read_json(path)
    if not isinstance(content, dict):
        raise SotglpError(f"{path} is no split file, which has the lists train, val and test; get it from {GUIDE}")
    return splits_of({part: _samples(content, part, path, images) for part in ("train", "val", "test")}, path)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(read_regular(path))
    except OSError as error:
        raise SotglpError(f"{path} can't be opened ({error.strerror}); check the path") from error
    except RecursionError as error:
        raise SotglpError(f"{path} is JSON that is nested too deeply; get it again from {GUIDE}") from error
    except ValueError as error:
        raise SotglpError(f"{path} can't be read as JSON ({error}); get it again from {GUIDE}") from error


def _samples(content: dict[str, Any], part: str, path: Path, images: Path) -> list[Sample]:
    rows = content.get(part)
    if not isinstance(rows, list):
        raise SotglpError(f"{path} has no list {part!r}; get it again from {GUIDE}")
    samples = []
    for index, row in enumerate(rows):
        match row:
            case [str(file), int(number), str(name)]:
                samples.append((images / file, number, name))
            case _:
                raise SotglpError(
                    f"{path} has {short_repr(row)} as entry {index} of {part} instead of a path, a number and a class "
                    f"name; get it again from {GUIDE}"
                )
    return samples
