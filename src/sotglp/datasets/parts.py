"""The parts of a dataset, as any list of them gives them, checked and turned into splits."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from sotglp.datasets.entry import Splits
from sotglp.errors import SotglpError, some_names
from sotglp.images.image_set import ImageSet
from sotglp.images.labels import prompt_name

Sample: TypeAlias = tuple[Path, int, str]
"""An image file, the number of its class, and the name of that class."""

Parts: TypeAlias = Mapping[str, Sequence[Sample]]
"""The samples of train and test, and of val where a dataset has it."""


def splits_of(parts: Parts, source: Path) -> Splits:
    """Check the parts of a dataset and put its classes in the order of their numbers.

    Parameters
    ----------
    parts : mapping
        Samples of "train" and "test", and of "val" or not.
    source : Path
        The file or folder that they are from, for messages.

    Returns
    -------
    Splits
        Labels and classes are as prompts say them: without underscores.

    Raises
    ------
    SotglpError
        If a part is empty, a class of val or test is none of train's, numbers and names of classes don't pair off, or
        an image isn't there.
    """
    if empty := [part for part, samples in parts.items() if not samples]:
        raise SotglpError(f"{source} has no images for {some_names(empty)}; get the dataset again")
    names = _class_names(parts, source)
    known = {number for _, number, _ in parts["train"]}
    for part, samples in parts.items():
        if extra := sorted({names[number] for _, number, _ in samples if number not in known}):
            raise SotglpError(
                f"{source} has classes in {part} that train has no images of: {some_names(extra)}; "
                "remove them or get the dataset again"
            )
    images = [image for samples in parts.values() for image, _, _ in samples]
    if missing := [image for image in images if not os.path.isfile(image)]:
        raise SotglpError(
            f"{source} lists {len(missing)} of {len(images)} images that are not there, the first {missing[0]}; "
            "unpack the images again"
        )
    sets = {
        part: ImageSet(tuple(image for image, _, _ in samples), tuple(names[number] for _, number, _ in samples))
        for part, samples in parts.items()
    }
    return Splits(tuple(names.values()), test=sets["test"], train=sets["train"], val=sets.get("val"))


def _class_names(parts: Parts, source: Path) -> dict[int, str]:
    """Names of the classes by number, in its order; every number has one name and every name one number."""
    pairs = {(number, prompt_name(name)) for samples in parts.values() for _, number, name in samples}
    names: dict[int, str] = {}
    numbers: dict[str, int] = {}
    for number, name in sorted(pairs):
        if number in names:
            raise SotglpError(
                f"{source} gives class {number} two names, {names[number]!r} and {name!r}; get the dataset again"
            )
        if name in numbers:
            raise SotglpError(
                f"{source} gives classes {numbers[name]} and {number} the same name {name!r}; get the dataset again"
            )
        names[number] = name
        numbers[name] = number
    return names
