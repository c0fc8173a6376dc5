"""Lists of the images in class folders, or in any tree of folders."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from sotglp.errors import SotglpError, SotglpWarning, some_names
from sotglp.images.decode import IMAGE_SUFFIXES

_ENDINGS = f"files that end in one of {' '.join(sorted(IMAGE_SUFFIXES))}"
# Created by operating systems, archives and network disks; the last two hold thumbnails.
_IGNORED_FOLDERS = frozenset(
    {"__MACOSX", "$RECYCLE.BIN", "System Volume Information", "lost+found", "@eaDir", "#recycle"}
)


def read_class_folders(root: Path) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """List the images in root/<class name>/**, and the name of each image's class folder.

    Classes are sorted by name, the images of a class by relative path. Linked folders are followed, but no folder is
    read twice for the same class. Hidden files and folders, folders of operating systems, and files without the suffix
    of an image are ignored; so are empty class folders and images outside the class folders, with a SotglpWarning.
    """
    _check_folder(root)
    folders, files = _folder_content(root)
    if not folders:
        raise SotglpError(
            f"{root} has {'images but ' if files else ''}no class folders in it; expected {root}/<class name>/image.jpg"
        )
    images_of = {folder.name: _images_below(folder, visited={_identity(root)}) for folder in folders}
    empty = [name for name, images in images_of.items() if not images]
    if len(empty) == len(images_of):
        raise SotglpError(f"the class folders of {root} have no images in them; put {_ENDINGS} there")
    for what, names in (
        (f"class folders of {root} without images are ignored", empty),
        (f"{root} has images outside the class folders, which are ignored", [file.name for file in files]),
    ):
        if names:
            warnings.warn(f"{what}: {some_names(names)}", SotglpWarning, stacklevel=3)
    labelled = [(image, name) for name, images in images_of.items() for image in images]
    return tuple(image for image, _ in labelled), tuple(name for _, name in labelled)


def read_flat_folder(root: Path) -> tuple[Path, ...]:
    """List all images below a folder, sorted by relative path, ignoring what :func:`read_class_folders` ignores."""
    _check_folder(root)
    images = _images_below(root, visited=set())
    if not images:
        raise SotglpError(f"{root} has no images in it; give a folder with {_ENDINGS}")
    return tuple(images)


def _check_folder(root: Path) -> None:
    # Unlike the methods of Path, these return False for impossible names, such as one of 300 characters.
    if not os.path.exists(root):
        raise SotglpError(f"{root} does not exist; check the path")
    if not os.path.isdir(root):
        raise SotglpError(f"{root} is a file; give a folder of images")


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _folder_content(folder: Path) -> tuple[list[Path], list[Path]]:
    folders: list[Path] = []
    images: list[Path] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name in _IGNORED_FOLDERS:
                    continue
                # entry.is_dir() would raise on a link that points to itself.
                if entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry.path)):
                    folders.append(folder / entry.name)
                elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
                    images.append(folder / entry.name)
    except OSError as error:
        raise SotglpError(f"the folder {folder} can't be read ({error.strerror}); check its permissions") from error
    return sorted(folders, key=lambda path: path.name), sorted(images, key=lambda path: path.name)


def _images_below(folder: Path, visited: set[tuple[int, int]]) -> list[Path]:
    """List the images of a folder and its subfolders, skipping visited folders."""
    found: list[Path] = []
    pending = [folder]
    while pending:
        current = pending.pop()
        if (identity := _identity(current)) in visited:
            continue
        visited.add(identity)
        folders, images = _folder_content(current)
        found += images
        pending += reversed(folders)
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())
