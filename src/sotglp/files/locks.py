"""Locks on files, by which processes know of one another; the system takes them from a process that is killed."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import IO


class ClaimedError(Exception):
    """Another process has claimed the file."""


if sys.platform != "win32":
    import fcntl

    def lock(file: IO[bytes]) -> None:
        """Wait until nobody else holds an open file, and hold it until it is closed.

        Some network disks know no locks, and Windows has others: there nothing is held.
        """
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)

    def try_lock(file: IO[bytes]) -> bool:
        """Hold an open file as :func:`lock` does if nobody else does; False also where that can't be told."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def claim(path: Path) -> IO[bytes] | None:
        """Hold a file for this process, but not for those that it forks, which may outlive it.

        Returns
        -------
        file or None
            The open file, which is held until this process closes any handle on it; None where the file is missing.

        Raises
        ------
        ClaimedError
            If another process holds the file.
        OSError
            If the file can't be opened.
        """
        try:
            file = path.open("rb+")
        except FileNotFoundError:
            return None
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.close()
            raise ClaimedError from None
        except OSError:
            # A disk that knows no locks.
            pass
        return file

else:

    def lock(file: IO[bytes]) -> None:
        """Hold nothing."""

    def try_lock(file: IO[bytes]) -> bool:
        """Can't tell."""
        return False

    def claim(path: Path) -> IO[bytes] | None:
        """Hold nothing: Windows replaces no file that is open."""
        return None
