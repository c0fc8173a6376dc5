"""Compare a dataset on disk with its published size."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sotglp.datasets.entry import Entry, Splits
from sotglp.datasets.split_file import OtherSplitWarning
from sotglp.errors import SotglpError, SotglpWarning
from sotglp.files.atomic import os_reason


@dataclass(frozen=True)
class Finding:
    """Result of `check`, with the numbers of classes and images of each part, as found and as published.

    ``found`` if the folder exists, ``complete`` if it can be read and nothing is missing; sentences on what is missing
    or damaged (``problems``), and on what isn't as published (``warnings``).
    """

    name: str
    found: bool
    complete: bool
    n_classes: int | None
    counts: Mapping[str, int]
    expected_classes: int
    expected_counts: Mapping[str, int]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


def check(entry: Entry, root: Path) -> Finding:
    """Read a dataset and compare it with its published size, without opening images.

    A missing or damaged dataset is a problem in the result, not an error. Warnings are caught process-wide, so don't
    call it while other threads run.
    """
    splits: Splits | None = None
    problems: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            splits = entry.load(root)
        except SotglpError as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(f"{error.filename} can't be read ({os_reason(error)}); check its permissions")
    own = [warning for warning in caught if issubclass(warning.category, SotglpWarning)]
    counts: dict[str, int] = {}
    if splits:
        counts = _counts(splits)
        other_split = any(issubclass(warning.category, OtherSplitWarning) for warning in own)
        problems += _differences(entry, len(splits.classes), counts, other_split)
    return Finding(
        name=entry.name,
        found=splits is not None or os.path.isdir(entry.path(root)),
        complete=not problems,
        n_classes=len(splits.classes) if splits else None,
        counts=counts,
        expected_classes=entry.n_classes,
        expected_counts=dict(entry.counts),
        problems=tuple(problems),
        warnings=tuple(str(warning.message) for warning in own),
    )


def _counts(splits: Splits) -> dict[str, int]:
    parts = {"train": splits.train, "val": splits.val, "test": splits.test}
    return {part: len(images) for part, images in parts.items() if images is not None}


def _differences(entry: Entry, n_classes: int, counts: Mapping[str, int], other_split: bool) -> list[str]:
    problems = []
    if n_classes != entry.n_classes:
        problems.append(f"{n_classes} classes instead of {entry.n_classes}")
    if other_split:
        # Another split has the same images in other parts, or more images; with fewer, some are missing.
        found, expected = sum(counts.values()), sum(entry.counts.values())
        if found < expected:
            problems.append(f"{found} images, fewer than the {expected} of the published split")
    else:
        problems += [
            f"{part} has {counts.get(part, 0)} images instead of {expected}"
            for part, expected in entry.counts.items()
            if counts.get(part, 0) != expected
        ]
    return problems
