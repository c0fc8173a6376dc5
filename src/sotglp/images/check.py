"""Checks of labelled images before training: unreadable images, copies, class sizes."""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from PIL import Image

from sotglp.errors import SotglpError, SotglpWarning, UnreadableImageError, some_names
from sotglp.images.arrays import is_tensor
from sotglp.images.decode import open_image
from sotglp.images.digest import content_digest
from sotglp.images.image_set import ImageSet
from sotglp.images.near_duplicates import Hashes
from sotglp.images.stored import StoredImage
from sotglp.images.survey import is_dark, is_nearly_uniform, warn_of_uniform, with_own_ranges

T = TypeVar("T")

UNEVEN = 10
"""Class sizes are uneven where the largest class has at least this many times the images of the smallest."""


@dataclass(frozen=True)
class Copies:
    """At least two images with the same content: their indices in the set, and their different labels, sorted."""

    indices: tuple[int, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class SetFinding:
    """Result of :func:`check_set`.

    ``counts`` are the readable images of each class, sorted by class name, ``unreadable`` the errors by image index,
    ``copies`` the groups of readable images with the same content, by first index, ``uniform`` and ``dark`` the indices
    of images that are nearly uniform or dark after decoding, and ``hashes`` those of the other readable images, by
    index.
    """

    counts: dict[str, int]
    unreadable: dict[int, UnreadableImageError]
    copies: tuple[Copies, ...]
    uniform: tuple[int, ...]
    dark: tuple[int, ...] = ()
    hashes: Mapping[int, Hashes] = field(default_factory=dict, repr=False, compare=False)

    @property
    def is_valid(self) -> bool:
        """Whether all images are readable and no image is in two classes."""
        return not self.unreadable and all(len(group.labels) == 1 for group in self.copies)

    @property
    def singleton_classes(self) -> list[str]:
        """Classes with at most one readable image."""
        return [name for name, count in self.counts.items() if count < 2]

    @property
    def uneven(self) -> bool:
        """Whether class sizes differ by a factor of at least ``UNEVEN``; False if a class has no readable image."""
        return max(self.counts.values()) >= UNEVEN * min(self.counts.values()) > 0


def check_set(images: ImageSet) -> SetFinding:
    """Decode all labelled images, count them by class and find copies; raise SotglpError if there are no labels."""
    if images.labels is None:
        raise SotglpError("the images have no labels to check; give class folders or a manifest with a column label")
    unreadable, looks = _decode(images, _Look.at)
    readable = [index for index in range(len(images)) if index not in unreadable]
    counts = Counter(images.labels[index] for index in readable)
    copies = find_copies(images, readable)
    return SetFinding(
        {name: counts[name] for name in images.classes},
        unreadable,
        copies,
        tuple(i for i, look in looks.items() if look.is_uniform),
        tuple(i for i, look in looks.items() if look.is_dark),
        # Of a uniform image, a hash is noise.
        {i: look.hashes for i, look in looks.items() if look.hashes is not None},
    )


@dataclass(frozen=True)
class _Look:
    """What a decoded picture looks like; a uniform one has no hashes."""

    is_uniform: bool
    is_dark: bool
    hashes: Hashes | None

    @classmethod
    def at(cls, picture: Image.Image) -> _Look:
        if is_nearly_uniform(picture):
            return cls(True, False, None)
        return cls(False, is_dark(picture), Hashes.of(picture))


def find_copies(images: ImageSet, indices: Iterable[int]) -> tuple[Copies, ...]:
    """Return the groups of labelled images with the same content among some of a set; unreadable files are skipped."""
    labels = images.labels or ()
    by_content: dict[str, list[int]] = defaultdict(list)
    for index in indices:
        with suppress(UnreadableImageError):
            by_content[content_digest(images.images[index])].append(index)
    return tuple(
        Copies(tuple(group), tuple(sorted({labels[index] for index in group})))
        for group in by_content.values()
        if len(group) > 1
    )


def warn_of_two_labels(images: ImageSet) -> None:
    """Warn of labelled images with the same content and different labels."""
    if images.labels is None:
        return
    groups = [group for group in find_copies(images, range(len(images))) if len(group.labels) > 1]
    if groups:
        more = f", and {len(groups) - 1} more images have two labels" if len(groups) > 1 else ""
        warnings.warn(
            f"the same image has two labels, so one is wrong: {describe_copies(images, groups[0])}{more}; correct or "
            "remove them, `sotglp data check` lists all",
            SotglpWarning,
            stacklevel=3,
        )


def describe_copies(images: ImageSet, copies: Copies) -> str:
    """Return the names of images with the same content, each with its label."""
    labels = images.labels or ()
    return some_names([f"{images.name(index)} ({labels[index]})" for index in copies.indices])


def _decode(images: ImageSet, look: Callable[[Image.Image], T]) -> tuple[dict[int, UnreadableImageError], dict[int, T]]:
    """Decode every image in threads; return the errors and what ``look`` returns, by index. Tensors are left out."""

    def finding(index: int) -> UnreadableImageError | T | None:
        source = images.images[index]
        if is_tensor(source) or isinstance(source, StoredImage):
            return None
        try:
            return look(open_image(source, images.ranges))
        except UnreadableImageError as error:
            return UnreadableImageError(images.name(index), error.reason)

    with ThreadPoolExecutor() as pool:
        found = dict(enumerate(pool.map(finding, range(len(images)))))
    unreadable = {i: one for i, one in found.items() if isinstance(one, UnreadableImageError)}
    return unreadable, {i: one for i, one in found.items() if one is not None and i not in unreadable}  # type: ignore[misc]


def readable_images(images: ImageSet, unreadable: list[UnreadableImageError] | None = None) -> ImageSet:
    """Return the labelled images that can be decoded, so that training doesn't fail after an hour.

    They have ranges for gray of more than 8 bits; see :func:`sotglp.images.survey.with_own_ranges`. Warn of images that
    are nearly uniform after decoding.
    The errors of the others are appended to ``unreadable``; None raises the first. Raise a SotglpError if no image of a
    class can be decoded.
    """
    images = with_own_ranges(images)
    found, is_uniform = _decode(images, is_nearly_uniform)
    warn_of_uniform(images, [i for i, one in is_uniform.items() if one])
    if not found:
        return images
    if unreadable is None:
        raise next(iter(found.values()))
    unreadable.extend(found.values())
    kept = [index for index in range(len(images)) if index not in found]
    if lost := sorted(set(images.classes) - {(images.labels or ())[index] for index in kept}):
        raise SotglpError(f"no image of the class {lost[0]!r} can be read; add readable images or remove the class")
    return images.take(kept)
