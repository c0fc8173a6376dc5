"""Thumbnails, and transport maps drawn over them as SVG paths."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sotglp.explain.map_style import USED, VEIL

LONGEST_SIDE = 240
QUALITY = 75

LEVELS = 6
"""Number of shades; few shades keep paths short, and more are indistinguishable."""


@dataclass(frozen=True)
class Thumbnail:
    """A picture of ``width`` x ``height`` pixels as a data URI of a JPEG."""

    width: int
    height: int
    uri: str

    @classmethod
    def of(cls, picture: Image.Image) -> Thumbnail:
        """Shrink a picture so that its longer side has at most ``LONGEST_SIDE`` pixels."""
        small = picture.copy()
        small.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=QUALITY, optimize=True)
        return cls(*small.size, "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode())


@dataclass(frozen=True)
class MapPaths:
    """SVG paths in pixels of a thumbnail.

    Attributes
    ----------
    veil : str
        The whole picture without the patches that are used; fill with the rule ``evenodd``.
    shades : tuple of (float, str)
        Opacity and patches of each shade; the patches with most mass have no veil.
    outlines : str
        All patches that are used.
    """

    veil: str
    shades: tuple[tuple[float, str], ...]
    outlines: str


def map_paths(thumbnail: Thumbnail, boxes: NDArray[np.float64], mass: NDArray[np.float32]) -> MapPaths:
    """Draw how mass (rows, columns) is distributed over patches, relative to the largest.

    ``boxes`` are left, top, right and bottom of each patch in pixels of the thumbnail, (rows, columns, 4).
    """
    largest = float(mass.max())
    shares = mass / largest if largest > 0 else np.zeros_like(mass)
    levels = np.where(shares >= USED, np.rint(shares * LEVELS).clip(1), 0)
    shades = tuple(
        (round(VEIL * (1 - level / LEVELS), 3), _rectangles(boxes[levels == level]))
        for level in range(1, LEVELS)
        if (levels == level).any()
    )
    outlines = _rectangles(boxes[levels > 0])
    return MapPaths(f"M0 0h{thumbnail.width}v{thumbnail.height}h-{thumbnail.width}z{outlines}", shades, outlines)


def _rectangles(boxes: NDArray[np.float64]) -> str:
    return "".join(
        f"M{left:g} {top:g}h{right - left:g}v{bottom - top:g}h{left - right:g}z"
        for left, top, right, bottom in boxes.round(1)
    )
