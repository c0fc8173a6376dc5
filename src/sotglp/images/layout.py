"""Recognition of folders that hold splits, a wrapper folder or annotations instead of class folders."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sotglp.errors import SotglpError, SotglpWarning, some_names

_SPLIT = re.compile(
    r"(?:(?P<train>train|training)|val|valid|validation|test|testing|eval|evaluation|dev)"
    r"(?:[ _-]?(?:set|split|data|images|imgs|\d{4}))?",
    re.IGNORECASE,
)
_IMAGES = re.compile(r"(?:jpe?g|png)?[ _-]?(?:images?|imgs?|photos?|pictures?|data)", re.IGNORECASE)
_ANNOTATIONS = re.compile(
    r"annotations?|annos?|labels?|masks?|metadata|meta|(?:ground[ _-]?)truth|gt|bbox(?:es)?|segmentations?|trimaps?",
    re.IGNORECASE,
)


class FolderLayoutError(SotglpError):
    """A folder holds splits, a wrapper folder or annotations where class folders are expected."""


def is_split(name: str) -> bool:
    """Whether a folder's name is that of a split, such as train, val or test_images."""
    return _SPLIT.fullmatch(name) is not None


def is_training(name: str) -> bool:
    """Whether a folder's name is that of a training split."""
    match = _SPLIT.fullmatch(name)
    return bool(match and match["train"])


@dataclass
class _Folder:
    """A folder by its images: whether it holds some directly, and its subfolders that hold images."""

    path: Path
    has_images: bool = False
    folders: dict[str, _Folder] = field(default_factory=dict)

    def add(self, folders: Sequence[str]) -> None:
        current = self
        for name in folders:
            current = current.folders.setdefault(name, _Folder(current.path / name))
        current.has_images = True


def check_layout(root: Path, images_of: Mapping[str, Sequence[Path]]) -> None:
    """Raise a FolderLayoutError if the folders in ``root``, with their images, are probably not classes.

    Refused are folders of splits (train/cat, test/cat), splits inside class folders (cat/train, cat/test), a single
    folder that holds the class folders, and a folder of images beside one of annotations. A class folder called
    "train" among others, with folders in it, may be one of trains: it is only reported, with a SotglpWarning.
    """
    tree = _Folder(root)
    for images in images_of.values():
        for image in images:
            tree.add(image.relative_to(root).parts[:-1])
    _check_splits(tree)
    names = list(tree.folders)
    pictures = [name for name in names if _IMAGES.fullmatch(name)]
    annotations = sorted(name for name in images_of if _ANNOTATIONS.fullmatch(name))
    if pictures and annotations and all(_IMAGES.fullmatch(name) or name in annotations for name in names):
        raise FolderLayoutError(
            f"{root} holds {' beside '.join([pictures[0], *annotations[:1]])} instead of class folders; "
            + _advice(tree.folders[pictures[0]])
        )
    if len(names) == 1 and not (only := tree.folders[names[0]]).has_images:
        n_classes = len(_classes(only).folders)
        if n_classes > 1 or (n_classes and any(map(_SPLIT.fullmatch, only.folders))):
            raise FolderLayoutError(
                f"{root} holds one folder, {names[0]}, in which there are probably the class folders; {_advice(only)}"
            )
    _check_splits_of_classes(tree)


def _check_splits(tree: _Folder) -> None:
    splits = [folder for name, folder in tree.folders.items() if _SPLIT.fullmatch(name)]
    nested = [folder for folder in splits if folder.folders and not folder.has_images]
    are_all = len(splits) == len(tree.folders)
    if (nested and (are_all or len(splits) > 1)) or (are_all and len(splits) > 1):
        names = some_names([folder.path.name for folder in splits])
        raise FolderLayoutError(f"{tree.path} holds splits ({names}) instead of class folders; {_advice(tree)}")
    for folder in nested:
        warnings.warn(
            f"the class folder {folder.path} holds the folders {some_names(list(folder.folders))}, all of whose images "
            f"get the label {folder.path.name}; if it is a split, {_advice(folder)}",
            SotglpWarning,
            stacklevel=4,
        )


def _check_splits_of_classes(tree: _Folder) -> None:
    """Refuse class folders that mix splits, since images of one split would be used as those of another."""
    found: dict[str, Path] = {}
    has_others = False
    pending = list(tree.folders.values())
    while pending:
        folder = pending.pop(0)
        has_others |= folder.has_images
        for name, below in folder.folders.items():
            if _SPLIT.fullmatch(name):
                found.setdefault(name.lower(), below.path)
            else:
                pending.append(below)
    held_out = [path for name, path in found.items() if not is_training(name)]
    if held_out and (len(found) > 1 or has_others):
        raise FolderLayoutError(
            f"the class folders of {tree.path} hold splits ({some_names(sorted(found))}), such as {held_out[0]}, which "
            f"would be mixed; move them, to {tree.path / '<split>' / '<class name>'}, or give a manifest of one split"
        )


def _classes(folder: _Folder) -> _Folder:
    """Follow splits, image folders and wrappers down to the folder that probably holds the class folders."""
    while folder.folders and not folder.has_images:
        names = list(folder.folders)
        splits = sorted((name for name in names if _SPLIT.fullmatch(name)), key=lambda name: not is_training(name))
        pictures = [name for name in names if _IMAGES.fullmatch(name)]
        others = [name for name in names if not _IMAGES.fullmatch(name) and not _ANNOTATIONS.fullmatch(name)]
        if splits and (len(splits) > 1 or len(splits) == len(names)):
            folder = folder.folders[splits[0]]
        elif pictures and not others:
            folder = folder.folders[pictures[0]]
        elif len(names) == 1 and folder.folders[names[0]].folders:
            folder = folder.folders[names[0]]
        else:
            break
    return folder


def _advice(folder: _Folder) -> str:
    classes = _classes(folder)
    if classes.folders:
        return f"did you mean {classes.path}?"
    return f"give a manifest with the columns path and label, since {classes.path} holds no class folders either"
