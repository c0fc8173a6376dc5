"""The images of a dataset in a suite."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sotglp import datasets
from sotglp.benchmark.suite import DatasetChoice
from sotglp.datasets.entry import Splits
from sotglp.errors import SotglpError
from sotglp.images.image_set import ImageSet


@dataclass(frozen=True)
class BenchmarkData:
    """Images of a dataset in a suite.

    Attributes
    ----------
    classes : tuple of str
        Class names.
    train, test : ImageSet
        Labelled images.
    ood : mapping
        Out-of-distribution images, by name.
    shift, transfer : mapping
        Labelled images of the same classes in another style, and of other classes, by name.
    """

    classes: tuple[str, ...]
    train: ImageSet
    test: ImageSet
    ood: Mapping[str, ImageSet] = field(default_factory=dict)
    shift: Mapping[str, Splits] = field(default_factory=dict)
    transfer: Mapping[str, Splits] = field(default_factory=dict)

    def digest(self, root: Path) -> str:
        """Return a digest of labels and of image paths relative to ``root``."""
        sets = {
            "train": self.train,
            "test": self.test,
            **{f"ood {name}": images for name, images in self.ood.items()},
            **{f"shift {name}": splits.test for name, splits in self.shift.items()},
            **{f"transfer {name}": splits.test for name, splits in self.transfer.items()},
        }
        listed = {name: [_paths(images, root), images.labels] for name, images in sets.items()}
        return hashlib.sha256(json.dumps([self.classes, listed], sort_keys=True).encode()).hexdigest()


def load_data(name: str, choice: DatasetChoice, root: Path) -> BenchmarkData:
    """Load a dataset of a suite, with paths relative to ``root``."""
    if (choice.train is None) != (choice.test is None):
        raise SotglpError(f"the dataset {name} in the suite file has only one of train and test: give both, or neither")
    if choice.train is None or choice.test is None:
        known = datasets.find(name).load(root)
        if known.train is None:
            raise SotglpError(f"{name} has no images to train on: name it under ood, shift or transfer")
        classes, train, test = known.classes, known.train, known.test
    else:
        train, test = (ImageSet.from_path(root / path) for path in (choice.train, choice.test))
        classes = train.classes
    ood = {label: _unlabelled(source, root) for label, source in choice.ood.items()}
    shift = {label: _labelled(source, root) for label, source in choice.shift.items()}
    transfer = {label: _labelled(source, root) for label, source in choice.transfer.items()}
    return BenchmarkData(classes, train, test, ood, shift, transfer)


def _unlabelled(source: str, root: Path) -> ImageSet:
    if source in datasets.names():
        return datasets.find(source).load(root).test
    path = root / source
    return ImageSet.from_manifest(path) if os.path.isfile(path) else ImageSet.from_flat_folder(path)


def _labelled(source: str, root: Path) -> Splits:
    if source in datasets.names():
        return datasets.find(source).load(root)
    images = ImageSet.from_path(root / source)
    return Splits(images.classes, images)


def _paths(images: ImageSet, root: Path) -> list[str]:
    return [
        str(image.relative_to(root)) if isinstance(image, Path) and image.is_relative_to(root) else images.name(index)
        for index, image in enumerate(images.images)
    ]
