"""What a feature cache holds, and how it is kept small."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sotglp.errors import SotglpError
from sotglp.features.cache import LABEL_FILE, SECONDS_PER_DAY, VERSION_KEY, shelf_name
from sotglp.files.atomic import os_reason, write_file

_SHELF_NAME = re.compile(r"[0-9a-f]{16}")
_FOLDER_NAME = re.compile(r"[0-9a-f]{2}")
_ENTRY_NAME = re.compile(r"[0-9a-f]{64}\.safetensors")
_LEFTOVER_NAME = re.compile(r"\.(about\.json|[0-9a-f]{64}\.safetensors)\.[0-9a-f]+\.part")


@dataclass(frozen=True)
class Shelf:
    """Entries that share all they depend on beside the image.

    Attributes
    ----------
    path : Path
        Folder of the shelf.
    about : dict
        What the entries depend on, as given to :class:`sotglp.features.cache.FeatureStore`.
    n_entries : int
        Number of entries.
    n_bytes : int
        Size of their files.
    last_used : datetime or None
        When an entry was last read or written, within a day (UTC); None if there are no entries.
    """

    path: Path
    about: dict[str, Any]
    n_entries: int
    n_bytes: int
    last_used: datetime | None


@dataclass(frozen=True)
class Pruned:
    """What was removed: number of entries and size of their files in bytes."""

    n_entries: int
    n_bytes: int


@dataclass(frozen=True)
class _Entry:
    path: str
    n_bytes: int
    last_used: float


def shelves(root: Path) -> list[Shelf]:
    """What the cache holds, the shelf used last first.

    Raises
    ------
    SotglpError
        If ``root`` is no folder that can be read.
    """
    found = []
    for path, about in _own_shelves(root):
        entries = list(_entries(path))
        last_used = max((entry.last_used for entry in entries), default=None)
        found.append(
            Shelf(
                path,
                about,
                n_entries=len(entries),
                n_bytes=sum(entry.n_bytes for entry in entries),
                last_used=None if last_used is None else datetime.fromtimestamp(last_used, timezone.utc),
            )
        )
    return sorted(found, key=lambda shelf: (shelf.last_used is not None, shelf.last_used, shelf.path), reverse=True)


def prune(
    root: Path, *, older_than_days: float | None = None, keep_bytes: int | None = None, everything: bool = False
) -> Pruned:
    """Remove entries, least recently used first, and what killed processes and empty shelves left behind.

    Parameters
    ----------
    root : Path
        Folder of the cache. Files in it that are not the cache's own are left alone.
    older_than_days : float or None
        Remove entries that were not used for so many days.
    keep_bytes : int or None
        Remove the least recently used entries until no more than so many bytes are left.
    everything : bool
        Remove all entries.

    Raises
    ------
    SotglpError
        If ``root`` is no folder that can be read, or something in it can't be removed.
    """
    own_shelves = [path for path, _ in _own_shelves(root)]
    entries = sorted((entry for path in own_shelves for entry in _entries(path)), key=lambda entry: entry.last_used)
    oldest_kept = float("-inf") if older_than_days is None else time.time() - older_than_days * SECONDS_PER_DAY
    n_left = sum(entry.n_bytes for entry in entries)
    removed = []
    for entry in entries:
        too_much = keep_bytes is not None and n_left > keep_bytes
        if not (everything or too_much or entry.last_used < oldest_kept):
            break
        if _remove(entry.path):
            removed.append(entry)
        n_left -= entry.n_bytes
    for path in own_shelves:
        _tidy(path)
    return Pruned(len(removed), sum(entry.n_bytes for entry in removed))


def _own_shelves(root: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for item in _listed(root):
        if _SHELF_NAME.fullmatch(item.name) and item.is_dir(follow_symlinks=False):
            about = _about(Path(item.path))
            if about is not None:
                yield Path(item.path), about


def _about(shelf: Path) -> dict[str, Any] | None:
    """What a folder's label says, if the folder is a shelf that this or another version of sotglp made."""
    try:
        label = json.loads((shelf / LABEL_FILE).read_bytes())
        about = label["about"]
        return about if shelf_name(about, label[VERSION_KEY]) == shelf.name else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _entry_folders(shelf: Path) -> list[str]:
    return [
        item.path for item in _listed(shelf) if _FOLDER_NAME.fullmatch(item.name) and item.is_dir(follow_symlinks=False)
    ]


def _entries(shelf: Path) -> Iterator[_Entry]:
    for folder in _entry_folders(shelf):
        for item in _listed(folder):
            if not (_ENTRY_NAME.fullmatch(item.name) and folder.endswith(item.name[:2])):
                continue
            # Another process may remove it meanwhile.
            with suppress(FileNotFoundError):
                if item.is_file(follow_symlinks=False):
                    told = item.stat(follow_symlinks=False)
                    yield _Entry(item.path, told.st_size, told.st_mtime)


def _listed(folder: Path | str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as items:
            return list(items)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SotglpError(
            f"{folder} can't be listed ({os_reason(error)}): give the folder of a feature cache with --cache-dir"
        ) from error


def _remove(path: str) -> bool:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise SotglpError(
            f"{path} can't be removed ({os_reason(error)}): ask the owner of the cache, or make it writable"
        ) from error
    return True


def _tidy(shelf: Path) -> None:
    """Remove what killed processes left on a shelf, and the shelf itself if it is empty."""
    folders = _entry_folders(shelf)
    for folder in (str(shelf), *folders):
        for item in _listed(folder):
            with suppress(FileNotFoundError):
                if _LEFTOVER_NAME.fullmatch(item.name) and time.time() - item.stat().st_mtime > SECONDS_PER_DAY:
                    _remove(item.path)
    for folder in folders:
        # Fails where something is left in it.
        with suppress(OSError):
            os.rmdir(folder)
    if [item.name for item in _listed(shelf)] == [LABEL_FILE]:
        _remove_empty(shelf)


def _remove_empty(shelf: Path) -> None:
    with suppress(FileNotFoundError):
        label = (shelf / LABEL_FILE).read_bytes()
        _remove(str(shelf / LABEL_FILE))
        try:
            os.rmdir(shelf)
        except FileNotFoundError:
            raise
        except OSError:
            # A writer came in between, and relied on the label.
            write_file(shelf / LABEL_FILE, lambda beside: beside.write_bytes(label), force=True)
