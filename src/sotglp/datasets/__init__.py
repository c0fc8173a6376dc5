"""Published datasets in the layouts that people have on their disks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

from sotglp.datasets import few_shot, imagenet_family, ood_sets
from sotglp.datasets.entry import Entry, Role
from sotglp.errors import UnknownNameError

ENTRIES: dict[str, Entry] = {
    entry.name: entry
    for role in get_args(Role)
    for entry in (*imagenet_family.ENTRIES, *few_shot.ENTRIES, *ood_sets.ENTRIES)
    if entry.role == role
}
"""Every dataset by its name, in the order of lists: those to train on, ImageNet's relatives, those of no class."""

ROOT_VARIABLE = "SOTGLP_DATA"


def names(role: Role | None = None) -> list[str]:
    """Names of the datasets, of one role or of all."""
    return [name for name, entry in ENTRIES.items() if role in (None, entry.role)]


def find(name: str) -> Entry:
    """The dataset of that name.

    Raises
    ------
    UnknownNameError
        If there is none.
    """
    if name not in ENTRIES:
        raise UnknownNameError("dataset", name, ENTRIES)
    return ENTRIES[name]


def data_root(chosen: Path | None = None) -> Path:
    """Folder that the datasets lie in: as chosen, or $SOTGLP_DATA, or data."""
    return chosen or Path(os.environ.get(ROOT_VARIABLE) or "data")
