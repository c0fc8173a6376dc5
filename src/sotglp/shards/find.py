"""Shards of the images that a user names: archives, tables, saved data sets, folders and manifests."""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any, Literal

from sotglp.errors import SotglpError, SotglpWarning, some_names
from sotglp.images.columns import ALL, Columns
from sotglp.images.formats import IMAGE_SUFFIXES, ending
from sotglp.images.manifest import ANY_COLUMNS, MANIFEST_SUFFIXES
from sotglp.images.sources import find_images
from sotglp.shards.addresses import address_at, file_system, full_address, is_address, opened, version_of
from sotglp.shards.listed import LISTS, read_list
from sotglp.shards.shard import Shard
from sotglp.shards.tables import image_columns
from sotglp.shards.tar import TAR_SUFFIXES

FILES_A_SHARD = 2048
"""Image files in one shard of a folder or manifest."""

CLASS_NAMES = "classnames.txt"
"""Names of labels that are numbers, one a line, in the folder of the archives or the one above, as WebDataset sets
have it."""

_INFO, _STATE, _DICT = "dataset_info.json", "state.json", "dataset_dict.json"
_SPLIT_OF_TABLE = re.compile(r"(\w+?)-\d{5}-of-\d{5}")
_MAX_TEXT = 2**24

_Kind = Literal["tar", "parquet", "arrow"]


def find_shards(
    names: Sequence[str | os.PathLike[str]], columns: Columns = ANY_COLUMNS, *, with_labels: bool = False
) -> list[Shard]:
    """Return the shards of what a user names, in order, without reading an image.

    A name is that of an archive (.tar, .tar.gz), a Parquet table with images, a folder of either, a data set that
    `datasets` saved to disk, a folder of images or a pattern, as a path or an address such as s3://bucket/folder, or
    anything that :func:`sotglp.images.sources.find_images` takes. ``columns`` chooses a split and columns. Labels of
    manifests are read ``with_labels``.
    """
    shards: list[Shard] = []
    plain: list[str] = []
    n_files = 0
    for name in [full_address(os.fspath(name)) for name in names]:
        found = _shards_at(name, columns, with_labels)
        if found is None:
            plain.append(name)
        shards += found or []
    if plain:
        files = [str(path) for path in find_images(plain, columns)]
        shards += _file_shards(files, [_local_version(file) for file in files])
    numbered = []
    for shard in shards:
        if shard.kind == "files":
            shard = replace(shard, name=f"files {n_files} to {n_files + len(shard.files) - 1}")
            n_files += len(shard.files)
        numbered.append(shard)
    return numbered


def is_sharded(name: str | os.PathLike[str]) -> bool:
    """Whether a name is that of an archive, a saved data set, a table with images, a folder of these or an address."""
    address = full_address(os.fspath(name))
    if is_address(address):
        return True
    if os.path.isdir(address):
        # Without fsspec, which an installation for exported models lacks.
        saved = (os.path.exists(os.path.join(address, file)) for file in (_STATE, _DICT))
        return any(saved) or bool(_local_archives(address))
    return address.lower().endswith((*TAR_SUFFIXES, ".arrow")) or _has_images(address)


def _shards_at(name: str, columns: Columns, with_labels: bool) -> list[Shard] | None:
    """Return the shards of one name; None for what :func:`find_images` finds."""
    if not is_address(name):
        if name == "-" or not os.path.exists(name):
            return _of_pattern(name, columns) if name.lower().endswith((*TAR_SUFFIXES, ".parquet")) else None
        if not is_sharded(name):
            is_list = os.path.isfile(name) and ending(name) in MANIFEST_SUFFIXES
            return _of_list(name, columns, _local_version(name), with_labels) if is_list else None
    system, path = file_system(name)
    try:
        if any(letter in path for letter in "*?[") and not system.exists(path):
            return _of_pattern(name, columns)
        info = system.info(path)
        if info["type"] == "directory":
            return _of_folder(system, path, name, columns)
        if ending(path) in LISTS:
            return _of_list(name, columns, version_of(info), with_labels)
    except SotglpError:
        raise
    except Exception as error:  # of the packages for each kind
        reason = "it does not exist" if isinstance(error, FileNotFoundError) else str(error)[:200]
        raise SotglpError(f"{name} can't be read ({reason}); check the name and your access to it") from error
    return _of_files(system, {path: info}, name, columns)


def _of_list(name: str, columns: Columns, version: str, with_labels: bool) -> list[Shard]:
    files, labels = read_list(name, columns, with_labels)
    # Asking a server for each file would take hours.
    versions = [version if is_address(file) else _local_version(file) for file in files]
    return _file_shards(files, versions, labels)


def _of_pattern(name: str, columns: Columns) -> list[Shard]:
    system, path = file_system(name)
    found = {path: info for path, info in system.glob(path, detail=True).items() if info["type"] == "file"}
    if not found:
        raise SotglpError(f"{name} does not exist, and as a pattern matches no file; check it")
    return _of_files(system, found, name, columns)


def _of_folder(system: Any, path: str, name: str, columns: Columns) -> list[Shard]:
    if system.exists(posixpath.join(path, _DICT)):
        return _of_folder(system, *_split_folder(system, path, name, columns), replace(columns, split=None))
    if all(system.exists(posixpath.join(path, file)) for file in (_STATE, _INFO)):
        state = json.loads(_text(system, posixpath.join(path, _STATE)))
        files = [posixpath.join(path, posixpath.basename(file["filename"])) for file in state["_data_files"]]
        return _of_files(system, {file: system.info(file) for file in files}, name, columns)
    return _of_files(system, system.find(path, detail=True), name, columns, root=path)


