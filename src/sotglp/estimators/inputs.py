"""Image sets from what users pass as X and y."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import DataConversionWarning

from sotglp.errors import SotglpError, some_names
from sotglp.images.columns import ALL, Columns
from sotglp.images.image_set import ImageSet
from sotglp.images.labels import distinct_names, label_array, label_text, warn_of_missing
from sotglp.images.layout import FolderLayoutError
from sotglp.images.manifest import MANIFEST_SUFFIXES, read_frame, read_manifest


def labelled(X: Any, y: ArrayLike | None) -> tuple[ImageSet, NDArray[Any]]:
    """Return images with their labels as text, and the labels as given."""
    if y is None:
        if is_frame(X):
            items, names = read_frame(X)
            if names is None:
                raise SotglpError("the data frame has no labels: give y, or add a column label")
            return ImageSet.from_items(items, names), np.asarray(names)
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
    images = ImageSet.from_items(read_frame(X, with_labels=False)[0] if is_frame(X) else X, labels)
    warn_of_missing(images.labels or (), "y")
    return images, labels


def is_frame(X: Any) -> bool:
    """Whether X is a data frame of pandas or Polars."""
    return hasattr(X, "columns") and hasattr(X, "dtypes")


def names_of(labels: NDArray[Any], class_names: Mapping[Any, str] | Sequence[str] | None) -> list[str]:
    """Return the names of C classes, in the order of their ``labels``: those given, or the labels as text."""
    texts = distinct_names(labels.tolist())
    if class_names is None:
        return texts
    if isinstance(class_names, Mapping):
        given = {label_text(label, "a key of class_names"): name for label, name in class_names.items()}
        if missing := [text for text in texts if text not in given]:
            raise SotglpError(
                f"class_names has no name for {some_names(missing)}: add it, or give a list in the order of the sorted "
                "labels, which fits after scikit-learn has replaced them by numbers"
            )
        return distinct_names([given[text] for text in texts], "class name")
    if isinstance(class_names, str) or len(class_names) != len(texts):
        raise SotglpError(
            f"class_names must have one name for each of the {len(texts)} labels {some_names(texts)}: give a list in "
            "this order, or a mapping of labels to names"
        )
    return distinct_names(list(class_names), "class name")


def renamed_labels(images: ImageSet, names: Mapping[str, str]) -> ImageSet:
    """Return images with other class names; those that ``names`` lacks stay."""
    if images.labels is None or all(name == other for name, other in names.items()):
        return images
    return replace(images, labels=tuple(names.get(label, label) for label in images.labels))


def maybe_labelled(X: Any, y: ArrayLike | None) -> ImageSet:
    """Return images, with labels if there are any in y, a folder of class folders or a manifest."""
    if y is not None:
        return labelled(X, y)[0]
    if is_frame(X):
        return ImageSet.from_items(*read_frame(X))
    if isinstance(X, str | os.PathLike) and (os.path.isdir(X) or Path(X).suffix.lower() in MANIFEST_SUFFIXES):
        try:
            return ImageSet.from_path(X)
        except FolderLayoutError:
            raise
        except SotglpError:
            return unlabelled(X)
    return unlabelled(X)


def unlabelled(X: Any) -> ImageSet:
    """Return the images of any folder, one image, a manifest (of all its splits), a data frame, a list or a tensor."""
    if is_frame(X):
        return ImageSet.from_items(read_frame(X, Columns(ALL), with_labels=False)[0])
    if not isinstance(X, str | os.PathLike):
        return ImageSet.from_items(X)
    path = Path(X)
    if os.path.isdir(path):
        return ImageSet.from_flat_folder(path)
    # A file of any other suffix is decoded, whose errors name what is wrong with it.
    if path.suffix.lower() in MANIFEST_SUFFIXES:
        return ImageSet(read_manifest(path, Columns(ALL), with_labels=False)[0])
    return ImageSet.from_items([X])
