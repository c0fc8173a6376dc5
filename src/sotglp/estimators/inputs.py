"""Image sets from what users pass as X and y."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import DataConversionWarning

from sotglp.errors import SotglpError
from sotglp.images.image_set import ImageSet
from sotglp.images.labels import label_array
from sotglp.images.layout import FolderLayoutError
from sotglp.images.manifest import MANIFEST_SUFFIXES


def labelled(X: Any, y: ArrayLike | None) -> tuple[ImageSet, NDArray[Any]]:
    """Return images with their labels as text, and the labels as given."""
    if y is None:
        if not isinstance(X, str | os.PathLike):
            raise SotglpError("labels are missing: give y, or the path of a labelled folder or manifest as X")
        images = ImageSet.from_path(X)
        if images.labels is None:
            raise SotglpError(f"{X} has no labels: give a folder for each class, or a manifest with a label column")
        return images, np.asarray(images.labels)
    labels = label_array(y)
    if labels.ndim == 2 and labels.shape[1] == 1:
        warnings.warn(
            "labels y are a column vector; give an array of one dimension", DataConversionWarning, stacklevel=3
        )
        labels = labels.ravel()
    if labels.ndim != 1:
        raise SotglpError(f"labels y have the shape {labels.shape}: give one string or whole number for each image")
    return ImageSet.from_items(X, labels), labels


def maybe_labelled(X: Any, y: ArrayLike | None) -> ImageSet:
    """Return images, with labels if there are any in y, a folder of class folders or a manifest."""
    if y is not None:
        return labelled(X, y)[0]
    if isinstance(X, str | os.PathLike) and (os.path.isdir(X) or Path(X).suffix.lower() in MANIFEST_SUFFIXES):
        try:
            return ImageSet.from_path(X)
        except FolderLayoutError:
            raise
        except SotglpError:
            return unlabelled(X)
    return unlabelled(X)


def unlabelled(X: Any) -> ImageSet:
    """Return the images of any folder, one image, a manifest, or a list or tensor."""
    if not isinstance(X, str | os.PathLike):
        return ImageSet.from_items(X)
    path = Path(X)
    if os.path.isdir(path):
        return ImageSet.from_flat_folder(path)
    # A file of any other suffix is decoded, whose errors name what is wrong with it.
    return ImageSet.from_manifest(path) if path.suffix.lower() in MANIFEST_SUFFIXES else ImageSet.from_items([path])
