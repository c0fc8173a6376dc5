"""What is decoded at all: formats, scans of a JPEG, and pixels that Pillow would decode in Python."""

from __future__ import annotations

import re
from typing import IO

from PIL import Image, ImageFile

FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Plug-ins of Pillow that open files; the others are seldom used, and some take gigabytes for a small file."""

MAX_SCANS = 100
"""JPEG files with more scans are rejected: each costs a pass over all pixels, and ordinary files have at most 20."""

MAX_SLOW_PIXELS = 2**22
"""Images that Pillow decodes in Python (run-length BMP, text PPM) have at most as many pixels: a few seconds."""

# In coded data, 0xFF is followed by 0x00 or a restart marker, or repeated as filling.
_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
_SCAN, _END = 0xDA, 0xD9


def why_too_costly(image: Image.Image, file: IO[bytes]) -> str | None:
    """Return why an opened but not yet decoded image of a small file would cost too much, or None."""
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    is_slow = any(tile[0] in Image.DECODERS for tile in tiles)
    if is_slow and image.width * image.height > MAX_SLOW_PIXELS:
        return (
            f"it has {image.width * image.height} pixels, more than the {MAX_SLOW_PIXELS} allowed for this variant of "
            f"{image.format}; save it as PNG or JPEG"
        )
    if image.format in ("JPEG", "MPO"):
        position = file.tell()
        file.seek(0)
        n_scans = count_scans(file.read())
        file.seek(position)
        if n_scans > MAX_SCANS:
            return f"it has more than {MAX_SCANS} scans (a possible decompression bomb); save it again as JPEG"
    return None


def count_scans(jpeg: bytes) -> int:
    """Count the scans of the first image of a JPEG file; the count ends above ``MAX_SCANS``."""
    n_scans, position = 0, 2
    while n_scans <= MAX_SCANS and (found := _MARKER.search(jpeg, position)):
        marker, position = found[1][0], found.end()
        if marker == _END:
            break
        # Other markers between scans have a length, and data in which bytes may look like markers.
        position += int.from_bytes(jpeg[position : position + 2], "big")
        n_scans += marker == _SCAN
    return n_scans
