"""Black and white of gray images with more than 8 bits, which fill very different parts of their type's range.

A file may declare its range. Otherwise the range of a whole set applies, which a model file stores, so that images are
scaled alike in training and at prediction. An image without either is scaled by its own values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ValueRange: TypeAlias = tuple[float, float]
"""Values of black and white."""

ValueRanges: TypeAlias = Mapping[str, ValueRange]
"""Ranges by kind of stored value: uint16, int32 (signed 16-bit files too) or float32."""

KINDS = ("uint16", "int32", "float32")

_WHITES = tuple(float(2**bits - 1) for bits in (8, 10, 12, 14, 16))
_OVERSHOOT = 1.25
"""Floating point values may exceed white a little, after resampling for example."""
_NARROW = 16
"""Values in less than this part of the range of their depth are stretched."""
_PERCENTILES = (0.1, 99.9)
"""Single hot or dead pixels don't determine a range."""
_MAX_SAMPLES = 2**20
_LARGEST = 1e37
_BITS, _MAX_SAMPLE, _SMIN_SAMPLE, _SMAX_SAMPLE = 258, 281, 340, 341


class Depth(NamedTuple):
    """How an image stores its values: kind, declared range if any, and robust extremes of its values."""

    kind: str
    declared: ValueRange | None
    low: float
    high: float


def kind_of(image: Image.Image) -> str | None:
    """Return the kind of value of a gray image with more than 8 bits; None for other images."""
    if image.mode.startswith("I;16"):
        return "uint16"
    return {"I": "int32", "F": "float32"}.get(image.mode)


def has_deep_color(image: Image.Image) -> bool:
    """Whether an image that isn't loaded yet has 16-bit colors, of which Pillow reads the high bytes."""
    tiles = getattr(image, "tile", None) or ()
    return kind_of(image) is None and any(";16" in str(tile[3]) for tile in tiles)


def declared_range(image: Image.Image) -> ValueRange | None:
    """Return the range that the file of an image declares, before the image is loaded; None if it declares none."""
    tiles = getattr(image, "tile", None)
    if image.format == "JPEG2000" or (image.format == "PPM" and tiles and tiles[0][0] != "raw"):
        return 0, 65535  # Pillow has scaled the values.
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    try:
        low, high = float(_first(tags.get(_SMIN_SAMPLE, 0))), float(_first(tags.get(_SMAX_SAMPLE, 0)))
        if low < high and np.isfinite([low, high]).all() and high not in (65535, 2**31 - 1, 2**32 - 1):
            return low, high
        bits = int(_first(tags.get(_BITS, 0)))
        if 8 < bits < 16:
            return 0, 2.0**bits - 1
        # By the TIFF standard a statistic of the one image, unless it is the white of a depth.
        high = float(_first(tags.get(_MAX_SAMPLE, 0)))
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
    return (0, high) if high in _WHITES[:-1] else None


def extremes(image: Image.Image) -> ValueRange:
    """Return robust extremes of the finite values of a gray image, (0, 0) if it has none."""
    step = max(int(np.sqrt(image.width * image.height / _MAX_SAMPLES)), 1)
    values = np.asarray(image)[::step, ::step]
    values = values[np.isfinite(values)]
    if not values.size:
        return 0, 0
    low, high = np.percentile(values.astype(np.float64), _PERCENTILES)
    return float(low), float(high)


def range_of(kind: str, low: float, high: float) -> ValueRange:
    """Choose black and white for values between two extremes.

    White is 2^8 - 1, 2^10 - 1, 2^12 - 1, 2^14 - 1 or 2^16 - 1, the first that is not below ``high``, or for floating
    point 1 before these. Negative values, larger ones, and those in a sixteenth of that range span black to white.
    """
    slack = _OVERSHOOT if kind == "float32" else 1
    whites = (1.0, *_WHITES) if kind == "float32" else _WHITES
    white = next((one for one in whites if high <= one * slack), None)
    is_narrow = white != _WHITES[0] and (white is None or (high - low) * _NARROW < white)
    is_noise = kind != "float32" and high - low < _NARROW
    if low < high and (low < 0 or (is_narrow and not is_noise)):
        return low, high
    return 0, max(high, 1) if white is None else white


def range_of_set(depths: Iterable[Depth]) -> dict[str, ValueRange]:
    """Choose a range for each kind of value of images that declare none."""
    found: dict[str, list[Depth]] = {}
    for depth in depths:
        if depth.declared is None:
            found.setdefault(depth.kind, []).append(depth)
    return {
        kind: range_of(kind, min(one.low for one in group), max(one.high for one in group))
        for kind, group in sorted(found.items())
    }


def checked_ranges(raw: Any) -> dict[str, ValueRange]:
    """Return the ranges of a record; raise a ValueError if they are not valid."""
    if not isinstance(raw, dict) or not set(raw) <= set(KINDS):
        raise ValueError("value_ranges")
    found: dict[str, ValueRange] = {}
    for kind, limits in raw.items():
        if not isinstance(limits, list) or [type(value) in (int, float) for value in limits] != [True, True]:
            raise ValueError(f"value_ranges of {kind}")
        black, white = limits
        # Finite as float32 too, in which values are scaled.
        if not (abs(black) < _LARGEST and abs(white) < _LARGEST and black < white):
            raise ValueError(f"value_ranges of {kind}")
        found[kind] = (float(black), float(white))
    return found


def to_gray(values: NDArray[Any], limits: ValueRange) -> NDArray[np.uint8]:
    """Scale values between black and white to uint8; NaN is black."""
    black, white = limits
    if black == 0 and white in _WHITES and values.dtype.kind in "iu":
        # The high byte, so that 16 bits give what other programs show.
        return (values.clip(0, int(white)) >> (int(white).bit_length() - 8)).astype(np.uint8)
    finite = np.nan_to_num(values.astype(np.float32), nan=black, posinf=white, neginf=black)
    return ((finite - np.float32(black)) * (255 / (white - black))).clip(0, 255).round().astype(np.uint8)


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) else value
