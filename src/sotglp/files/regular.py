"""Files whose reading ends: a pipe waits for a writer for ever, and a device may never run out."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def check_regular(path: str | os.PathLike[str]) -> None:
    """Refuse a path that stands for a pipe, a socket or a device; a folder is left to whoever opens it.

    Only the path's entry is looked at: opening a pipe would already wait.

    Raises
    ------
    OSError
        If there is nothing, or something that is neither a file nor a folder; ``strerror`` says which.
    ValueError
        If no file can have that name.
    """
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "it is a pipe, a socket or a device", os.fspath(path))


def read_regular(path: Path) -> bytes:
    """Content of a file; what :func:`check_regular` refuses is refused.

    Raises
    ------
    OSError, ValueError
        See :func:`check_regular`.
    """
    check_regular(path)
    return path.read_bytes()
