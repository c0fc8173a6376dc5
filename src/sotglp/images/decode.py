"""Decoding of one image, of any source and format, to upright 8-bit RGB."""

from __future__ import annotations

import io
import os
import re
import threading
import warnings
from collections.abc import Callable
from functools import cache
from typing import IO, Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from sotglp.errors import UnreadableImageError
from sotglp.files.regular import check_regular
from sotglp.images.bounds import FORMATS, why_too_costly
from sotglp.images.formats import HEAD_BYTES, format_of, reads_heic, unsupported_reason

MAX_PIXELS = 178_956_970
"""Images with more pixels are rejected; the default bound of Pillow's error."""

MAX_ASPECT = 1000
"""Images with a larger ratio of their sides are rejected: resized by its shorter side, a strip would fill gigabytes."""

ImageLike: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image"

_BAND_PIXELS = 2**22
"""Pixels converted at once, so that intermediate arrays take megabytes even for the largest image."""

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ALPHA_MODES = frozenset({"LA", "PA", "RGBA", "RGBa"})
_KEYED_MODES = frozenset({"1", "L", "P", "RGB"})


class _PillowSettings:
    """Pillow's process-wide settings while any thread decodes: no truncated images, no warnings.

    The first thread changes them and the last one restores them. `warnings.catch_warnings` can't do that, because
    threads that overlap restore each other's filters.
    """

    # A large photo below MAX_PIXELS and a damaged EXIF block don't concern the user.
    _FILTER = ("ignore", None, Warning, re.compile(r"PIL\."), 0)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_threads = 0
        self._load_truncated = False
        self._changed: list[list[Any]] = []

    def __enter__(self) -> None:
        with self._lock:
            if self._n_threads == 0:
                self._load_truncated, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
            self._n_threads += 1
            filters = cast("list[Any]", warnings.filters)
            if not filters or filters[0] is not self._FILTER:
                filters.insert(0, self._FILTER)
                self._changed.append(filters)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._n_threads -= 1
            if self._n_threads == 0:
                ImageFile.LOAD_TRUNCATED_IMAGES = self._load_truncated
                # Another thread's catch_warnings may have replaced the list by a copy, or put an older one back.
                for filters in (*self._changed, cast("list[Any]", warnings.filters)):
                    filters[:] = [one for one in filters if one is not self._FILTER]
                self._changed.clear()


_PILLOW_SETTINGS = _PillowSettings()


def open_image(source: ImageLike) -> Image.Image:
    """Decode a path, the bytes of an image file or a PIL image to a new upright 8-bit RGB image without metadata.

    The EXIF orientation is applied, transparent pixels become white, 16-bit gray keeps its high byte, and an animation
    is its first frame. Float gray (mode F) ranges from 0 to 1 if no value is above 1, otherwise from 0 to 255. Raise an
    UnreadableImageError if the file is missing, damaged, incomplete, a pipe or a device, or the image exceeds
    `MAX_PIXELS` or `MAX_ASPECT`.
    """
    if isinstance(source, Image.Image):
        name = getattr(source, "filename", "") or "an image in memory"
        return _read(lambda: source, os.fsdecode(name))
    if isinstance(source, bytes):
        return _read_encoded(io.BytesIO(source), "an image given as bytes")
    if not isinstance(source, str | os.PathLike):
        raise UnreadableImageError(
            f"an object of type {type(source).__name__}", "give a path, the bytes of an image file or a PIL image"
        )
    name = os.fspath(source)
    try:
        check_regular(name)
        with open(name, "rb") as file:
            return _read_encoded(file, name)
    except UnreadableImageError:
        raise
    except (OSError, ValueError) as error:
        raise UnreadableImageError(name, _open_reason(error)) from error


def _open_reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "the file does not exist; check the path"
    if isinstance(error, IsADirectoryError):
        return "it is a folder; give the path of one image file"
    detail = error.strerror if isinstance(error, OSError) else error
    return f"opening it failed ({detail}); check the path and its permissions"


def count_pixels(content: bytes) -> int:
    """Return the number of pixels that the header of an image file declares; 0 if `open_image` refuses the file."""
    try:
        with _PILLOW_SETTINGS:
            image = _opened(io.BytesIO(content), content[:HEAD_BYTES], "")
    except Exception:  # plug-ins raise exceptions of any type on damaged data
        return 0
    return image.width * image.height


