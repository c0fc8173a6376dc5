"""Random pictures of coloured, patterned shapes.

A *part* is a shape, a colour and a fill. Parts of n pictures are (n, S, 3) integers: S slots of (shape, colour, fill),
painted in that order; an empty slot is -1 throughout.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sotglp.demo.painting import (
    BACKGROUND,
    SIZE,
    Placement,
    fill_tones,
    paint_background,
    paint_parts,
    shape_masks,
)

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "heart", "moon", "arrow", "hourglass")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
FILLS = ("plain", "striped", "dotted", "checkered", "zigzag")

KNOWN_SHAPES = 8
"""Number of shapes used in pretraining; the others occur only in out-of-distribution pictures."""

KNOWN_FILLS = 4
"""Number of fills used in pretraining; the others occur only in out-of-distribution pictures."""

MOST_PARTS = 4
NO_PART = -1

RGB = np.array(
    [
        (215, 40, 40),
        (245, 140, 25),
        (240, 220, 50),
        (45, 165, 60),
        (45, 85, 220),
        (125, 45, 160),
        (245, 130, 185),
        (240, 240, 240),
    ],
    dtype=np.float32,
)
"""Mean RGB values of COLOURS, (8, 3), from 0 to 255."""

Parts = NDArray[np.int64]


class Pictures(NamedTuple):
    """Painted pictures and their ground truth.

    Attributes
    ----------
    images : ndarray
        uint8, (n, SIZE, SIZE, 3).
    part_map : ndarray
        Slot of the part visible at each pixel, or BACKGROUND; uint8, (n, SIZE, SIZE).
    parts : ndarray
        (n, S, 3).
    """

    images: NDArray[np.uint8]
    part_map: NDArray[np.uint8]
    parts: Parts


def draw_parts(
    n_pictures: int, rng: np.random.Generator, *, fewest: int = 1, most: int = 3, pool: Parts | None = None
) -> Parts:
    """Draw ``fewest`` to ``most`` parts per picture, no two with the same shape and colour; (n, MOST_PARTS, 3).

    ``pool`` (m, 3) restricts the parts; None draws known shapes, colours and fills independently.
    """
    count = rng.integers(fewest, most + 1, n_pictures)
    if pool is None:
        # Distinct pairs of shape and colour: the first entries of a random permutation.
        pairs = rng.random((n_pictures, KNOWN_SHAPES * len(COLOURS))).argpartition(MOST_PARTS, axis=1)[:, :MOST_PARTS]
        fills = rng.integers(KNOWN_FILLS, size=pairs.shape)
        parts = np.stack([pairs // len(COLOURS), pairs % len(COLOURS), fills], axis=-1)
    else:
        order = rng.random((n_pictures, len(pool))).argsort(axis=1)[:, :MOST_PARTS]
        parts = np.full((n_pictures, MOST_PARTS, 3), NO_PART)
        parts[:, : order.shape[1]] = pool[order]
        count = np.minimum(count, order.shape[1])
    return np.where(np.arange(MOST_PARTS)[None, :, None] < count[:, None, None], parts, NO_PART)


def paint(parts: Parts, rng: np.random.Generator) -> Pictures:
    """Paint pictures of given parts (n, S, 3), with random background, position, size, rotation, shade and noise.

    Parts may overlap slightly, later slots over earlier ones. The generator state determines the pictures bit for bit.
    """
    n_pictures, n_slots = parts.shape[:2]
    canvas = paint_background(n_pictures, rng)
    part_map = np.full((n_pictures, SIZE, SIZE), BACKGROUND, dtype=np.uint8)
    here = parts[:, :, 0] != NO_PART
    placement = _draw_placement(here, rng)
    shades = np.clip(RGB[parts[:, :, 1]] + rng.normal(0, 14, (n_pictures, n_slots, 3)), 0, 255).astype(np.float32)
    for slot in range(n_slots):
        shown = here[:, slot].nonzero()[0]
        where = Placement(*(values[shown, slot] for values in placement))
        masks = shape_masks(parts[shown, slot, 0], where)
        tones = fill_tones(parts[shown, slot, 2], where, rng)
        paint_parts(canvas, part_map, shown, slot, masks, tones, shades[shown, slot], where)
    noise = rng.standard_normal(canvas.shape, dtype=np.float32)
    noise *= rng.uniform(2, 14, (n_pictures, 1, 1, 1)).astype(np.float32)
    canvas += noise
    np.clip(canvas, 0, 255, out=canvas)
    return Pictures(canvas.astype(np.uint8), part_map, parts)


def slot_shares(pictures: Pictures, grid: tuple[int, int]) -> NDArray[np.float64]:
    """Return the share of each patch's pixels that show the part of each slot, (n, P, S).

    ``grid`` has the numbers of rows and columns of patches, divisors of SIZE; P is their product.
    """
    rows, columns = grid
    blocks = pictures.part_map.reshape(-1, rows, SIZE // rows, columns, SIZE // columns)
    shares = [(blocks == slot).mean(axis=(2, 4)) for slot in range(pictures.parts.shape[1])]
    return np.stack(shares, axis=-1).reshape(len(blocks), rows * columns, -1)


def with_article(words: str) -> str:
    """Put the indefinite article before words."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _draw_placement(here: NDArray[np.bool_], rng: np.random.Generator) -> Placement:
    """Radius, rotation and centre of each part: the random draw of ten with the parts farthest apart."""
    n_pictures, n_slots = here.shape
    radius = rng.uniform(8, 13, (n_pictures, n_slots)).astype(np.float32)
    tries = rng.uniform(0, 1, (n_pictures, 10, n_slots, 2)).astype(np.float32)
    margin = (radius * 0.9)[:, None, :, None]
    centres = margin + tries * (SIZE - 2 * margin)  # (n, tries, S, 2): row, column
    nearest = np.full((n_pictures, 10), np.inf, dtype=np.float32)
    for one in range(n_slots):
        for other in range(one):
            apart = np.linalg.norm(centres[:, :, one] - centres[:, :, other], axis=-1)
            apart -= (radius[:, one] + radius[:, other])[:, None]
            both = here[:, one] & here[:, other]
            nearest = np.where(both[:, None], np.minimum(nearest, apart), nearest)
    best = nearest.argmax(axis=1)
    turn = rng.uniform(-0.5, 0.5, (n_pictures, n_slots)).astype(np.float32)
    return Placement(centres[np.arange(n_pictures), best], radius, turn)
