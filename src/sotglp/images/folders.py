"""Lists of the images in class folders, or in any tree of folders."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from sotglp.errors import SotglpError, SotglpWarning, some_names
from sotglp.images.formats import HEIC_ADVICE, HEIC_SUFFIXES, IMAGE_SUFFIXES, ending, is_image_file
from sotglp.images.labels import warn_of_missing
from sotglp.images.layout import FolderLayoutError, check_layout

_ENDINGS = f"files that end in one of {' '.join(sorted(IMAGE_SUFFIXES))}"
# Created by operating systems, archives and network disks; the last two hold thumbnails.
_IGNORED_FOLDERS = frozenset(
    {"__MACOSX", "$RECYCLE.BIN", "System Volume Information", "lost+found", "@eaDir", "#recycle"}
)
_IGNORED_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})


def read_class_folders(root: Path) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """List the images in root/<class name>/**, and the name of each image's class folder.

    Classes are sorted by name, the images of a class by relative path. Linked folders are followed, but no folder is
    read twice for the same class. Hidden files and folders and those of operating systems are ignored. A SotglpWarning
    reports all else that is left out: files that are no images, by suffix, empty class folders, and images outside the
    class folders. Raise a FolderLayoutError if the folders are probably splits or hold the class folders.
    """
    _check_folder(root)
    left_out: Counter[str] = Counter()
    folders, files = _folder_content(root, left_out)
    if not folders:
        raise SotglpError(
            f"{root} has {'images but ' if files else ''}no class folders in it; expected {root}/<class name>/image.jpg"
            + _table_hint(root)
        )
    images_of = {folder.name: _images_below(folder, {_identity(root)}, left_out) for folder in folders}
    empty = [name for name, images in images_of.items() if not images]
    if len(empty) == len(images_of):
        raise SotglpError(f"the class folders of {root} have no images in them{_found(left_out)}; put {_ENDINGS} there")
    try:
        check_layout(root, images_of)
    except FolderLayoutError as error:
        if hint := _table_hint(root, *(root / name for name in images_of)):
            raise FolderLayoutError(f"{error}{hint}") from error
        raise
    warn_of_missing(list(images_of), f"the class folders of {root}", [f"the folder {name}" for name in images_of])
    for what, names in (
        (f"class folders of {root} without images are ignored", empty),
        (f"{root} has images outside the class folders, which are ignored", [file.name for file in files]),
    ):
        if names:
            warnings.warn(f"{what}: {some_names(names)}", SotglpWarning, stacklevel=3)
    _report(root, left_out)
    labelled = [(image, name) for name, images in images_of.items() for image in images]
    return tuple(image for image, _ in labelled), tuple(name for _, name in labelled)


def read_flat_folder(root: Path) -> tuple[Path, ...]:
    """List all images below a folder, sorted by relative path; see :func:`read_class_folders`."""
    _check_folder(root)
    left_out: Counter[str] = Counter()
    images = _images_below(root, set(), left_out)
    if not images:
        raise SotglpError(f"{root} has no images in it{_found(left_out)}; give a folder with {_ENDINGS}")
    _report(root, left_out)
    return tuple(images)


def _report(root: Path, left_out: Mapping[str, int]) -> None:
    if left_out:
        warnings.warn(f"in {root}, {describe_left_out(left_out)}", SotglpWarning, stacklevel=4)


def _found(left_out: Mapping[str, int]) -> str:
    return f" ({describe_left_out(left_out)})" if left_out else ""


def describe_left_out(left_out: Mapping[str, int]) -> str:
    """Describe the files that are left out: "20 files ending in .heic were left out: install sotglp[heic]"."""
    heic = {suffix: count for suffix, count in left_out.items() if suffix in HEIC_SUFFIXES}
    others = {suffix: count for suffix, count in left_out.items() if suffix not in HEIC_SUFFIXES}
    advice = "not being in a supported image format: convert pictures to PNG or JPEG"
    texts = []
    for suffixes, text in ((heic, f": {HEIC_ADVICE}"), (others, f", {advice}")):
        if suffixes:
            most_first = sorted(suffixes.items(), key=lambda item: (-item[1], item[0]))
            were = "was" if sum(suffixes.values()) == 1 else "were"
            texts.append(some_names([_files_of(*item) for item in most_first]) + f" {were} left out{text}")
    return "; ".join(texts)


def _files_of(suffix: str, count: int) -> str:
    return f"{count} file{'s' if count > 1 else ''} {f'ending in {suffix}' if suffix else 'without an ending'}"


def _check_folder(root: Path) -> None:
    # Unlike the methods of Path, these return False for impossible names, such as one of 300 characters.
    if not os.path.exists(root):
        raise SotglpError(f"{root} does not exist; check the path")
    if not os.path.isdir(root):
        raise SotglpError(f"{root} is a file; give a folder of images")


def _table_hint(*folders: Path) -> str:
    """Return what to do with a table of labels, such as metadata.csv of Hugging Face; "" without a table."""
    tables = [
        folder / name
        for folder in folders
        for name in sorted(os.listdir(folder) if os.access(folder, os.R_OK) else [])
        if os.path.splitext(name)[1].lower() in (".csv", ".tsv", ".parquet")
    ]
    return f" (did you mean {tables[0]}?)" if tables else ""


def _identity(folder: Path) -> tuple[int, int]:
    try:
        status = folder.stat()
    except OSError as error:  # removed since it was listed, or the folder above it may not be entered
        raise _unreadable(folder, error) from error
    return status.st_dev, status.st_ino


def _unreadable(folder: Path, error: OSError) -> SotglpError:
    return SotglpError(f"the folder {folder} can't be read ({error.strerror}); check its permissions")


def _folder_content(folder: Path, left_out: Counter[str]) -> tuple[list[Path], list[Path]]:
    """List the folders and images in a folder, and count the other files by suffix."""
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
                elif is_image_file(folder / entry.name):
                    images.append(folder / entry.name)
                elif os.path.isfile(entry.path) and entry.name.lower() not in _IGNORED_FILES:
                    left_out[ending(entry.name)] += 1
    except OSError as error:
        raise _unreadable(folder, error) from error
    return sorted(folders, key=lambda path: path.name), sorted(images, key=lambda path: path.name)


def _images_below(folder: Path, visited: set[tuple[int, int]], left_out: Counter[str]) -> list[Path]:
    """List the images of a folder and its subfolders, skipping visited folders."""
    found: list[Path] = []
    pending = [folder]
    while pending:
        current = pending.pop()
        if (identity := _identity(current)) in visited:
            continue
        visited.add(identity)
        folders, images = _folder_content(current, left_out)
        found += images
        pending += reversed(folders)
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())