def _read_encoded(file: IO[bytes], name: str) -> Image.Image:
    head = file.read(HEAD_BYTES)
    file.seek(0)
    if not head:
        raise UnreadableImageError(name, "it is empty; replace it or leave it out")
    return _read(lambda: _opened(file, head, name), name)


def _opened(file: IO[bytes], head: bytes, name: str) -> Image.Image:
    """Open a file that begins with ``head``, without decoding it."""
    is_heic = format_of(head) == "HEIC" and reads_heic()
    if is_heic:
        _register_heic()
    try:
        image = Image.open(file, formats=[kind for kind in FORMATS if kind != "HEIF" or is_heic])
    except UnidentifiedImageError as error:
        raise UnreadableImageError(name, unsupported_reason(head, name)) from error
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableImageError(name, _too_large(image.width * image.height))
    if reason := why_too_costly(image, file):
        raise UnreadableImageError(name, reason)
    return image


@cache
def _register_heic() -> None:
    import pillow_heif

    pillow_heif.register_heif_opener()


def _too_large(n_pixels: int | None = None) -> str:
    size = "more pixels" if n_pixels is None else f"{n_pixels} pixels, more"
    return f"it has {size} than the limit of {MAX_PIXELS} (a possible decompression bomb); make it smaller"


def _read(decode: Callable[[], Image.Image], name: str) -> Image.Image:
    # The decoded image is freed before its copy is rotated: a third copy could take 0.7 GB.
    upright, orientation = _decoded(decode, name)
    if orientation in _UPRIGHT:
        upright = upright.transpose(_UPRIGHT[orientation])
    # Without its orientation, which a second reader would apply again.
    upright.info = {}
    return upright


def _decoded(decode: Callable[[], Image.Image], name: str) -> tuple[Image.Image, int]:
    """Return an RGB copy as stored, and its EXIF orientation."""
    try:
        with _PILLOW_SETTINGS:
            image = decode()
            if 0 in image.size:
                raise UnreadableImageError(name, f"its size is {image.width} x {image.height}, so it has no pixels")
            if max(image.size) > MAX_ASPECT * min(image.size):
                raise UnreadableImageError(
                    name, f"its size is {image.width} x {image.height}, a strip too long to resize; crop it"
                )
            image.load()
            # After load(), in which Pillow rotates a TIFF and removes its orientation tag.
            return _to_rgb(image), _orientation(image)
    except UnreadableImageError:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadableImageError(name, _too_large()) from error
    except MemoryError as error:
        raise UnreadableImageError(name, "decoding it takes more memory than there is; make it smaller") from error
    except Exception as error:  # decoders raise exceptions of any type on damaged data
        raise UnreadableImageError(
            name, f"its data is truncated or damaged ({error}); replace it or leave it out"
        ) from error


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # a damaged EXIF block doesn't affect the pixels
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    n_rows = max(_BAND_PIXELS // image.width, 1)
    boxes = [(0, top, image.width, min(top + n_rows, image.height)) for top in range(0, image.height, n_rows)]
    white = 1.0 if image.mode == "F" and all(_finite(image.crop(box)).max() <= 1 for box in boxes) else 255.0
    if len(boxes) == 1:
        return _band_to_rgb(image, white)
    whole = Image.new("RGB", image.size)
    for box in boxes:
        whole.paste(_band_to_rgb(image.crop(box), white), box)
    return whole


def _finite(image: Image.Image) -> NDArray[np.float32]:
    return np.nan_to_num(np.asarray(image, dtype=np.float32), posinf=255.0, neginf=0.0)


def _band_to_rgb(image: Image.Image, white: float) -> Image.Image:
    """Convert some rows of an image; ``white`` is the value of white in float gray."""
    if image.mode.startswith("I;16"):
        return _gray(np.asarray(image) >> 8)
    if image.mode == "I":
        # Pillow uses this 32-bit mode for some 16-bit gray (PGM, and PNG in old versions).
        return _gray(np.asarray(image).clip(0, 0xFFFF) >> 8)
    if image.mode == "F":
        return _gray((_finite(image) * (255 / white)).clip(0, 255).round())
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode in _ALPHA_MODES or (image.mode in _KEYED_MODES and "transparency" in image.info):
        paper = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(paper, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _gray(values: NDArray[np.generic]) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8)).convert("RGB")
