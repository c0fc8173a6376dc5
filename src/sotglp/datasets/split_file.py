"""The published splits of the few-shot benchmarks: CoOp's split files (split_zhou_*.json).

Zhou et al., arXiv 2109.01134, and DATASETS.md of their repository.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sotglp.datasets.class_folders import first_folder
from sotglp.datasets.entry import Splits
from sotglp.datasets.parts import Parts, Sample, splits_of
from sotglp.errors import SotglpError, SotglpWarning, short_repr
from sotglp.files.regular import read_regular

GUIDE = "https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md"
"""Page that links to the split files."""


class OtherSplitWarning(SotglpWarning):
    """A dataset is read by another split than the published one."""


def read_published(
    folder: Path,
    *,
    split_file: str,
    images: tuple[str, ...],
    otherwise: Callable[[Path], tuple[str, Parts]],
) -> Splits:
    """Read the published split of a dataset or, with an OtherSplitWarning if its split file is missing, another one.

    Images are in the first of the folders ``images`` that exists. ``otherwise`` returns a clause for the warning and
    the parts.
    """
    if (folder / split_file).is_file():
        return read_split_file(folder / split_file, first_folder(folder, images))
    try:
        instead, parts = otherwise(folder)
        splits = splits_of(parts, folder)
    except SotglpError as error:
        raise SotglpError(f"{folder} has no {split_file} (see {GUIDE}), and without it {error}") from error
    warnings.warn(
        f"{folder} has no {split_file}, so {instead}: results are not comparable with published ones; "
        f"download that file (see {GUIDE})",
        OtherSplitWarning,
        stacklevel=2,
    )
    return splits


def read_split_file(path: Path, images: Path) -> Splits:
    """Read JSON with the lists "train", "val" and "test" of [image file below ``images``, class number, class name]."""
    content = _read_json(path)
    if not isinstance(content, dict):
        raise SotglpError(f"{path} isn't a split file with the lists train, val and test; download it (see {GUIDE})")
    return splits_of({part: _samples(content, part, path, images) for part in ("train", "val", "test")}, path)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(read_regular(path))
    except OSError as error:
        raise SotglpError(f"{path} can't be opened ({error.strerror}); check the path") from error
    except RecursionError as error:
        raise SotglpError(f"{path} is JSON that is nested too deeply; download it again (see {GUIDE})") from error
    except ValueError as error:
        raise SotglpError(f"{path} can't be read as JSON ({error}); download it again (see {GUIDE})") from error


def _samples(content: dict[str, Any], part: str, path: Path, images: Path) -> list[Sample]:
    rows = content.get(part)
    if not isinstance(rows, list):
        raise SotglpError(f"{path} has no list {part!r}; download it again (see {GUIDE})")
    samples = []
    for index, row in enumerate(rows):
        match row:
            case [str(file), int(number), str(name)]:
                samples.append((images / file, number, name))
            case _:
                raise SotglpError(
                    f"{path} has {short_repr(row)} as entry {index} of {part} instead of a path, a number and a class "
                    f"name; download it again (see {GUIDE})"
                )
    return samples
