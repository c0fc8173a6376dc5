"""Ranges of values of a set of images, and warnings about images that lose values or pages when they are decoded."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import cast

from PIL import Image

from sotglp.errors import SotglpWarning, UnreadableImageError
from sotglp.images.decode import Losses, read_losses
from sotglp.images.formats import head_of, may_be_deep
from sotglp.images.image_set import ImageSet, ImageSource
from sotglp.images.value_range import Depth, ValueRange, ValueRanges, kind_of, range_of_set, to_gray

NEARLY_UNIFORM = 16
"""A decoded image whose values differ by less shows nothing."""

DARK = 48
"""Gray value, of 255, that is dark: no photo of nine photo sets is, but the darkest water in aerial images."""

UNKNOWN_DEPTH = "of more than 8 bits, which the model wasn't fitted on, so each is scaled by its own values"
PAGES = "a TIFF of several pages, of which only the first is used"

_USUAL = {"uint16": [(0, 65535)], "int32": [(0, 65535)], "float32": [(0, 1), (0, 255)]}
"""Ranges that need no mention."""


def with_own_ranges(images: ImageSet) -> ImageSet:
    """Return images with ranges for gray of more than 8 bits, found in the whole set; ranges that it has stay.

    Warn of ranges that are not those of a type, and of what is lost of pages and 16-bit color. Unreadable images are
    skipped.
    """
    depths = _survey(images)
    found = range_of_set([depth for _, depth in depths])
    for kind, limits in found.items():
        if kind not in images.ranges and limits not in _USUAL[kind]:
            count = sum(depth.kind == kind and depth.declared is None for _, depth in depths)
            warnings.warn(
                f"{count} images of {kind} values don't declare their range, so {_span(limits)} is scaled to black and "
                "white, in predictions too; scale them to 8 bits yourself if that is wrong",
                SotglpWarning,
                stacklevel=3,
            )
    return replace(images, ranges={**found, **images.ranges}) if found else images


def with_ranges_of(images: ImageSet, ranges: ValueRanges) -> ImageSet:
    """Return images with the ranges of a model.

    Warn of images of a kind that the model has no range for, of those that come out nearly uniform, and of files with
    several pages.
    """
    depths = _survey(images)
    ranged = replace(images, ranges=ranges) if ranges or images.ranges else images
    unknown = [index for index, depth in depths if depth.declared is None and depth.kind not in ranges]
    limits_of = {index: depth.declared or ranges.get(depth.kind) for index, depth in depths}
    uniform = [index for index, depth in depths if (limits := limits_of[index]) and _is_uniform(depth, limits)]
    for indices, what in (
        (unknown, UNKNOWN_DEPTH),
        (uniform, "nearly uniform after decoding, since its values are outside the range of the model's images"),
    ):
        if indices:
            warnings.warn(f"{_images(images, indices)} {what}", SotglpWarning, stacklevel=3)
    return ranged


def warn_of_uniform(images: ImageSet, indices: Sequence[int]) -> None:
    """Warn of images that are nearly uniform after decoding."""
    if indices:
        warnings.warn(f"{_images(images, indices)} {UNIFORM_ADVICE}", SotglpWarning, stacklevel=3)


UNIFORM_ADVICE = (
    "nearly uniform after decoding; look at it, and scale its values to 8 bits if it has more (of color, the high byte "
    "of 16 bits is used)"
)


def is_nearly_uniform(image: Image.Image) -> bool:
    """Whether a decoded image is a nearly uniform gray, as lost values are, and not a plain color."""
    # Most images differ in a few pixels already.
    small = image.resize((min(image.width, 16), min(image.height, 16)), Image.Resampling.NEAREST)
    for picture in (small, image):
        ranges = cast("tuple[tuple[int, int], ...]", picture.getextrema())
        low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
        if high - low >= NEARLY_UNIFORM:
            return False
    return True


def is_dark(image: Image.Image) -> bool:
    """Whether all but the brightest hundredth of a decoded image are darker than ``DARK``."""
    small = image.convert("L")
    small.thumbnail((64, 64), Image.Resampling.BOX)
    histogram = small.histogram()
    return sum(histogram[:DARK]) >= 0.99 * sum(histogram)


def _survey(images: ImageSet) -> list[tuple[int, Depth]]:
    """Find the readable images of more than 8 bits of gray, by index, and warn of what is lost of others."""
    candidates = [index for index, source in enumerate(images.images) if _may_be_deep(source)]
    if not candidates:
        return []

    def read(index: int) -> Losses:
        try:
            return read_losses(images.images[index])  # type: ignore[arg-type]
        except UnreadableImageError:
            return Losses()

    with ThreadPoolExecutor() as pool:
        found = list(zip(candidates, pool.map(read, candidates), strict=True))
    for indices, what in (
        ([index for index, one in found if one.has_pages], PAGES),
        (
            [index for index, one in found if one.is_low_color],
            "16-bit color with low values, probably of 10, 12 or 14 bits, and only the high byte is used; scale its "
            "values to 8 bits",
        ),
    ):
        if indices:
            warnings.warn(f"{_images(images, indices)} {what}", SotglpWarning, stacklevel=4)
    return [(index, one.depth) for index, one in found if one.depth is not None]


def _may_be_deep(source: ImageSource) -> bool:
    """Whether an image may have more than 8 bits of gray or several pages, by the first bytes of its file."""
    if isinstance(source, Image.Image):
        return kind_of(source) is not None or source.format == "TIFF"
    if not isinstance(source, Path) or not os.path.isfile(source):
        return False
    return may_be_deep(head_of(source))


def _is_uniform(depth: Depth, limits: ValueRange) -> bool:
    import numpy as np

    low, high = to_gray(np.array([depth.low, depth.high]), limits)
    return int(high) - int(low) < NEARLY_UNIFORM


def _span(limits: ValueRange) -> str:
    return f"{limits[0]:g} to {limits[1]:g}"


def _images(images: ImageSet, indices: Sequence[int]) -> str:
    first = images.name(indices[0])
    return f"{first} is" if len(indices) == 1 else f"{len(indices)} images, such as {first}, are each"
