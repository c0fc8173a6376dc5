"""Where prompts looked, as SVG paths over a picture: it is darkened but for the patches that were taken."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sotglp.report.pictures import Thumbnail

DARKNESS = 0.72
"""How opaque the veil over patches is that nobody took."""

LEVELS = 6
"""Shades of taken patches; few of them make short paths, and an eye tells no more apart."""


@dataclass(frozen=True)
class MapPaths:
    """Paths in pixels of a thumbnail.

    Attributes
    ----------
    veil : str
        The whole picture with holes where patches were taken, to be filled by the rule ``evenodd``.
    shades : tuple of (float, str)
        Opacity of the veil over the patches of each shade, and these patches; those most taken have no veil.
    outlines : str
        All taken patches.
    """

    veil: str
    shades: tuple[tuple[float, str], ...]
    outlines: str


def map_paths(thumbnail: Thumbnail, boxes: NDArray[np.float64], mass: NDArray[np.float32]) -> MapPaths:
    """Draw how mass is spread over patches, in shares of the largest.

    Parameters
    ----------
    thumbnail : Thumbnail
        The picture.
    boxes : NDArray
        Left, top, right and bottom of each patch in its pixels, (rows, columns, 4).
    mass : NDArray
        (rows, columns). Patches below half a shade are drawn as if nobody had taken them.
    """
    largest = float(mass.max())
    levels = np.rint(mass / largest * LEVELS).astype(int) if largest > 0 else np.zeros(mass.shape, int)
    shades = []
    for level in range(1, LEVELS):
        if (levels == level).any():
            shades.append((round(DARKNESS * (1 - level / LEVELS), 3), _rectangles(boxes[levels == level])))
    taken = _rectangles(boxes[levels > 0])
    return MapPaths(f"M0 0h{thumbnail.width}v{thumbnail.height}h-{thumbnail.width}z{taken}", tuple(shades), taken)


def _rectangles(boxes: NDArray[np.float64]) -> str:
    return "".join(
        f"M{left:g} {top:g}h{right - left:g}v{bottom - top:g}h{left - right:g}z"
        for left, top, right, bottom in boxes.round(1)
    )
