"""Atomic writes that never replace a user's file unasked, and locks between processes."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from sotglp.errors import SotglpError

try:
    import fcntl
except ImportError:  # Windows: nothing is locked, and no open file can be replaced
    fcntl = None  # type: ignore[assignment]


class ClaimedError(Exception):
    """Another process has claimed the file."""


def check_output(path: Path, *, force: bool) -> None:
    """Check before long work that its result can be written; raise SotglpError if it can't or ``path`` exists."""
    _check_kind(path)
    if os.path.exists(path) and not force:
        raise _exists(path)
    try:
        with _temporary(path):
            pass
    except OSError as error:
        raise _unwritable(path, error) from error


def write_file(path: Path, write: Callable[[Path], object], *, force: bool) -> None:
    """Write a temporary file beside ``path`` and rename it, so that no half-written file is ever seen.

    ``write`` gets the temporary path. Missing folders are created, and temporary files of ``path`` that a killed
    process left behind are removed. An existing file is replaced if ``force`` is set, and otherwise an error; a device,
    pipe or socket is never replaced.
    """
    _check_kind(path)
    try:
        place_file(path, write, force=force, durable=True)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        with suppress(OSError):
            _remove_leftovers(path)


def place_file(path: Path, write: Callable[[Path], object], *, force: bool, durable: bool) -> None:
    """Write a file like :func:`write_file`, but raise the system's own error and leave leftovers alone.

    Unless ``durable`` is set, a power cut may leave a torn file under the final name.
    """
    with _temporary(path) as beside:
        write(beside)
        if durable:
            with open(beside, "rb+") as written:
                os.fsync(written.fileno())
        _rename(beside, path, force)


def os_reason(error: OSError) -> str:
    """Return the system's message for an error, without the path."""
    return error.strerror or type(error).__name__


def lock(file: IO[bytes], *, wait: bool = True) -> bool:
    """Lock an open file until it is closed; the system releases the locks of a killed process.

    Return False if another process holds the lock and ``wait`` is off, or where locks are not supported (Windows and
    some network disks).
    """
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def has_locks(path: Path) -> bool:
    """Whether the disk of a file, which is created if it is missing, supports :func:`lock`; some network disks don't.

    True on Windows, which has locks of another kind.
    """
    if fcntl is None:
        return True
    with open(path, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
    return True


def claim(path: Path) -> IO[bytes] | None:
    """Lock a file for this process, but not for the processes that it forks, which may outlive it.

    Return the open file, locked until this process closes any handle on it; None if it is missing, and on Windows.
    Raise ClaimedError if another process holds it.
    """
    if fcntl is None:
        return None
    try:
        file = path.open("rb+")
    except FileNotFoundError:
        return None
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.close()
        raise ClaimedError from None
    except OSError:  # the disk has no locks
        pass
    return file


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """Create an empty file beside ``path`` that is locked, so that it is not taken for a leftover, and remove it."""
    for attempts_left in reversed(range(10)):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
            beside.touch(exist_ok=False)
            file = beside.open("rb+")
            lock(file)
            beside.stat()
            break
        except (FileNotFoundError, FileExistsError):
            # Another process may remove an empty folder, or the file before it is locked.
            if not attempts_left:
                raise
    if fcntl is None:
        file.close()
    try:
        yield beside
    finally:
        beside.unlink(missing_ok=True)
        file.close()


def _remove_leftovers(path: Path) -> None:
    pattern = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.part")
    with os.scandir(path.parent) as items:
        found = [item.path for item in items if pattern.fullmatch(item.name) and item.is_file(follow_symlinks=False)]
    for leftover in found:
        with suppress(FileNotFoundError), open(leftover, "rb+") as file:
            if lock(file, wait=False):
                os.unlink(leftover)


def _rename(beside: Path, path: Path, force: bool) -> None:
    if not force:
        try:
            # Unlike a rename, a link never replaces a file that was created meanwhile.
            os.link(beside, path)
            return
        except OSError as error:
            # Some file systems have no hard links.
            if isinstance(error, FileExistsError) or os.path.exists(path):
                raise _exists(path) from None
    os.replace(beside, path)


def _check_kind(path: Path) -> None:
    if os.path.isdir(path):
        raise SotglpError(f"{path} is a folder: give the name of a file")
    # Some devices, such as /dev/stdout, are links, perhaps to a file.
    folder = os.path.realpath(path.parent)
    if re.fullmatch("/dev|/proc/[^/]+/fd", folder) or (os.path.exists(path) and not os.path.isfile(path)):
        raise SotglpError(f"{path} is a pipe or a device: give the name of a file")


def _exists(path: Path) -> SotglpError:
    return SotglpError(f"{path} exists: give another name, or --force (force=True) to replace it")


def _unwritable(path: Path, error: OSError) -> SotglpError:
    return SotglpError(
        f"{path} can't be written ({os_reason(error)}): choose another name, or a folder with write permission and "
        "free space"
    )
