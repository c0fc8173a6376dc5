"""What runs in the processes that decode uploads, within limits of processor time and memory.

This module imports neither torch nor the server, so that a process starts in a fraction of a second.
"""

from __future__ import annotations

import math
import os
import pickle
import re
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

from PIL import Image

from sotglp.errors import UnreadableImageError
from sotglp.images.decode import MAX_PIXELS, count_pixels, open_image
from sotglp.images.value_range import ValueRanges
from sotglp.runtime.preprocessing import Preprocessing

if sys.platform != "win32":
    import resource

_BYTES_A_PIXEL = 40
"""JPEG 2000 takes most: four integers a pixel, of each of which there are two, and the decoded image and its copy."""

_MORE_BYTES = 2**28


@dataclass(frozen=True)
class Bounds:
    """Bounds on decoding one image: its pixels, and seconds of processor time."""

    max_pixels: int
    seconds: int


ORDINARY = Bounds(25_000_000, 2)
"""Bounds for images that are decoded several at once."""

LARGE = Bounds(MAX_PIXELS, 10)
"""Bounds for images that are decoded one at a time."""

ResultT = TypeVar("ResultT")
Work: TypeAlias = "Callable[[bytes], ResultT]"


@dataclass(frozen=True)
class FramedImage:
    """A picture resized and cropped to a model's input, and the size of the upright picture."""

    image: Image.Image
    width: int
    height: int


def frame(preprocessing: Preprocessing, content: bytes, ranges: ValueRanges | None = None) -> FramedImage:
    """Decode an image file and reduce it to what a model sees."""
    picture = open_image(content, ranges)
    return FramedImage(preprocessing.framed(picture), *picture.size)


def store(path: Path, content: bytes, ranges: ValueRanges | None = None) -> None:
    """Decode an image file and write its pixels to an ordinary one."""
    if count_pixels(content) > ORDINARY.max_pixels:
        raise UnreadableImageError(
            "", f"an image of a new class may have {ORDINARY.max_pixels} pixels, and it has more; make it smaller"
        )
    open_image(content, ranges).save(path, "PNG", compress_level=1)


def run_within(bounds: Bounds, work: Work[ResultT], content: bytes) -> tuple[bool, ResultT | None]:
    """Return whether an image has few enough pixels, and then what ``work`` makes of it.

    The system ends this process if it exceeds its limits, which hold from now on.
    """
    # The server decides when a process ends, also where a signal goes to all of them.
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    _limit_time(bounds.seconds)
    # To read its header, some plug-ins reserve memory for all pixels, which they don't touch yet.
    _limit_memory(LARGE.max_pixels)
    if count_pixels(content) > bounds.max_pixels:
        return False, None
    _limit_memory(bounds.max_pixels)
    try:
        return True, work(content)
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
    """Run one request from standard input, behind all other work, and write its result to standard output."""
    if sys.platform != "win32":
        os.nice(10)
    bounds, work, content = pickle.load(sys.stdin.buffer)
    result: object
    try:
        result = run_within(bounds, work, content)
    except Exception as error:
        result = error
    sys.stdout.buffer.write(pickle.dumps(result))


if __name__ == "__main__":
    main()
