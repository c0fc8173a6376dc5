"""Files that are either whole or not there, and never written over what a user made."""

from __future__ import annotations

import os
import re
import secrets
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from sotglp.errors import SotglpError
from sotglp.files.locks import lock, try_lock


def check_output(path: Path, *, force: bool) -> None:
    """Find out before long work whether its result can be written.

    Raises
    ------
    SotglpError
        If ``path`` exists and ``force`` is off, is a folder, or lies where nothing can be written.
    """
    try:
        is_folder, is_there = path.is_dir(), path.exists()
    except OSError as error:
        raise _unwritable(path, error) from error
    if is_folder:
        raise SotglpError(f"{path} is a folder: give the name of a file")
    if is_there and not force:
        raise SotglpError(f"{path} exists: give another name, or --force (force=True) to replace it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise _unwritable(path, error) from error


def write_file(path: Path, write: Callable[[Path], object], *, force: bool) -> None:
    """Write a file beside its place and rename it into it, so that no half-written file is ever seen.

    What a killed process left beside the place, when it was writing the same file, is removed.

    Parameters
    ----------
    path : Path
        Where the file goes; its folder is made if it is missing.
    write : callable
        Writes the whole content to the path that it is given.
    force : bool
        Replace an existing file; otherwise it is kept and the write refused.

    Raises
    ------
    SotglpError
        If ``path`` exists and ``force`` is off, or the disk refuses the write.
    """
    try:
        place_file(path, write, force=force, durable=True)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        # Nothing that the user asked for depends on it.
        with suppress(OSError):
            _clear_leftovers(path)


def place_file(path: Path, write: Callable[[Path], object], *, force: bool, durable: bool) -> None:
    """Do what :func:`write_file` does, for callers that tell in their own words what the disk refused.

    Parameters
    ----------
    path, write, force
        See :func:`write_file`.
    durable : bool
        Wait until the disk has the content. Without it a power cut may leave a torn file under the final name.

    Raises
    ------
    SotglpError
        If ``path`` exists and ``force`` is off.
    OSError
        If the disk refuses the write.
    """
    with ExitStack() as held:
        beside = _make_beside(path, held)
        try:
            write(beside)
            if durable:
                with open(beside, "rb+") as written:
                    os.fsync(written.fileno())
            _put_in_place(beside, path, force)
        finally:
            beside.unlink(missing_ok=True)


def _make_beside(path: Path, held: ExitStack) -> Path:
    """An empty file beside ``path``, locked as long as ``held`` is open, which tells it from a leftover."""
    attempts_left = 10
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
            beside.touch(exist_ok=False)
            _hold(beside, held)
            return beside
        except (FileNotFoundError, FileExistsError):
            # Another process may clear an empty folder away between its making and its use, or take the file for a
            # leftover before it is locked.
            attempts_left -= 1
            if attempts_left == 0:
                raise


def _hold(beside: Path, held: ExitStack) -> None:
    # Windows renames no file that is open.
    if sys.platform != "win32":
        file = held.enter_context(beside.open("rb+"))
        lock(file)
        beside.stat()


def _clear_leftovers(path: Path) -> None:
    """Remove what processes that were killed have left of ``path``: what nobody holds any more."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.part")
    with os.scandir(path.parent) as items:
        found = [item.path for item in items if pattern.fullmatch(item.name) and item.is_file(follow_symlinks=False)]
    for leftover in found:
        # Another process may clear it away as well.
        with suppress(FileNotFoundError), open(leftover, "rb+") as file:
            if try_lock(file):
                os.unlink(leftover)


def _put_in_place(beside: Path, path: Path, force: bool) -> None:
    if force:
        os.replace(beside, path)
        return
    try:
        # Unlike a rename, a link never replaces a file that came into being meanwhile.
        os.link(beside, path)
    except FileExistsError:
        raise SotglpError(f"{path} exists: give another name, or --force (force=True) to replace it") from None
    except OSError:
        # Some file systems know no hard links.
        if path.exists():
            raise SotglpError(f"{path} exists: give another name, or --force (force=True) to replace it") from None
        os.replace(beside, path)


def os_reason(error: OSError) -> str:
    """What the system says of an error, without the path."""
    return error.strerror or type(error).__name__


def _unwritable(path: Path, error: OSError) -> SotglpError:
    return SotglpError(
        f"{path} can't be written ({os_reason(error)}): choose a folder that you may write to and that has room"
    )
