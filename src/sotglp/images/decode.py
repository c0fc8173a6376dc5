"""Decoding of one image, of any source and format, to upright 8-bit RGB."""

from __future__ import annotations

import io
import os
import re
import threading
import warnings
from collections.abc import Callable
from functools import cache
from typing import IO, Any, NamedTuple, TypeAlias, TypeVar, cast

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from sotglp.errors import UnreadableImageError
from sotglp.files.regular import check_regular
from sotglp.images.bounds import FORMATS, why_too_costly
from sotglp.images.formats import HEAD_BYTES, format_of, reads_heic, unsupported_reason
from sotglp.images.value_range import (
    Depth,
    ValueRange,
    ValueRanges,
    declared_range,
    extremes,
    has_deep_color,
    kind_of,
    range_of,
    to_gray,
)

MAX_PIXELS = 178_956_970
"""Images with more pixels are rejected; the default bound of Pillow's error."""

MAX_ASPECT = 1000
"""Images with a larger ratio of their sides are rejected: resized by its shorter side, a strip would fill gigabytes."""

ImageLike: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image"

_ResultT = TypeVar("_ResultT")

_BAND_PIXELS = 2**22
"""Pixels converted at once, so that intermediate arrays take megabytes even for the largest image."""

_LOW_COLOR = 64
"""High bytes of colors of 10, 12 or 14 bits in 16-bit files are below this."""

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


def open_image(source: ImageLike, ranges: ValueRanges | None = None) -> Image.Image:
    """Decode a path, the bytes of an image file or a PIL image to a new upright 8-bit RGB image without metadata.

    The EXIF orientation is applied, transparent pixels become white, and an animation or a file of several pages is its
    first one. Gray with more than 8 bits is scaled by the range that the file declares, else by that of its kind in
    ``ranges``, else by its own values; see :mod:`sotglp.images.value_range`. Raise an UnreadableImageError if the file
    is missing, damaged, incomplete, a pipe or a device, or the image exceeds `MAX_PIXELS` or `MAX_ASPECT`.
    """
    # The decoded image is freed before its copy is rotated: a third copy could take 0.7 GB.
    upright, orientation = _read(source, lambda image: _to_rgb(image, ranges or {}))
    if orientation in _UPRIGHT:
        upright = upright.transpose(_UPRIGHT[orientation])
    # Without its orientation, which a second reader would apply again.
    upright.info = {}
    return upright


class Losses(NamedTuple):
    """What decoding may lose of an image: how it stores gray of more than 8 bits, else None; whether its file has
    several pages, as of TIFF, since animations are usual; whether it is 16-bit color that is dark in its high bytes.
    """

    depth: Depth | None = None
    has_pages: bool = False
    is_low_color: bool = False


def read_losses(source: ImageLike) -> Losses:
    """Return what decoding an image may lose. Errors as in :func:`open_image`."""
    return _read(source, _losses)


def _read(source: ImageLike, convert: Callable[[Image.Image], _ResultT]) -> _ResultT:
    """Open a source and convert it, with errors of both as an UnreadableImageError."""
    if isinstance(source, Image.Image):
        name = getattr(source, "filename", "") or "an image in memory"
        return _decoded(lambda: source, os.fsdecode(name), convert)
    if isinstance(source, bytes):
        return _read_encoded(io.BytesIO(source), "an image given as bytes", convert)
    if not isinstance(source, str | os.PathLike):
        raise UnreadableImageError(
            f"an object of type {type(source).__name__}", "give a path, the bytes of an image file or a PIL image"
        )
    name = os.fspath(source)
    try:
        check_regular(name)
        with open(name, "rb") as file:
            return _read_encoded(file, name, convert)
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


def _read_encoded(file: IO[bytes], name: str, convert: Callable[[Image.Image], _ResultT]) -> _ResultT:
    head = file.read(HEAD_BYTES)
    file.seek(0)
    if not head:
        raise UnreadableImageError(name, "it is empty; replace it or leave it out")
    return _decoded(lambda: _opened(file, head, name), name, convert)


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


def _decoded(decode: Callable[[], Image.Image], name: str, convert: Callable[[Image.Image], _ResultT]) -> _ResultT:
    """Open an image, check its size and convert it."""
    try:
        with _PILLOW_SETTINGS:
            image = decode()
            if 0 in image.size:
                raise UnreadableImageError(name, f"its size is {image.width} x {image.height}, so it has no pixels")
            if max(image.size) > MAX_ASPECT * min(image.size):
                raise UnreadableImageError(
                    name, f"its size is {image.width} x {image.height}, a strip too long to resize; crop it"
                )
            return convert(image)
    except UnreadableImageError:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadableImageError(name, _too_large()) from error
    except MemoryError as error:
        raise UnreadableImageError(name, "decoding it takes more memory than there is; make it smaller") from error
    except Exception as error:  # decoders raise exceptions of any type on damaged data
        if "MAX_TEXT" in str(error):
            reason = "its color profile or other metadata has more than 1 MB; save it without metadata"
            raise UnreadableImageError(name, reason) from error
        raise UnreadableImageError(
            name, f"its data is truncated or damaged ({error}); replace it or leave it out"
        ) from error


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # a damaged EXIF block doesn't affect the pixels
        return 1


def _losses(image: Image.Image) -> Losses:
    has_pages = image.format == "TIFF" and bool(getattr(image, "is_animated", False))
    kind = kind_of(image)
    if kind is None:
        is_deep = has_deep_color(image)
        if is_deep:
            image.load()
        return Losses(None, has_pages, is_deep and max(high for _, high in _extrema(image)) < _LOW_COLOR)
    declared = declared_range(image)
    image.load()
    return Losses(Depth(kind, declared, *extremes(image)), has_pages)


def _extrema(image: Image.Image) -> tuple[tuple[int, int], ...]:
    return cast("tuple[tuple[int, int], ...]", image.convert("RGB").getextrema())


def _to_rgb(image: Image.Image, ranges: ValueRanges) -> tuple[Image.Image, int]:
    """Return an RGB copy as stored, and its EXIF orientation."""
    declared = declared_range(image)
    image.load()
    limits = None
    if kind := kind_of(image):
        limits = declared or ranges.get(kind) or range_of(kind, *extremes(image))
    n_rows = max(_BAND_PIXELS // image.width, 1)
    boxes = [(0, top, image.width, min(top + n_rows, image.height)) for top in range(0, image.height, n_rows)]
    if len(boxes) == 1:
        whole = _band_to_rgb(image, limits)
    else:
        whole = Image.new("RGB", image.size)
        for box in boxes:
            whole.paste(_band_to_rgb(image.crop(box), limits), box)
    # After load(), in which Pillow rotates a TIFF and removes its orientation tag.
    return whole, _orientation(image)


def _band_to_rgb(image: Image.Image, limits: ValueRange | None) -> Image.Image:
    """Convert some rows of an image; ``limits`` are black and white of gray with more than 8 bits."""
    if limits is not None:
        return Image.fromarray(to_gray(np.asarray(image), limits)).convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode in _ALPHA_MODES or (image.mode in _KEYED_MODES and "transparency" in image.info):
        paper = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(paper, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")
