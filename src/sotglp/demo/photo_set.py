"""The photographs of the demo: groceries in eight classes, and other things; ``photos/NOTICE`` has their sources."""

from __future__ import annotations

import os
import shutil
from functools import partial
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from sotglp.errors import SotglpError
from sotglp.files.atomic import os_reason, place_file
from sotglp.images.image_set import ImageSet

TRAIN, TEST, UNKNOWN = "train", "test", "unknown"
"""Folders: shots and test photos in a folder for each class, and photos of none of the classes."""


class PhotoSets(NamedTuple):
    """Labelled training photos, labelled test photos of other shops, and photos of none of the classes."""

    train: ImageSet
    test: ImageSet
    unknown: ImageSet


def packaged_photos() -> Path:
    """Return the folder of the photographs in the package."""
    return Path(str(resources.files("sotglp") / "demo" / "photos"))


def load_photos(root: Path) -> PhotoSets:
    """List the photographs of a folder that is laid out as :func:`packaged_photos` is."""
    train, test = (ImageSet.from_class_folders(root / part) for part in (TRAIN, TEST))
    return PhotoSets(train, test, ImageSet.from_flat_folder(root / UNKNOWN))


def copy_photos(target: Path) -> None:
    """Copy the photographs and their licences, replacing files of the same names."""
    source = packaged_photos()
    for file in sorted(path for path in source.rglob("*") if os.path.isfile(path)):
        path = target / file.relative_to(source)
        try:
            place_file(path, partial(shutil.copyfile, file), force=True, durable=False)
        except OSError as error:
            raise SotglpError(f"{path} can't be written ({os_reason(error)}): free disk space") from error
