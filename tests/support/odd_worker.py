"""A decoding process of the server with further jobs, which stand for what a damaged file does to a decoder."""

from __future__ import annotations

import errno
import re
from typing import Any

from sotglp.web import decode_worker
from sotglp.web.messages import Message


def length(content: bytes) -> Message:
    return Message({"length": len(content)})


def endless(content: bytes) -> Message:
    """A decoder that a small file keeps busy for ever."""
    return Message({"found": bool(re.fullmatch(rb"(x+x+)+y", b"x" * 60))})


def huge(content: bytes) -> Message:
    """A decoder that takes all memory."""
    return Message({}, content * 10**9)


def full(content: bytes) -> Message:
    """A job that writes to a full disk."""
    raise OSError(errno.ENOSPC, "No space left on device", "/a/path/of/the/server")


def noise(content: bytes) -> Any:
    """A decoder that a file has taken over."""
    print("\x80\x04K\x01." * 10, flush=True)
    return Message({})


decode_worker.JOBS.update({job.__name__: job for job in (length, endless, huge, full, noise)})

if __name__ == "__main__":
    decode_worker.main()
