"""One published dataset: its folder, size, source and terms, and how it is read and downloaded."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from sotglp.errors import SotglpError
from sotglp.images.image_set import ImageSet

Role = Literal["few-shot", "shift", "ood"]


@plain_dataclass(frozen=True)
class Splits:
    """Images of a dataset as its protocol splits them, labelled by the class names of prompts.

    Attributes
    ----------
    classes : tuple of str
        Class names in the dataset's order; empty for out-of-distribution images.
    test : ImageSet
        Test images.
    train, val : ImageSet or None
        Training and validation images, if the dataset has any.
    """

    classes: tuple[str, ...]
    test: ImageSet
    train: ImageSet | None = None
    val: ImageSet | None = None


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Entry:
    """A published dataset.

    Attributes
    ----------
    name, title : str
        Name in suites, and title in papers.
    role : {"few-shot", "shift", "ood"}
        Training and test set; test set of ImageNet's classes; out-of-distribution set.
    folder : str
        Folder below the data root, in the layout of CoOp's DATASETS.md.
    other_folders : tuple of str
        Folders that are read where ``folder`` doesn't exist, first to last.
    n_classes : int
        Classes of the published split; 0 without labels.
    counts : mapping
        Images of each part of the published split.
    source, terms : str
        Page to get the dataset from, and its terms of use.
    layout : tuple of str
        What ``folder`` must contain, as glob patterns.
    read : callable
        Reads the splits from the dataset's folder.
    download : callable or None
        Downloads the dataset into a data root; None where torchvision can't.
    """

    name: str
    title: str
    role: Role
    folder: str
    n_classes: int
    counts: Mapping[str, int]
    source: str
    terms: str
    layout: tuple[str, ...]
    read: Callable[[Path], Splits]
    download: Callable[[Path], None] | None = None
    other_folders: tuple[str, ...] = ()

    def path(self, root: Path) -> Path:
        """Return the dataset's folder below a data root: the first that exists, or ``folder``."""
        paths = [root / folder for folder in (self.folder, *self.other_folders)]
        return next((path for path in paths if os.path.isdir(path)), paths[0])

    def load(self, root: Path) -> Splits:
        """Read the dataset below a data root; raise SotglpError if it is missing, incomplete or damaged."""
        path = self.path(root)
        if not os.path.isdir(path):
            how = f"download it with `sotglp data prepare {self.name}`" if self.download else f"get it at {self.source}"
            raise SotglpError(f"{path} does not exist, so {self.title} can't be read: {how}, or set another data root")
        return self.read(path)
