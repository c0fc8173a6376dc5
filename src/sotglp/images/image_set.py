"""A set of images, labelled or not, from folders, a manifest or memory."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import TypeIs

from sotglp.errors import SotglpError, some_names
from sotglp.images.folders import read_class_folders, read_flat_folder
from sotglp.images.labels import class_names
from sotglp.images.manifest import MANIFEST_SUFFIXES, read_manifest

if TYPE_CHECKING:
    import torch

ImageSource: TypeAlias = "Path | Image.Image | torch.Tensor"
"""An image file, a PIL image, or a (3, H, W) row of a tensor."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images in a fixed order and, where they are known, their labels.

    Parameters
    ----------
    images : tuple of Path, PIL.Image.Image or torch.Tensor
        The images, unopened; tensors are (3, H, W), uint8 for raw pixels or float32 for preprocessed ones.
    labels : tuple of str, or None
        Label of each image; None if they are unknown.

    Raises
    ------
    SotglpError
        If there are no images, or not as many labels as images.
    """

    images: tuple[ImageSource, ...]
    labels: tuple[str, ...] | None = None
    # Where the images stood in the set they were taken from, so that a message numbers them as the user does.
    _numbers: tuple[int, ...] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.images:
            raise SotglpError("there are no images; give at least one")
        if self.labels is not None and len(self.labels) != len(self.images):
            raise SotglpError(
                f"there are {len(self.images)} images but {len(self.labels)} labels; give one label for each image"
            )

    @classmethod
    def from_path(cls, path: str | os.PathLike[str]) -> ImageSet:
        """Read a folder with class folders, or a manifest.

        Parameters
        ----------
        path : str or os.PathLike
            A folder (see `from_class_folders`) or a .csv or .parquet file (see `from_manifest`).

        Raises
        ------
        SotglpError
            If it is neither, or its content isn't as described there.
        """
        path = Path(path)
        if os.path.isfile(path):
            if path.suffix.lower() not in MANIFEST_SUFFIXES:
                raise SotglpError(
                    f"{path} is neither a folder nor a manifest; give a folder, a .csv or a .parquet file"
                )
            return cls.from_manifest(path)
        return cls.from_class_folders(path)

    @classmethod
    def from_class_folders(cls, root: str | os.PathLike[str]) -> ImageSet:
        """Read labelled images from root/<class name>/**/image.jpg.

        The folders' names are the labels as they stand. Classes are sorted by name, the images of a class by relative
        path. Hidden files, what operating systems leave behind, and files that don't end like images are ignored.

        Parameters
        ----------
        root : str or os.PathLike
            The folder that holds the class folders.

        Raises
        ------
        SotglpError
            If there is no such folder, or no class folder with an image in it.

        Warns
        -----
        SotglpWarning
            If a class folder has no images, or images lie beside the class folders; both are left out.
        """
        return cls(*read_class_folders(Path(root)))

    @classmethod
    def from_flat_folder(cls, root: str | os.PathLike[str]) -> ImageSet:
        """Read all images below a folder without labels, sorted by relative path.

        Parameters
        ----------
        root : str or os.PathLike
            The folder; images in its subfolders count, what `from_class_folders` ignores doesn't.

        Raises
        ------
        SotglpError
            If there is no such folder or no image in it.
        """
        return cls(read_flat_folder(Path(root)))

    @classmethod
    def from_manifest(cls, path: str | os.PathLike[str]) -> ImageSet:
        """Read a CSV or Parquet table with the columns path and label, in the order of its rows.

        Parameters
        ----------
        path : str or os.PathLike
            The table; see `sotglp.images.manifest.read_manifest`. Without a column label the images are unlabelled.

        Raises
        ------
        SotglpError
            If the table can't be read or a row of it is incomplete or names a file that isn't there.
        """
        return cls(*read_manifest(Path(path)))

    @classmethod
    def from_items(cls, images: Any, labels: Any = None) -> ImageSet:
        """Take images that are in memory, or a list of paths.

        Parameters
        ----------
        images : sequence of paths or PIL images, torch.Tensor or numpy.ndarray
            A tensor or array of numbers has the shape (B, 3, H, W): uint8 for raw pixels, floating point for images
            that are preprocessed already (kept as float32).
        labels : array-like, optional
            Label of each image: text, bytes or a whole number.

        Raises
        ------
        SotglpError
            If images or labels are of another kind, or not as many.
        """
        numbers = is_tensor(images) or (isinstance(images, np.ndarray) and images.dtype.kind not in "OUS")
        return cls(_rows(images) if numbers else _items(images), None if labels is None else class_names(labels))

    @property
    def classes(self) -> tuple[str, ...]:
        """The different labels, sorted (as numpy.unique sorts them)."""
        return tuple(sorted(set(self._known_labels())))

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def take(self, indices: Sequence[int] | NDArray[Any]) -> ImageSet:
        """Select images.

        Parameters
        ----------
        indices : sequence of int
            Positions of the images to keep, in the order wanted, or a mask of as many bools as there are images.

        Raises
        ------
        SotglpError
            If no image is left.
        """
        kept = np.arange(len(self))[np.asarray(indices, dtype=None if len(indices) else np.int64)].tolist()
        labels = self.labels
        numbers = self._numbers
        return ImageSet(
            tuple(self.images[i] for i in kept),
            None if labels is None else tuple(labels[i] for i in kept),
            tuple(kept) if numbers is None else tuple(numbers[i] for i in kept),
        )

    def name(self, i: int) -> str:
        """Name an image in a message: its path, or "image 3" (counted from 0 in the set that was read)."""
        image = self.images[i]
        if isinstance(image, Path):
            return str(image)
        return f"image {i if self._numbers is None else self._numbers[i]}"

    def targets(self, classes: Sequence[str]) -> NDArray[np.int64]:
        """Number the labels by their position among the classes.

        Parameters
        ----------
        classes : sequence of str
            Class names, C of them.

        Returns
        -------
        numpy.ndarray of int64, shape (len(self),)
            Values from 0 to C - 1.

        Raises
        ------
        SotglpError
            If the images have no labels, or a label is not among the classes.
        """
        labels = self._known_labels()
        position = {name: k for k, name in enumerate(classes)}
        if unknown := Counter(label for label in labels if label not in position):
            raise SotglpError(
                f"{unknown.total()} of {len(self)} images have labels that are not among the {len(classes)} classes: "
                f"{some_names(sorted(unknown))}; rename these labels or leave the images out"
            )
        return np.array([position[label] for label in labels], dtype=np.int64)

    def _known_labels(self) -> tuple[str, ...]:
        if self.labels is None:
            raise SotglpError("the images have no labels; give class folders or a manifest with a column label")
        return self.labels


def is_tensor(value: object) -> TypeIs[torch.Tensor]:
    """Whether a value is a torch tensor, without importing torch where nothing else has."""
    if "torch" not in sys.modules:
        return False
    import torch

    return isinstance(value, torch.Tensor)


def _rows(images: torch.Tensor | NDArray[Any]) -> tuple[torch.Tensor, ...]:
    whole = str(images.dtype).endswith("uint8")
    floating = images.is_floating_point() if is_tensor(images) else images.dtype.kind == "f"
    if images.ndim != 4 or images.shape[1] != 3 or not (whole or floating):
        shape = tuple(images.shape)
        raise SotglpError(
            f"the images are numbers of type {images.dtype} and shape {shape}; give uint8 or floating point numbers "
            "of shape (B, 3, H, W)"
        )
    import torch

    if isinstance(images, torch.Tensor):
        return images.detach().to("cpu", torch.uint8 if whole else torch.float32).unbind()
    return torch.from_numpy(np.require(images, np.uint8 if whole else np.float32, ["C", "W"])).unbind()


def _items(images: Any) -> tuple[Path | Image.Image, ...]:
    if isinstance(images, str | bytes | os.PathLike | Image.Image) or not isinstance(images, Iterable):
        raise SotglpError(f"the images are one {type(images).__name__}; give a list of paths or of PIL images")
    items: list[Path | Image.Image] = []
    for i, item in enumerate(images):
        if isinstance(item, Image.Image):
            items.append(item)
        elif isinstance(item, str | os.PathLike):
            items.append(Path(item))
        else:
            raise SotglpError(
                f"image {i} is of type {type(item).__name__}; give paths, PIL images or one (B, 3, H, W) tensor"
            )
    return tuple(items)
