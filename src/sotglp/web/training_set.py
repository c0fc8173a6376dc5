"""The classes and images that the page trains on, in a temporary folder."""

from __future__ import annotations

import itertools
import tempfile
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sotglp.errors import UnreadableImageError
from sotglp.images.image_set import ImageSet
from sotglp.web.class_names import new_class_name
from sotglp.web.limits import MEGABYTE, Limits, RefusalError, TooLargeError


@dataclass(frozen=True)
class TrainingImage:
    """An image: the name that was sent, the digest of that file, and the kept picture of ``n_bytes``."""

    id: int
    name: str
    digest: bytes
    path: Path
    n_bytes: int

    @property
    def thumbnail(self) -> Path:
        """A small JPEG of the picture."""
        return self.path.with_suffix(".jpg")


@dataclass
class TrainingClass:
    """A class and its images."""

    id: int
    name: str
    images: list[TrainingImage] = field(default_factory=list)


@dataclass(frozen=True)
class Snapshot:
    """The classes and images at one time; ``names`` are the sent names of the images by their paths."""

    revision: int
    classes: tuple[str, ...]
    images: ImageSet
    names: dict[Path, str]

    @property
    def chance(self) -> float:
        """Accuracy of always answering the largest class."""
        return max(Counter(self.images.labels).values()) / len(self.images)


class TrainingSet:
    """Classes and images, which requests change one after the other; ``revision`` counts the changes.

    Files of removed images stay until :meth:`sweep`, since a training or a report may still read them.
    """

    def __init__(self, limits: Limits) -> None:
        self.classes: list[TrainingClass] = []
        self.revision = 0
        self._limits = limits
        self._ids = itertools.count(1)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._removed: list[TrainingImage] = []

    def add_class(self, name: str) -> TrainingClass:
        """Add a class without images; RefusalError 422 for an unusable name, 409 if there are too many classes."""
        name = new_class_name(name, (one.name for one in self.classes))
        if len(self.classes) >= self._limits.max_added_classes:
            raise RefusalError(409, f"there are the allowed {self._limits.max_added_classes} classes: remove one first")
        added = TrainingClass(next(self._ids), name)
        self.classes.append(added)
        self.revision += 1
        return added

    def rename_class(self, class_id: int, name: str) -> None:
        """Rename a class; errors are those of :meth:`add_class` and :meth:`find_class`."""
        found = self.find_class(class_id)
        name = new_class_name(name, (one.name for one in self.classes if one is not found))
        if name != found.name:
            found.name = name
            self.revision += 1

    def remove_class(self, class_id: int) -> None:
        """Remove a class with its images; RefusalError 404 if it is gone."""
        found = self.find_class(class_id)
        self.classes.remove(found)
        self._removed += found.images
        self.revision += 1

    def find_class(self, class_id: int) -> TrainingClass:
        """Return a class; RefusalError 404 if it is gone."""
        for one in self.classes:
            if one.id == class_id:
                return one
        raise RefusalError(404, f"there is no class with the id {class_id}: see /training")

    def find_image(self, image_id: int) -> tuple[TrainingClass, TrainingImage]:
        """Return an image and its class; RefusalError 404 if it is gone."""
        for one in self.classes:
            for image in one.images:
                if image.id == image_id:
                    return one, image
        raise RefusalError(404, f"there is no image with the id {image_id}: see /training")

    def remove_image(self, image_id: int) -> None:
        """Remove an image; RefusalError 404 if it is gone."""
        owner, image = self.find_image(image_id)
        owner.images.remove(image)
        self._removed.append(image)
        self.revision += 1

    def check_room(self, n: int) -> None:
        """Raise TooLargeError if ``n`` more images exceed the limits."""
        most = self._limits.max_training_images
        if sum(len(one.images) for one in self.classes) + n > most:
            raise TooLargeError(f"the page trains on at most {most} images: send fewer, or remove some first")
        used = sum(image.n_bytes for one in self.classes for image in one.images)
        if used + sum(image.n_bytes for image in self._removed) >= self._limits.max_training_bytes:
            allowed = f"{self._limits.max_training_bytes / MEGABYTE:g} MB"
            raise TooLargeError(f"the images take the allowed {allowed}: remove some first, and train again")

    def new_path(self) -> Path:
        """Return a free name for a picture."""
        # Some systems remove files from the temporary folder after days.
        if self._folder is None or not Path(self._folder.name).is_dir():
            self._folder = tempfile.TemporaryDirectory(prefix="sotglp-", ignore_cleanup_errors=True)
        return Path(self._folder.name, f"{next(self._ids)}.png")

    def add_image(self, class_id: int, name: str, digest: bytes, path: Path) -> TrainingImage:
        """Add a picture that was written to ``path`` from a file with this digest.

        Raises
        ------
        UnreadableImageError
            If a class has the same file already: a copy in another fold would make the accuracy look better.
        RefusalError
            404 if the class is gone, 413 if there is no room.
        """
        found = self.find_class(class_id)
        self.check_room(1)
        for one in self.classes:
            if any(image.digest == digest for image in one.images):
                raise UnreadableImageError(name, f"the class {one.name!r} has the same image already; leave it out")
        image = TrainingImage(next(self._ids), name, digest, path, path.stat().st_size)
        found.images.append(image)
        self.revision += 1
        return image

    def snapshot(self) -> Snapshot:
        """Return the set for a training; RefusalError 422 if there are fewer than two classes, or an empty one."""
        if len(self.classes) < 2:
            raise RefusalError(422, "training needs two classes or more: add a class")
        if empty := [one.name for one in self.classes if not one.images]:
            raise RefusalError(422, f"the class {empty[0]!r} has no images: add some, or remove the class")
        pairs = [(image, one.name) for one in self.classes for image in one.images]
        return Snapshot(
            self.revision,
            tuple(one.name for one in self.classes),
            ImageSet(tuple(image.path for image, _ in pairs), tuple(name for _, name in pairs)),
            {image.path: image.name for image, _ in pairs},
        )

    def sweep(self, in_use: Collection[Path]) -> None:
        """Delete the files of removed images that are not in use."""
        kept = []
        for image in self._removed:
            if image.path in in_use:
                kept.append(image)
            else:
                remove_picture(image.path)
        self._removed = kept

    def close(self) -> None:
        """Delete all files."""
        if self._folder:
            self._folder.cleanup()


def remove_picture(path: Path) -> None:
    """Delete a picture and its thumbnail, if they exist."""
    for file in (path, path.with_suffix(".jpg")):
        with suppress(OSError):
            file.unlink()
