"""What is wrong with labelled images before anything is learned from them, without a backbone."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

from sotglp.errors import SotglpError, UnreadableImageError
from sotglp.images.digest import content_digest
from sotglp.images.image_set import ImageSet
from sotglp.images.readable import find_unreadable

UNEVEN = 10
"""The largest class is that many times the smallest: worth a word."""


@dataclass(frozen=True)
class Copies:
    """Images with the same content.

    Attributes
    ----------
    indices : tuple of int
        Their positions in the set, at least two.
    labels : tuple of str
        Their different labels, sorted; more than one is an error in the labels.
    """

    indices: tuple[int, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class SetFinding:
    """What was found of a set of labelled images.

    Attributes
    ----------
    counts : dict of str to int
        Images of each class that can be read, 0 where none can; classes are sorted by name.
    unreadable : dict of int to UnreadableImageError
        What is wrong with images that can't be read, by their positions.
    copies : tuple of Copies
        Groups of readable images with the same bytes, in the order of their first ones.
    """

    counts: dict[str, int]
    unreadable: dict[int, UnreadableImageError]
    copies: tuple[Copies, ...]

    @property
    def is_valid(self) -> bool:
        """Whether all images can be read and none stands in two classes."""
        return not self.unreadable and all(len(group.labels) == 1 for group in self.copies)

    @property
    def singleton_classes(self) -> list[str]:
        """Classes with a single readable image, or none."""
        return [name for name, count in self.counts.items() if count < 2]

    @property
    def uneven(self) -> bool:
        """Whether the largest class has at least ``UNEVEN`` times the images of the smallest, and that has any."""
        return max(self.counts.values()) >= UNEVEN * min(self.counts.values()) > 0


def check_set(images: ImageSet) -> SetFinding:
    """Decode all images, count them by class, and find those with the same content.

    Parameters
    ----------
    images : ImageSet
        Labelled images.

    Raises
    ------
    SotglpError
        If the images have no labels.
    """
    if images.labels is None:
        raise SotglpError("the images have no labels to check: give class folders or a manifest with a column label")
    unreadable = find_unreadable(images)
    readable = [index for index in range(len(images)) if index not in unreadable]
    counts = Counter(images.labels[index] for index in readable)
    same: dict[str, list[int]] = defaultdict(list)
    for index in readable:
        same[content_digest(images.images[index])].append(index)
    return SetFinding(
        {name: counts[name] for name in images.classes},
        unreadable,
        tuple(
            Copies(tuple(group), tuple(sorted({images.labels[index] for index in group})))
            for group in same.values()
            if len(group) > 1
        ),
    )
