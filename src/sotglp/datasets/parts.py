"""The parts of a dataset (train, val, test): checked and turned into splits, or drawn where nothing defines them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from sotglp.datasets.entry import Splits
from sotglp.errors import SotglpError, some_names
from sotglp.images.image_set import ImageSet
from sotglp.images.labels import prompt_name

Sample: TypeAlias = tuple[Path, int, str]
"""An image file, its class number, and the name of that class."""

Parts: TypeAlias = Mapping[str, Sequence[Sample]]
"""Samples of train and test, and of val where a dataset has it."""

_SEED = 1
_TRAIN_SHARE, _VAL_SHARE = 0.5, 0.2


def splits_of(parts: Parts, source: Path) -> Splits:
    """Check the parts that ``source`` lists and order the classes by number; names get spaces for underscores."""
    if empty := [part for part, samples in parts.items() if not samples]:
        raise SotglpError(f"{source} has no images for {some_names(empty)}; download the dataset again")
    names = _class_names(parts, source)
    known = {number for _, number, _ in parts["train"]}
    for part, samples in parts.items():
        if extra := sorted({names[number] for _, number, _ in samples if number not in known}):
            raise SotglpError(
                f"{source} has classes in {part} without training images: {some_names(extra)}; "
                "remove them or download the dataset again"
            )
    images = [image for samples in parts.values() for image, _, _ in samples]
    if missing := [image for image in images if not os.path.isfile(image)]:
        raise SotglpError(
            f"{source} lists {len(missing)} of {len(images)} images that do not exist, the first {missing[0]}; "
            "unpack the images again"
        )
    sets = {
        part: ImageSet(tuple(image for image, _, _ in samples), tuple(names[number] for _, number, _ in samples))
        for part, samples in parts.items()
    }
    return Splits(tuple(names.values()), test=sets["test"], train=sets["train"], val=sets.get("val"))


def draw_parts(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    """Draw half of each class for train and a fifth for val; the rest is for test.

    The published splits have these shares, but were drawn with another generator. The order of ``samples`` must not
    depend on the file system.
    """
    by_class: dict[int, list[Sample]] = {}
    for sample in samples:
        by_class.setdefault(sample[1], []).append(sample)
    parts: dict[str, list[Sample]] = {"train": [], "val": [], "test": []}
    for number, members in sorted(by_class.items()):
        n_train, n_val = round(len(members) * _TRAIN_SHARE), round(len(members) * _VAL_SHARE)
        if not (n_val and n_train + n_val < len(members)):
            raise SotglpError(
                f"class {members[0][2]!r} has only {len(members)} images, too few for train, val and test; "
                "download the dataset again"
            )
        # One generator a class, so that images added to a class don't change the draw from the others.
        order = np.random.default_rng((_SEED, number)).permutation(len(members))
        drawn = np.split(order, [n_train, n_train + n_val])
        for part, positions in zip(parts.values(), drawn, strict=True):
            part += [members[position] for position in sorted(positions)]
    return parts


def _class_names(parts: Parts, source: Path) -> dict[int, str]:
    """Class names by ascending number; each number has one name and each name one number."""
    pairs = {(number, prompt_name(name)) for samples in parts.values() for _, number, name in samples}
    names: dict[int, str] = {}
    numbers: dict[str, int] = {}
    for number, name in sorted(pairs):
        if number in names:
            raise SotglpError(
                f"{source} has two names for class {number}, {names[number]!r} and {name!r}; download the dataset again"
            )
        if name in numbers:
            raise SotglpError(
                f"{source} has the name {name!r} for two classes, {numbers[name]} and {number}; "
                "download the dataset again"
            )
        names[number] = name
        numbers[name] = number
    return names
