"""Where names stand beside points so that none covers another one or a point."""

from __future__ import annotations

import numpy as np
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

ROUNDS = 4
SPOTS = 9


def arrange(
    centres: NDArray[np.float64], sizes: NDArray[np.float64], inside: Bbox, pixel: float
) -> NDArray[np.float64]:
    """Find places for names around points, so that no name lies on another one, on a point or on a line to a name.

    Each name in turn takes the best of its places with the others where they are, a few times over.

    Parameters
    ----------
    centres, sizes : NDArray
        Of points and of their names, in pixels, (n, 2).
    inside : Bbox
        Where names may stand.
    pixel : float
        Pixels of a typographic point.

    Returns
    -------
    NDArray
        Middles of the names, (n, 2).
    """
    n = len(centres)
    angles = np.radians(np.arange(0, 360, 15))
    ways = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    distances = pixel * np.array([7, 11, 16, 24, 34, 46, 60, 80])
    corners = np.array([[inside.x0, inside.y0], [inside.x1, inside.y1]])
    points, point_sizes = centres, np.full_like(centres, 11 * pixel)
    found: NDArray[np.float64] = centres + (distances[0] + sizes / 2) * (1, 0)
    for _ in range(ROUNDS):
        for i in range(n):
            others = np.arange(n) != i
            places = (centres[i] + ways * (distances[:, None, None] + sizes[i] / 2)).reshape(-1, 2)
            blocks = np.concatenate([points[others], found[others]])
            block_sizes = np.concatenate([point_sizes[others], sizes[others]])
            covered = _shared(places, sizes[i], blocks, block_sizes) / sizes[i].prod()
            outside = np.clip(corners[0] - places + sizes[i] / 2, 0, None) + np.clip(
                places + sizes[i] / 2 - corners[1], 0, None
            )
            own = _lines(centres[i], places, sizes[i])
            crossing = _within(own, blocks, block_sizes).sum(axis=(1, 2))
            theirs = _lines(centres[others], found[others], sizes[others]).reshape(-1, 2)
            crossed = _within(theirs, places, sizes[i]).sum(axis=0)
            away = np.repeat(distances, len(ways)) / distances[-1]
            cost = 300 * covered + outside.sum(axis=1) + crossing + crossed + away
            found[i] = places[cost.argmin()]
    return found


def _shared(
    places: NDArray[np.float64], size: NDArray[np.float64], others: NDArray[np.float64], sizes: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Area that a box at each place has in common with other boxes, (n places,)."""
    common = np.clip((size + sizes) / 2 - np.abs(places[:, None] - others), 0, np.minimum(size, sizes))
    areas: NDArray[np.float64] = common.prod(axis=-1).sum(axis=1)
    return areas


def _lines(
    starts: NDArray[np.float64], middles: NDArray[np.float64], sizes: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Spots on the shortest lines from points to boxes, (n boxes, spots, 2)."""
    ends = np.clip(starts, middles - sizes / 2, middles + sizes / 2)
    shares = np.linspace(0, 1, SPOTS)[:, None]
    return np.asarray((1 - shares) * np.broadcast_to(starts, ends.shape)[:, None] + shares * ends[:, None])


def _within(spots: NDArray[np.float64], boxes: NDArray[np.float64], sizes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which spots (..., 2) lie in which boxes (n, 2), (..., n)."""
    return np.asarray((np.abs(spots[..., None, :] - boxes) < sizes / 2).all(axis=-1))
