"""Placement of labels beside the points of a plot, so that they cover neither points nor each other."""

from __future__ import annotations

import numpy as np
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

ROUNDS = 8
SAMPLES = 9


def place_labels(
    centres: NDArray[np.float64], sizes: NDArray[np.float64], inside: Bbox, pixel: float
) -> NDArray[np.float64]:
    """Place labels around points so that none covers another label, a point or a leader line.

    Coordinate descent: each label in turn moves to its best candidate position, for a few rounds. Centres of points,
    sizes of labels and the returned centres of labels are in pixels, (n, 2); a typographic point has ``pixel`` pixels.
    """
    n = len(centres)
    angles = np.radians(np.arange(0, 360, 15))
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    distances = pixel * np.array([7, 11, 16, 24, 34, 46, 60, 80, 105])
    corners = np.array([[inside.x0, inside.y0], [inside.x1, inside.y1]])
    points, point_sizes = centres, np.full_like(centres, 11 * pixel)
    found: NDArray[np.float64] = centres + (distances[0] + sizes / 2) * (1, 0)
    for _ in range(ROUNDS):
        for i in range(n):
            others = np.arange(n) != i
            candidates = (centres[i] + directions * (distances[:, None, None] + sizes[i] / 2)).reshape(-1, 2)
            blocks = np.concatenate([points[others], found[others]])
            block_sizes = np.concatenate([point_sizes[others], sizes[others]])
            covered = _shared(candidates, sizes[i], blocks, block_sizes) / sizes[i].prod()
            outside = np.clip(corners[0] - candidates + sizes[i] / 2, 0, None) + np.clip(
                candidates + sizes[i] / 2 - corners[1], 0, None
            )
            own = _lines(centres[i], candidates, sizes[i])
            crossing = _within(own, blocks, block_sizes).sum(axis=(1, 2))
            theirs = _lines(centres[others], found[others], sizes[others]).reshape(-1, 2)
            crossed = _within(theirs, candidates, sizes[i]).sum(axis=0)
            away = np.repeat(distances, len(directions)) / distances[-1]
            cost = 300 * covered + outside.sum(axis=1) + crossing + crossed + away
            found[i] = candidates[cost.argmin()]
    return found


def _shared(
    candidates: NDArray[np.float64], size: NDArray[np.float64], others: NDArray[np.float64], sizes: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Overlap of a box at each candidate with other boxes, (n candidates,)."""
    common = np.clip((size + sizes) / 2 - np.abs(candidates[:, None] - others), 0, np.minimum(size, sizes))
    areas: NDArray[np.float64] = common.prod(axis=-1).sum(axis=1)
    return areas


def _lines(
    starts: NDArray[np.float64], middles: NDArray[np.float64], sizes: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Samples of the shortest lines from points to boxes, (n boxes, samples, 2)."""
    ends = np.clip(starts, middles - sizes / 2, middles + sizes / 2)
    shares = np.linspace(0, 1, SAMPLES)[:, None]
    return np.asarray((1 - shares) * np.broadcast_to(starts, ends.shape)[:, None] + shares * ends[:, None])


def _within(samples: NDArray[np.float64], boxes: NDArray[np.float64], sizes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which samples (..., 2) are in which boxes (n, 2), (..., n)."""
    return np.asarray((np.abs(samples[..., None, :] - boxes) < sizes / 2).all(axis=-1))
