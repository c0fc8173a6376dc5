"""Labelled or unlabelled images from folders, a manifest or memory."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sotglp.errors import SotglpError, some_names
from sotglp.images.arrays import is_tensor, rows_of
from sotglp.images.columns import Columns
from sotglp.images.folders import read_class_folders, read_flat_folder
from sotglp.images.labels import class_names, distinct_names
from sotglp.images.manifest import ANY_COLUMNS, MANIFEST_SUFFIXES, read_manifest
from sotglp.images.paths import find_file, is_remote
from sotglp.images.stored import StoredImage
from sotglp.images.value_range import ValueRanges

if TYPE_CHECKING:
    import torch

ImageSource: TypeAlias = "Path | Image.Image | torch.Tensor | StoredImage"
"""An image file, a PIL image, a (3, H, W) row of a tensor, or an image that is encoded already."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images in a fixed order, with or without labels.

    Parameters
    ----------
    images : tuple of Path, PIL.Image.Image, torch.Tensor or StoredImage
        The images, not yet decoded; tensors are (3, H, W), uint8 for raw pixels or float32 for preprocessed images.
    labels : tuple of str or None, default None
        Class name of each image.
    ranges : mapping
        Values of black and white of gray images with more than 8 bits; see :mod:`sotglp.images.value_range`.
    numbers : tuple of int or None, default None
        Numbers that the random views of the images depend on, which a selection keeps; None for the positions in the
        set.

    Raises
    ------
    SotglpError
        If there are no images, or the numbers of images and labels differ.
    """

    images: tuple[ImageSource, ...]
    labels: tuple[str, ...] | None = None
    # Indices in the set that the user passed, for messages.
    _indices: tuple[int, ...] | None = field(default=None, repr=False)
    ranges: ValueRanges = field(default_factory=dict, repr=False)
    numbers: tuple[int, ...] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.images:
            raise SotglpError("there are no images; give at least one")
        if self.labels is not None and len(self.labels) != len(self.images):
            raise SotglpError(
                f"there are {len(self.images)} images but {len(self.labels)} labels; give one label for each image"
            )

    @classmethod
    def from_path(cls, path: str | os.PathLike[str], columns: Columns = ANY_COLUMNS) -> ImageSet:
        """Read a folder with `from_class_folders`, or a .csv, .tsv or .parquet file with `from_manifest`."""
        path = Path(path)
        if os.path.isfile(path):
            if path.suffix.lower() not in MANIFEST_SUFFIXES:
                raise SotglpError(
                    f"{path} is neither a folder nor a manifest; give a folder, a .csv or a .parquet file"
                )
            return cls.from_manifest(path, columns)
        if columns != ANY_COLUMNS:
            raise SotglpError(
                f"{path} isn't a manifest, so it has no columns; leave out --split, --path-column and --label-column, "
                "or give the folder of one split"
            )
        return cls.from_class_folders(path)

    @classmethod
    def from_class_folders(cls, root: str | os.PathLike[str]) -> ImageSet:
        """Read labelled images from root/<class name>/**/image.jpg; see `sotglp.images.folders.read_class_folders`."""
        images, folders = read_class_folders(Path(root))
        found = list(dict.fromkeys(folders))
        names = dict(zip(found, distinct_names(found, f"class folder of {root}, number"), strict=True))
        return cls(images, tuple(names[folder] for folder in folders))

    @classmethod
    def from_flat_folder(cls, root: str | os.PathLike[str]) -> ImageSet:
        """Read all images below a folder, without labels; see `sotglp.images.folders.read_flat_folder`."""
        return cls(read_flat_folder(Path(root)))

    @classmethod
    def from_manifest(cls, path: str | os.PathLike[str], columns: Columns = ANY_COLUMNS) -> ImageSet:
        """Read a table with the column path and optionally label; see `sotglp.images.manifest.read_manifest`."""
        return cls(*read_manifest(Path(path), columns))

    @classmethod
    def from_items(cls, images: Any, labels: Any = None) -> ImageSet:
        """Create a set of images in memory, or of a list of paths.

        Parameters
        ----------
        images : sequence of paths or PIL images, torch.Tensor or numpy.ndarray
            A tensor or array of numbers has the shape (B, 3, H, W): uint8 for raw pixels, floating point for
            preprocessed images, which are converted to float32.
        labels : array-like, optional
            Label of each image: text, bytes or a whole number.

        Raises
        ------
        SotglpError
            If images or labels are of another type or shape, their numbers differ, or a pixel is NaN or infinite.
        """
        numbers = is_tensor(images) or (isinstance(images, np.ndarray) and images.dtype.kind not in "OUS")
        return cls(rows_of(images) if numbers else _items(images), None if labels is None else class_names(labels))

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, sorted as by numpy.unique."""
        return tuple(sorted(set(self._known_labels())))

    @property
    def smallest_class(self) -> int:
        """Number of images of the class that has the fewest."""
        return min(Counter(self._known_labels()).values())

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def take(self, indices: Sequence[int] | NDArray[Any]) -> ImageSet:
        """Select images.

        Parameters
        ----------
        indices : sequence of int
            Indices of the images to keep, in this order, or a boolean mask.

        Raises
        ------
        SotglpError
            If the selection is empty.
        """
        kept = np.arange(len(self))[np.asarray(indices, dtype=None if len(indices) else np.int64)].tolist()
        labels = self.labels
        source = self._indices
        return ImageSet(
            tuple(self.images[i] for i in kept),
            None if labels is None else tuple(labels[i] for i in kept),
            tuple(kept) if source is None else tuple(source[i] for i in kept),
            self.ranges,
            None if self.numbers is None else tuple(self.numbers[i] for i in kept),
        )

    def number(self, i: int) -> int:
        """Return the number that the random views of an image depend on."""
        return i if self.numbers is None else self.numbers[i]

    def name(self, i: int) -> str:
        """Return the name of an image for messages: its path, or "image 3", counted from 0 in the set that was read."""
        image = self.images[i]
        if isinstance(image, Path):
            return str(image)
        return f"image {i if self._indices is None else self._indices[i]}"

    def targets(self, classes: Sequence[str]) -> NDArray[np.int64]:
        """Return the class index of each image.

        Parameters
        ----------
        classes : sequence of str
            Class names, C of them.

        Returns
        -------
        numpy.ndarray of int64, shape (len(self),)
            Class indices from 0 to C - 1.

        Raises
        ------
        SotglpError
            If the images have no labels, or a label isn't among the classes.
        """
        labels = self._known_labels()
        class_index = {name: k for k, name in enumerate(classes)}
        if unknown := Counter(label for label in labels if label not in class_index):
            raise SotglpError(
                f"{unknown.total()} of {len(self)} images have labels that are not among the {len(classes)} classes: "
                f"{some_names(sorted(unknown))}; rename these labels or leave the images out"
            )
        return np.array([class_index[label] for label in labels], dtype=np.int64)

    def _known_labels(self) -> tuple[str, ...]:
        if self.labels is None:
            raise SotglpError(
                "the images have no labels; give class folders or a manifest with a column label (or --label-column)"
            )
        return self.labels


def _items(images: Any) -> tuple[Path | Image.Image, ...]:
    is_one = isinstance(images, str | bytes | os.PathLike | Image.Image | Mapping | Set)
    if hasattr(images, "columns") and hasattr(images, "dtypes"):
        raise SotglpError("the images are a data frame; give its column of paths")
    if is_one or not isinstance(images, Iterable):
        raise SotglpError(f"the images are one {type(images).__name__}; give a list of paths or of PIL images")
    items: list[Path | Image.Image] = []
    for i, item in enumerate(images):
        if isinstance(item, Image.Image):
            items.append(item)
        elif isinstance(item, str) and not os.path.exists(item):
            if is_remote(item):
                raise SotglpError(f"image {i} is the address {item[:200]}; download it, and give its path")
            items.append(find_file(Path(), item) or Path(item))
        elif isinstance(item, str | os.PathLike):
            items.append(Path(item))
        else:
            stack = "torch.stack" if is_tensor(item) else "numpy.stack" if isinstance(item, np.ndarray) else ""
            advice = f", such as {stack}(images)" if stack else ""
            raise SotglpError(
                f"image {i} is of type {type(item).__name__}; give paths, PIL images or one (B, 3, H, W) tensor{advice}"
            )
    return tuple(items)
