"""The images of a suite: what each place that it names holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sotglp import datasets
from sotglp.benchmark.suite import DatasetChoice
from sotglp.datasets.entry import Splits
from sotglp.errors import SotglpError
from sotglp.images.image_set import ImageSet


@dataclass(frozen=True)
class Material:
    """A dataset of a suite, read.

    Attributes
    ----------
    classes : tuple of str
        Class names.
    train, test : ImageSet
        Labelled images.
    ood : mapping
        Images of no class, by name.
    shift, transfer : mapping
        Labelled images of the same and of other classes, by name.
    """

    classes: tuple[str, ...]
    train: ImageSet
    test: ImageSet
    ood: Mapping[str, ImageSet] = field(default_factory=dict)
    shift: Mapping[str, Splits] = field(default_factory=dict)
    transfer: Mapping[str, Splits] = field(default_factory=dict)

    def digest(self, root: Path) -> str:
        """A digest of which images there are, by their place below ``root``, and how they are labelled."""
        sets = {
            "train": self.train,
            "test": self.test,
            **{f"ood {name}": images for name, images in self.ood.items()},
            **{f"shift {name}": splits.test for name, splits in self.shift.items()},
            **{f"transfer {name}": splits.test for name, splits in self.transfer.items()},
        }
        told = {name: [_places(images, root), images.labels] for name, images in sets.items()}
        return hashlib.sha256(json.dumps([self.classes, told], sort_keys=True).encode()).hexdigest()


def read_material(name: str, choice: DatasetChoice, root: Path) -> Material:
    """Read everything that a dataset of a suite is made of.

    Parameters
    ----------
    name : str
        The dataset's name in the suite.
    choice : DatasetChoice
        What the suite says of it.
    root : Path
        The data root that places are below.

    Raises
    ------
    SotglpError
        If a place is not there, or holds something else than the suite says.
    """
    if (choice.train is None) != (choice.test is None):
        raise SotglpError(f"the dataset {name} needs train and test in the suite file, or neither: add the other one")
    if choice.train is None or choice.test is None:
        known = datasets.find(name).load(root)
        if known.train is None:
            raise SotglpError(f"{name} has no images to train on: name it under ood, shift or transfer")
        classes, train, test = known.classes, known.train, known.test
    else:
        train, test = (ImageSet.from_path(root / place) for place in (choice.train, choice.test))
        classes = train.classes
    ood = {label: _images_of_no_class(place, root) for label, place in choice.ood.items()}
    shift = {label: _labelled(place, root) for label, place in choice.shift.items()}
    transfer = {label: _labelled(place, root) for label, place in choice.transfer.items()}
    return Material(classes, train, test, ood, shift, transfer)


def _images_of_no_class(place: str, root: Path) -> ImageSet:
    if place in datasets.names():
        return datasets.find(place).load(root).test
    path = root / place
    return ImageSet.from_manifest(path) if path.is_file() else ImageSet.from_flat_folder(path)


def _labelled(place: str, root: Path) -> Splits:
    if place in datasets.names():
        return datasets.find(place).load(root)
    images = ImageSet.from_path(root / place)
    return Splits(images.classes, images)


def _places(images: ImageSet, root: Path) -> list[str]:
    return [
        str(image.relative_to(root)) if isinstance(image, Path) and image.is_relative_to(root) else images.name(index)
        for index, image in enumerate(images.images)
    ]
