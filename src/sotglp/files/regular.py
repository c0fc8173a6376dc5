"""Reading of regular files only: a pipe would wait for a writer, and a device may never end."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def check_regular(path: str | os.PathLike[str]) -> None:
    """Raise OSError for pipes, sockets and devices, without opening them, and missing files; folders pass."""
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "it is a pipe, a socket or a device", os.fspath(path))


def read_regular(path: Path) -> bytes:
    """Return the content of a file that :func:`check_regular` accepts."""
    check_regular(path)
    return path.read_bytes()
