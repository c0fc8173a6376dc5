"""Where the feature cache lives on disk and how its files are named; imports no torch.

A cache holds groups of entries: ``<root>/<group>/about.json`` describes a group, ``<root>/<group>/<2 digits>/<64
digits>.safetensors`` is the entry of one view of one image.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from sotglp.errors import SotglpError
from sotglp.files.atomic import has_locks

FORMAT_VERSION = 1
LABEL_FILE = "about.json"
VERSION_KEY = "sotglp_features"
SECONDS_PER_DAY = 86400.0


def default_cache_dir() -> Path:
    """Return the cache folder: $SOTGLP_CACHE, else sotglp in $XDG_CACHE_HOME, else ~/.cache/sotglp."""
    if own := os.environ.get("SOTGLP_CACHE"):
        return Path(own).expanduser()
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # By the XDG specification, a relative path is ignored.
    if shared.is_absolute():
        return shared / "sotglp"
    try:
        return Path.home() / ".cache" / "sotglp"
    except RuntimeError as error:
        raise SotglpError(
            "the default cache folder needs a home folder, and there isn't one: set --cache-dir or SOTGLP_CACHE, or "
            "use --no-cache"
        ) from error


def group_name(about: Mapping[str, Any], version: int = FORMAT_VERSION) -> str:
    """Return the folder name of the entries that depend on ``about``, as a version of the format computes it."""
    canonical = json.dumps([version, dict(about)], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def label_content(about: Mapping[str, Any]) -> bytes:
    """Return what a group's ``LABEL_FILE`` holds."""
    return json.dumps({VERSION_KEY: FORMAT_VERSION, "about": dict(about)}, indent=2, sort_keys=True).encode()


def lock_cache(root: Path) -> AbstractContextManager[object]:
    """Return the lock that writers and :func:`sotglp.features.prune.prune` hold; the system frees it after a kill.

    A disk without locks has none, where filelock would wait for ever or leave a file behind that nobody removes.
    """
    path = root / ".lock"
    return FileLock(path) if _has_locks(path) else nullcontext()


_has_locks = cache(has_locks)
