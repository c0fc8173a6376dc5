"""What is known of a published dataset: where it lies, what it holds, how it is split, and how to get it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sotglp.errors import SotglpError
from sotglp.images.image_set import ImageSet

Role = Literal["few-shot", "shift", "ood"]


@dataclass(frozen=True)
class Splits:
    """Images of a dataset as its protocol splits them; labels are class names as prompts say them.

    Attributes
    ----------
    classes : tuple of str
        Class names in the dataset's own order; none for images that are only there to be out-of-distribution.
    test : ImageSet
        Images to test on.
    train, val : ImageSet or None
        Images to train on and to choose settings by, where the dataset has such.
    """

    classes: tuple[str, ...]
    test: ImageSet
    train: ImageSet | None = None
    val: ImageSet | None = None


@dataclass(frozen=True)
class Entry:
    """A published dataset.

    Attributes
    ----------
    name, title : str
        As suites spell it, and as papers do.
    role : {"few-shot", "shift", "ood"}
        What it is for: to train and test on; to test a model of ImageNet on; to be told from ImageNet.
    folder : str
        Its folder below the data root, as CoOp's users have it.
    n_classes : int
        Classes of the published split; 0 without labels.
    counts : mapping
        Images of each part of the published split, where the number is certain.
    source : str
        Where to get it.
    terms : str
        Under which terms, in one sentence.
    layout : tuple of str
        What must lie in ``folder``, as people are shown it.
    read : callable
        Reads that folder; raises SotglpError with what is missing or wrong.
    download : callable or None
        Fetches the dataset into the data root, where torchvision can.
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

    def place(self, root: Path) -> Path:
        """Folder of the dataset below a data root, whether it is there or not."""
        return root / self.folder

    def load(self, root: Path) -> Splits:
        """Read the dataset below a data root.

        Raises
        ------
        SotglpError
            If it is not there, or not as it should be.
        """
        path = self.place(root)
        if not path.is_dir():
            how = f"`sotglp data prepare {self.name}` fetches it" if self.download else f"get it from {self.source}"
            raise SotglpError(f"there is no {self.title} in {path}: {how}, or give another data root")
        return self.read(path)
