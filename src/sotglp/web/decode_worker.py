"""What runs in the processes that decode uploads, within limits of processor time and memory.

This module imports neither torch nor the server, so that a process starts in a fraction of a second.
"""

from __future__ import annotations

import errno
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from sotglp.errors import UnreadableImageError
from sotglp.images.decode import MAX_PIXELS, count_pixels, open_image
from sotglp.images.value_range import ValueRanges
from sotglp.runtime.preprocessing import Preprocessing
from sotglp.web.messages import Message, read_message, write_message

if sys.platform != "win32":
    import resource

_BYTES_A_PIXEL = 40
"""JPEG 2000 takes most: four integers a pixel, of each of which there are two, and the decoded image and its copy."""

_MORE_BYTES = 2**28

_LONGEST_ERROR = 1000

_KEPT_SIDE = 768
"""Shorter side of a picture to train on; published backbones see at most 512 pixels."""

_KEPT_PIXELS = 2**22

_THUMBNAIL_SIDE = 256


@dataclass(frozen=True)
class Bounds:
    """Bounds on decoding one image: its pixels, and seconds of processor time."""

    max_pixels: int
    seconds: int


ORDINARY = Bounds(25_000_000, 2)
"""Bounds for images that are decoded several at once."""

LARGE = Bounds(MAX_PIXELS, 10)
"""Bounds for images that are decoded one at a time."""


def frame(content: bytes, settings: dict[str, Any], ranges: ValueRanges) -> Message:
    """Decode an image file and reduce it to what a model sees; ``settings`` are those of the preprocessing.

    Return the width and height of the upright picture, and the pixels, (height, width, 3) uint8.
    """
    picture = open_image(content, ranges)
    width, height = picture.size
    return Message({"width": width, "height": height}, Preprocessing(**settings).framed(picture).tobytes())


def store(content: bytes, path: str, ranges: ValueRanges) -> Message:
    """Decode an image file and write its pixels to an ordinary one."""
    if count_pixels(content) > ORDINARY.max_pixels:
        raise UnreadableImageError(
            "", f"an image of a new class may have {ORDINARY.max_pixels} pixels, and it has more; make it smaller"
        )
    open_image(content, ranges).save(path, "PNG", compress_level=1)
    return Message({})


def keep(content: bytes, path: str, thumbnail: str) -> Message:
    """Decode an image file, and write a picture to train on and a thumbnail of it."""
    picture = open_image(content)
    width, height = picture.size
    scale = min(1.0, _KEPT_SIDE / min(width, height), math.sqrt(_KEPT_PIXELS / (width * height)))
    if scale < 1:
        size = max(round(width * scale), 1), max(round(height * scale), 1)
        picture = picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    picture.save(path, "PNG", compress_level=1)
    picture.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
    picture.save(thumbnail, "JPEG", quality=85)
    return Message({})


JOBS: dict[str, Callable[..., Message]] = {"frame": frame, "store": store, "keep": keep}
"""What the server can ask for, by name; further arguments are JSON values."""


def answer_to(request: Message) -> Message:
    """Return the answer to a request; its ``status`` is that of the result."""
    name, arguments, bounds = (request.header[key] for key in ("job", "arguments", "bounds"))
    try:
        done = run_within(Bounds(*bounds), JOBS[name], request.body, arguments)
    except UnreadableImageError as error:
        return Message({"status": "unreadable", "reason": error.reason})
    except OSError as error:
        return Message({"status": "lacking", "errno": error.errno or errno.EIO})
    except Exception as error:
        return Message({"status": "failed", "error": repr(error)[:_LONGEST_ERROR]})
    return Message({**done.header, "status": "done"}, done.body) if done else Message({"status": "large"})


def run_within(
    bounds: Bounds, job: Callable[..., Message], content: bytes, arguments: Mapping[str, Any]
) -> Message | None:
    """Return what a job makes of an image; None if the image has more pixels than allowed.

    The system ends this process if it exceeds its limits, which hold from now on.
    """
    _limit_time(bounds.seconds)
    # To read its header, some plug-ins reserve memory for all pixels, which they don't touch yet.
    _limit_memory(LARGE.max_pixels)
    if count_pixels(content) > bounds.max_pixels:
        return None
    _limit_memory(bounds.max_pixels)
    try:
        return job(content, **arguments)
    except MemoryError as error:
        raise UnreadableImageError("", "decoding it takes too much memory; make it smaller") from error


def _limit_time(seconds: int) -> None:
    if sys.platform != "win32":
        used = resource.getrusage(resource.RUSAGE_SELF)
        _lower(resource.RLIMIT_CPU, math.ceil(used.ru_utime + used.ru_stime) + seconds)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _limit_memory(n_pixels: int) -> None:
    if sys.platform == "linux":
        with suppress(OSError):
            # If memory runs out nevertheless, this process ends and not the server.
            Path("/proc/self/oom_score_adj").write_text("1000")
            found = re.search(r"VmData:\s*(\d+) kB", Path("/proc/self/status").read_text())
            if found:
                _lower(resource.RLIMIT_DATA, 1024 * int(found[1]) + _MORE_BYTES + _BYTES_A_PIXEL * n_pixels)


def _lower(limit: int, value: int) -> None:
    hard = resource.getrlimit(limit)[1]
    resource.setrlimit(limit, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def main() -> None:
    """Answer requests from standard input until its end, on standard output."""
    # The server decides when a process ends, also where a signal goes to all of them.
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    if "--background" in sys.argv and sys.platform != "win32":
        os.nice(10)
    with suppress(EOFError, BrokenPipeError):
        while True:
            answer = answer_to(read_message(sys.stdin.buffer))
            write_message(sys.stdout.buffer, *answer)


if __name__ == "__main__":
    main()