def _split_folder(system: Any, path: str, name: str, columns: Columns) -> tuple[str, str]:
    splits = [str(split) for split in json.loads(_text(system, posixpath.join(path, _DICT)))["splits"]]
    chosen = columns.split if columns.split is not None or len(splits) > 1 else splits[0]
    if chosen not in splits:
        raise SotglpError(f"{name} has the splits {some_names(splits)}; choose one with --split")
    return posixpath.join(path, posixpath.basename(chosen)), f"{name}/{chosen}"


def _of_files(
    system: Any, found: Mapping[str, Mapping[str, Any]], name: str, columns: Columns, root: str | None = None
) -> list[Shard]:
    """Return the shards of files of one file system: archives and tables, or else images."""
    files = sorted(path for path, info in found.items() if info["type"] == "file" and not _is_hidden(path, root))
    kinds = {path: kind for path in files if (kind := _kind(path))}
    images = [path for path in files if ending(path) in IMAGE_SUFFIXES]
    if not kinds and not images:
        raise SotglpError(f"{name} has no images: give archives (.tar), Parquet tables with images, or image files")
    others = Counter(ending(path) for path in files if path not in kinds and (kinds or path not in images))
    others -= Counter({ending(file): others[ending(file)] for file in (".json", ".txt", ".md")})
    if others:
        endings = some_names([f"{count} ending in {suffix or 'nothing'}" for suffix, count in others.most_common()])
        warnings.warn(f"in {name}, files were left out: {endings}", SotglpWarning, stacklevel=4)
    if not kinds:
        labels = _folder_labels(images, root)
        versions = [version_of(found[path]) for path in images]
        return _file_shards([address_at(system, path) for path in images], versions, labels)
    chosen = _of_split(kinds, name, columns)
    names, columns = _class_names(system, chosen[0]), replace(columns, split=None)
    return [
        Shard(kinds[path], address_at(system, path), version_of(found[path]), class_names=names, columns=columns)
        for path in chosen
    ]


def _of_split(kinds: Mapping[str, _Kind], name: str, columns: Columns) -> list[str]:
    """Return the files of the chosen split, which names such as train-00000-of-00002.parquet begin with."""
    split_of = {path: match[1] for path in kinds if (match := _SPLIT_OF_TABLE.match(posixpath.basename(path)))}
    splits = sorted(set(split_of.values()))
    if columns.split is None and len(splits) > 1:
        raise SotglpError(f"{name} has files of the splits {some_names(splits)}; choose one with --split, or all")
    if columns.split in (None, ALL):
        return list(kinds)
    chosen = [path for path in kinds if split_of.get(path) == columns.split]
    if not chosen:
        found = some_names(splits) if splits else "none in the names of its files"
        raise SotglpError(f"{name} has no files of the split {columns.split}, only: {found}; choose another one")
    return chosen


def _kind(path: str) -> _Kind | None:
    lower = path.lower()
    if lower.endswith(TAR_SUFFIXES):
        return "tar"
    return {".parquet": "parquet", ".arrow": "arrow"}.get(ending(lower))  # type: ignore[return-value]


def _is_hidden(path: str, root: str | None) -> bool:
    inside = path if root is None else posixpath.relpath(path, root)
    return any(part.startswith((".", "__MACOSX")) for part in inside.split("/")[-1 if root is None else 0 :])


def _local_archives(folder: str) -> list[str]:
    """Return archives below a local folder, and tables with images."""
    files = [os.path.join(at, file) for at, _, files in os.walk(folder) for file in files]
    return [file for file in files if file.lower().endswith(TAR_SUFFIXES) or _has_images(file)]


def _has_images(path: str) -> bool:
    """Whether a file is a Parquet table with a column of images."""
    if ending(path) != ".parquet" or not os.path.isfile(path) or find_spec("pyarrow") is None:
        return False
    import pyarrow
    import pyarrow.parquet

    try:
        return image_columns(pyarrow.parquet.read_schema(path), ANY_COLUMNS) is not None
    except (pyarrow.ArrowException, OSError, ValueError):
        return False


def _class_names(system: Any, path: str) -> tuple[str, ...]:
    """Return the class names that a file beside archives or above them lists; empty if there is none."""
    for folder in (posixpath.dirname(path), posixpath.dirname(posixpath.dirname(path))):
        listed = posixpath.join(folder, CLASS_NAMES)
        if system.exists(listed):
            return tuple(line.strip() for line in _text(system, listed).splitlines() if line.strip())
    return ()


def _folder_labels(images: Sequence[str], root: str | None) -> list[str] | None:
    """Return the class folder of each image; None if one of them is in none."""
    parts = [posixpath.relpath(image, root).split("/") for image in images] if root is not None else []
    return [first for first, *_ in parts] if parts and all(len(one) > 1 for one in parts) else None


def _file_shards(files: Sequence[str], versions: Sequence[str], labels: Sequence[str] | None = None) -> list[Shard]:
    shards = []
    for start in range(0, len(files), FILES_A_SHARD):
        part = slice(start, start + FILES_A_SHARD)
        listed = "\n".join(f"{file}\t{version}" for file, version in zip(files[part], versions[part], strict=True))
        digest = hashlib.sha256(listed.encode("utf-8", "surrogateescape")).hexdigest()
        own = None if labels is None else tuple(labels[part])
        shards.append(Shard("files", "files", digest, tuple(files[part]), own))
    return shards


def _local_version(path: str) -> str:
    try:
        status = os.stat(path)
    except OSError:  # it is reported as unreadable
        return "missing"
    return f"{status.st_size} bytes, {status.st_mtime_ns}"


def _text(system: Any, path: str) -> str:
    with opened(address_at(system, path)) as file:
        return file.read(_MAX_TEXT).decode("utf-8", "replace")
