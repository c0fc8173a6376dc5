"""List what a feature cache holds, and remove entries from it; imports no torch."""

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
from sotglp.features.cache_folder import LABEL_FILE, SECONDS_PER_DAY, VERSION_KEY, group_name, lock_cache
from sotglp.files.atomic import os_reason

_GROUP_NAME = re.compile(r"[0-9a-f]{16}")
_FOLDER_NAME = re.compile(r"[0-9a-f]{2}")
_ENTRY_NAME = re.compile(r"[0-9a-f]{64}\.safetensors")
_LEFTOVER_NAME = re.compile(r"\.(about\.json|[0-9a-f]{64}\.safetensors)\.[0-9a-f]+\.part")


_LAST_SECOND = 253402300799.0
"""End of the year 9999."""


@dataclass(frozen=True)
class CacheGroup:
    """Entries that depend on the same weights, preprocessing and precision, which ``about`` describes.

    ``last_used`` is when an entry was last read or written, within a day (UTC); None if there are no entries.
    """

    path: Path
    about: dict[str, Any]
    n_entries: int
    n_bytes: int
    last_used: datetime | None


@dataclass(frozen=True)
class Pruned:
    """Number of removed entries, and size of their files in bytes."""

    n_entries: int
    n_bytes: int


def cache_groups(root: Path) -> list[CacheGroup]:
    """List the groups of a cache, the last used first."""
    groups = []
    for path, about in _groups(root):
        files = [stat for _, stat in _entries(path)]
        last_used = max((stat.st_mtime for stat in files), default=None)
        when = None if last_used is None else datetime.fromtimestamp(_within_years(last_used), timezone.utc)
        groups.append(CacheGroup(path, about, len(files), sum(stat.st_size for stat in files), when))
    return sorted(groups, key=lambda group: (group.last_used is not None, group.last_used, group.path), reverse=True)


def _within_years(seconds: float) -> float:
    """Return a time that datetime can hold, whatever the clock was when a file was written."""
    return min(max(seconds, 0.0), _LAST_SECOND)


def prune(
    root: Path, *, older_than_days: float | None = None, keep_bytes: int | None = None, everything: bool = False
) -> Pruned:
    """Remove entries, least recently used first, unfinished files of killed processes, and empty groups.

    Entries are removed that were not used for ``older_than_days``, then further ones until at most ``keep_bytes`` are
    left; or ``everything``. Files that don't belong to the cache are left alone. Raise a SotglpError if ``root`` can't
    be read, or a file can't be removed.
    """
    groups = [path for path, _ in _groups(root)]
    if not groups:
        return Pruned(0, 0)
    try:
        with lock_cache(root):
            return _prune(groups, older_than_days, keep_bytes, everything)
    except OSError as error:
        raise SotglpError(
            f"{error.filename or root} can't be removed ({os_reason(error)}): make the cache writable, or ask its owner"
        ) from error


def _prune(groups: list[Path], older_than_days: float | None, keep_bytes: int | None, everything: bool) -> Pruned:
    entries = sorted((entry for group in groups for entry in _entries(group)), key=lambda entry: entry[1].st_mtime)
    oldest_kept = float("-inf") if older_than_days is None else time.time() - older_than_days * SECONDS_PER_DAY
    n_bytes = n_left = sum(stat.st_size for _, stat in entries)
    n_entries = 0
    for path, stat in entries:
        is_too_much = keep_bytes is not None and n_left > keep_bytes
        if not (everything or is_too_much or stat.st_mtime < oldest_kept):
            break
        # A reader removes an entry that it finds damaged.
        with suppress(FileNotFoundError):
            os.unlink(path)
        n_entries += 1
        n_left -= stat.st_size
    for group in groups:
        _remove_leftovers(group)
    return Pruned(n_entries, n_bytes - n_left)


def _remove_leftovers(group: Path) -> None:
    """Remove unfinished files, which no writer has while the lock is held, and folders without entries."""
    folders = [item.path for item in _entry_folders(group)]
    for folder in (*folders, str(group)):
        for item in _list(folder):
            if _LEFTOVER_NAME.fullmatch(item.name):
                os.unlink(item.path)
    for folder in folders:
        with suppress(OSError):  # it is not empty
            os.rmdir(folder)
    if [item.name for item in _list(group)] == [LABEL_FILE]:
        (group / LABEL_FILE).unlink()
        group.rmdir()


def _groups(root: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The groups of a cache and their ``about``; folders that another program made are skipped."""
    for item in _list(root):
        if not (_GROUP_NAME.fullmatch(item.name) and item.is_dir(follow_symlinks=False)):
            continue
        label_file = Path(item.path, LABEL_FILE)
        try:
            content = label_file.read_bytes()
        except PermissionError as error:
            raise SotglpError(
                f"{label_file} can't be read ({os_reason(error)}): check the permissions of the cache, or ask its owner"
            ) from error
        except OSError:
            continue
        with suppress(ValueError, KeyError, TypeError, RecursionError):
            label = json.loads(content)
            if group_name(label["about"], label[VERSION_KEY]) == item.name:
                yield Path(item.path), label["about"]


def _entry_folders(group: Path) -> list[os.DirEntry[str]]:
    return [item for item in _list(group) if _FOLDER_NAME.fullmatch(item.name) and item.is_dir(follow_symlinks=False)]


def _entries(group: Path) -> Iterator[tuple[str, os.stat_result]]:
    for folder in _entry_folders(group):
        for item in _list(folder.path):
            if _ENTRY_NAME.fullmatch(item.name) and item.name.startswith(folder.name):
                # Another process may remove it meanwhile.
                with suppress(FileNotFoundError):
                    if item.is_file(follow_symlinks=False):
                        yield item.path, item.stat(follow_symlinks=False)


def _list(folder: Path | str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as items:
            return list(items)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SotglpError(
            f"{folder} can't be listed ({os_reason(error)}): give the folder of a feature cache with --cache-dir"
        ) from error
