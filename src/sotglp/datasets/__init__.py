"""Published datasets in the folder layouts of CoOp and torchvision."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from sotglp.datasets import imagenet, list_files, torchvision_layouts
from sotglp.datasets.class_folders import caltech101_parts, eurosat_parts
from sotglp.datasets.entry import Entry, Role, Splits
from sotglp.datasets.parts import Parts
from sotglp.datasets.split_file import read_published
from sotglp.errors import UnknownNameError
from sotglp.files.packaged import read_packaged
from sotglp.images.image_set import ImageSet

ROOT_VARIABLE = "SOTGLP_DATA"

_DRAWN = "half of each class is drawn for training and a fifth for validation"
_OTHER = "its official split is read, which differs from the published one"
_NO_VALIDATION = "its official split is read: the published test images, with the validation images in train"


def _other_split(clause: str, read: Callable[[Path], Parts], folder: Path) -> tuple[str, Parts]:
    return clause, read(folder)


def _other_split_of_sun397(folder: Path) -> tuple[str, Parts]:
    if (folder / "Training_01.txt").is_file():
        return _NO_VALIDATION, list_files.sun397_parts(folder)
    return _DRAWN, torchvision_layouts.sun397_parts(folder)


_WITHOUT_SPLIT_FILE: dict[str, Callable[[Path], tuple[str, Parts]]] = {
    "caltech101": partial(_other_split, _DRAWN, caltech101_parts),
    "oxford_pets": partial(_other_split, _NO_VALIDATION, torchvision_layouts.oxford_pets_parts),
    "stanford_cars": partial(_other_split, _NO_VALIDATION, torchvision_layouts.stanford_cars_parts),
    "flowers102": partial(_other_split, _OTHER, torchvision_layouts.flowers102_parts),
    "food101": partial(_other_split, _OTHER, torchvision_layouts.food101_parts),
    "sun397": _other_split_of_sun397,
    "dtd": partial(_other_split, _OTHER, torchvision_layouts.dtd_parts),
    "eurosat": partial(_other_split, _DRAWN, eurosat_parts),
    "ucf101": partial(_other_split, _NO_VALIDATION, list_files.ucf101_parts),
}

_READERS: dict[str, Callable[[Path], Splits]] = {
    "imagenet": imagenet.read_imagenet,
    "imagenetv2": imagenet.read_imagenetv2,
    "imagenet_sketch": imagenet.read_imagenet_sketch,
    "imagenet_a": imagenet.read_imagenet_a,
    "imagenet_r": imagenet.read_imagenet_r,
    "fgvc_aircraft": list_files.read_fgvc_aircraft,
}


def _read_unlabelled(folder: Path) -> Splits:
    return Splits((), test=ImageSet.from_flat_folder(folder))


def _entry(name: str, row: dict[str, Any]) -> Entry:
    read = _READERS.get(name, _read_unlabelled)
    if name in _WITHOUT_SPLIT_FILE:
        read = partial(
            read_published,
            split_file=row.pop("split_file"),
            images=tuple(row.pop("images")),
            otherwise=_WITHOUT_SPLIT_FILE[name],
        )
    download = row.pop("download", None)
    fetch = partial(torchvision_layouts.fetch, **download) if download else None
    return Entry(name=name, read=read, download=fetch, **row)


ENTRIES: dict[str, Entry] = {
    name: _entry(name, row) for name, row in read_packaged("datasets", "dataset", "entries").items()
}
"""Every dataset by name, ordered by role."""


def names(role: Role | None = None) -> list[str]:
    """Return the names of the datasets of one role, or of all."""
    return [name for name, entry in ENTRIES.items() if role in (None, entry.role)]


def find(name: str) -> Entry:
    """Return a dataset by name; raise UnknownNameError if there is none of that name."""
    if name not in ENTRIES:
        raise UnknownNameError("dataset", name, ENTRIES)
    return ENTRIES[name]


def data_root(chosen: Path | None = None) -> Path:
    """Return the folder of the datasets: the chosen one, $SOTGLP_DATA, or data."""
    return chosen or Path(os.environ.get(ROOT_VARIABLE) or "data")
