"""Standard output and error that never end in a traceback: other encodings, closed pipes, full disks."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress

from sotglp.console.text import printable
from sotglp.errors import SotglpError

STANDARD_OUTPUT = "-"

_NAMES_OF_STANDARD_OUTPUT = frozenset({STANDARD_OUTPUT, "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"})

_STREAM_ERRORS = frozenset({errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})
"""Errors of writing, which have no file name if a stream was written to."""


def prepare_streams() -> None:
    """Escape characters that the encoding of standard output or error lacks, such as Cyrillic letters in cp1252."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started the process
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def is_standard_output(target: str | None) -> bool:
    """Whether a target is ``-`` or a name of standard output."""
    return target in _NAMES_OF_STANDARD_OUTPUT


def write_result(content: str) -> None:
    """Write a result for programs to standard output: UTF-8, whatever the encoding of the stream."""
    if not isinstance(sys.stdout, io.TextIOWrapper):  # such as that of a notebook
        sys.stdout.write(content)
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(content.encode())
    sys.stdout.buffer.flush()


def complain(line: str) -> None:
    """Print a line on standard error, with control characters escaped; if nobody can read it, go on without."""
    with suppress(OSError, ValueError):
        # A single write isn't interleaved with those of other processes of a run.
        sys.stderr.write(f"sotglp: {printable(line)}\n")
        sys.stderr.flush()


def flush_output() -> None:
    """Write out what is buffered, while an error can still be reported."""
    sys.stdout.flush()


def stream_error(error: OSError) -> SotglpError | None:
    """Return the message for an error of writing to a stream: empty if the reader is gone; None for other errors."""
    if error.filename is not None or error.errno not in _STREAM_ERRORS:
        return None
    # Otherwise the interpreter tries again at its end, and prints a traceback.
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    if error.errno == errno.EPIPE:
        return SotglpError("")
    return SotglpError(f"standard output can't be written ({error.strerror}): free space, or write to a file")
