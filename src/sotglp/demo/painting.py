"""Paint batches of shapes, fills, backgrounds and textures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

SIZE = 64
"""Side of a picture in pixels."""

WINDOW = 34
"""Side in pixels of the square in which a part is painted, large enough for all parts."""

BACKGROUND = 255
"""Value of pixels without a part in a part map."""

Grid = NDArray[np.floating[Any]]
"""One number per pixel of pictures or windows; float32 at run time."""

_TAU = np.float32(2 * np.pi)

# Typed aliases of numpy's functions.
_sin: Callable[[Grid], Grid] = np.sin
_cos: Callable[[Grid], Grid] = np.cos
_sqrt: Callable[[Grid], Grid] = np.sqrt
_larger: Callable[[Grid, Grid], Grid] = np.maximum
_smaller: Callable[[Grid, Grid], Grid] = np.minimum


def _length(x: Grid, y: Grid) -> Grid:
    return _sqrt(x * x + y * y)


def _from_0_to_1(values: Grid) -> Grid:
    clipped: Grid = np.clip(values, 0, 1)
    return clipped


class Placement(NamedTuple):
    """Centre (m, 2) as row and column in pixels, radius (m,) in pixels and rotation (m,) in radians of m parts."""

    centre: NDArray[np.float32]
    radius: NDArray[np.float32]
    turn: NDArray[np.float32]

    def corner(self) -> NDArray[np.int64]:
        """Return the first row and column of each part's window, (m, 2)."""
        return np.floor(self.centre).astype(np.int64) - WINDOW // 2

    def grid(self) -> tuple[Grid, Grid]:
        """Return x and y of each pixel of a part's window relative to its centre, (m, WINDOW, WINDOW)."""
        away = self.corner() - self.centre
        steps = np.arange(WINDOW, dtype=np.float32)
        down = (steps[None] + away[:, :1].astype(np.float32))[:, :, None]
        right = (steps[None] + away[:, 1:].astype(np.float32))[:, None, :]
        cos, sin = _cos(self.turn)[:, None, None], _sin(self.turn)[:, None, None]
        return cos * right + sin * down, cos * down - sin * right


def shape_masks(shapes: NDArray[np.int64], where: Placement) -> Grid:
    """Return the coverage of each pixel by m parts, from 0 to 1, (m, WINDOW, WINDOW); shapes index SHAPES, (m,)."""
    right, down = where.grid()
    radius = where.radius[:, None, None]
    right /= radius
    down /= radius
    inside = np.empty_like(right)
    for shape in np.unique(shapes):
        chosen = shapes == shape
        inside[chosen] = _INSIDE[shape](right[chosen], down[chosen])
    return _from_0_to_1(inside * radius + 0.5)


def _circle(x: Grid, y: Grid) -> Grid:
    return 0.92 - _length(x, y)


def _square(x: Grid, y: Grid) -> Grid:
    return 0.8 - _larger(abs(x), abs(y))


def _triangle(x: Grid, y: Grid) -> Grid:
    return 0.55 - _larger(y - 0.15, 0.866 * abs(x) - 0.5 * (y - 0.15))


def _star(x: Grid, y: Grid) -> Grid:
    fifth = np.arctan2(x, -y) * (5 / _TAU) + 0.5
    point = 2 * np.abs(fifth - np.floor(fifth) - 0.5)  # 0 at a tip, 1 between tips
    return (1.08 - 0.68 * _sqrt(point) - _length(x, y)) * np.float32(0.7)


def _cross(x: Grid, y: Grid) -> Grid:
    x, y = abs(x), abs(y)
    return _larger(_smaller(0.3 - x, 0.95 - y), _smaller(0.3 - y, 0.95 - x))


def _ring(x: Grid, y: Grid) -> Grid:
    return 0.23 - abs(_length(x, y) - 0.72)


def _heart(x: Grid, y: Grid) -> Grid:
    lobe = -1.15 * y - 0.15 - 0.75 * (_sqrt(abs(x)) - 0.4)
    return (0.85 - _length(x, lobe)) * np.float32(0.8)


def _moon(x: Grid, y: Grid) -> Grid:
    bite = _length(x - 0.5, y) - 0.72
    return _smaller(0.95 - _length(x, y), bite)


def _arrow(x: Grid, y: Grid) -> Grid:
    x = abs(x)
    head = _smaller(0.05 - y, 0.7 * (y + 1) - 0.75 * x)
    return _larger(head, _smaller(0.24 - x, _smaller(y + 0.1, 0.95 - y)))


def _hourglass(x: Grid, y: Grid) -> Grid:
    y = abs(y)
    return _smaller(0.85 - y, 0.7 * (0.08 + 0.95 * y - abs(x)))


_INSIDE: tuple[Callable[[Grid, Grid], Grid], ...] = (
    _circle,
    _square,
    _triangle,
    _star,
    _cross,
    _ring,
    _heart,
    _moon,
    _arrow,
    _hourglass,
)
"""Signed depth inside a shape of radius 1, in the order of SHAPES."""


def fill_tones(fills: NDArray[np.int64], where: Placement, rng: np.random.Generator) -> Grid:
    """Return the brightness of m parts, 1 for the colour and less in the pattern, (m, WINDOW, WINDOW).

    ``fills`` index FILLS, (m,); ``rng`` draws phase, direction and depth of the patterns.
    """
    right, down = where.grid()
    phase = rng.uniform(0, 2 * np.pi, (2, len(fills), 1, 1)).astype(np.float32)
    pace = (_TAU / rng.uniform(0.9, 1.15, (len(fills), 1, 1))).astype(np.float32)
    depth = rng.uniform(0.55, 0.85, (len(fills), 1, 1)).astype(np.float32)
    tones = np.ones_like(right)
    for fill in np.unique(fills):
        chosen = fills == fill
        pattern = _PATTERN[fill](right[chosen], down[chosen], pace[chosen], phase[:, chosen])
        tones[chosen] = 1 - depth[chosen] * _from_0_to_1(pattern)
    return tones


def _plain(x: Grid, y: Grid, pace: Grid, phase: Grid) -> Grid:
    return np.zeros_like(x)


def _striped(x: Grid, y: Grid, pace: Grid, phase: Grid) -> Grid:
    return 0.5 + 2 * _sin((0.64 * x + 0.77 * y) * (pace / 5.5) + phase[0])


def _dotted(x: Grid, y: Grid, pace: Grid, phase: Grid) -> Grid:
    return 2 * (_cos(x * (pace / 6.5) + phase[0]) + _cos(y * (pace / 6.5) + phase[1]) - 0.6)


def _checkered(x: Grid, y: Grid, pace: Grid, phase: Grid) -> Grid:
    return 0.5 + 4 * _sin(x * (pace / 10) + phase[0]) * _sin(y * (pace / 10) + phase[1])


def _zigzag(x: Grid, y: Grid, pace: Grid, phase: Grid) -> Grid:
    return 0.5 + 2 * _sin(y * (pace / 6.5) + phase[0] + 2.2 * np.arcsin(_sin(x * (pace / 9) + phase[1])))


_PATTERN: tuple[Callable[[Grid, Grid, Grid, Grid], Grid], ...] = (_plain, _striped, _dotted, _checkered, _zigzag)
"""In the order of FILLS; 1 and more is dark, 0 and less is light."""


def paint_parts(
    canvas: NDArray[np.float32],
    part_map: NDArray[np.uint8],
    pictures: NDArray[np.int64],
    slot: int,
    masks: Grid,
    tones: Grid,
    shades: NDArray[np.float32],
    where: Placement,
) -> None:
    """Paint one part into each of m pictures, in place.

    Coverage and brightness are (m, WINDOW, WINDOW), colours (m, 3); ``canvas`` and ``part_map`` have all n pictures,
    and pixels that are mostly covered get the value ``slot`` in the map.
    """
    corner = where.corner()
    steps = np.arange(WINDOW)
    rows, columns = corner[:, :1] + steps, corner[:, 1:] + steps  # (m, WINDOW)
    within = ((rows >= 0) & (rows < SIZE))[:, :, None] & ((columns >= 0) & (columns < SIZE))[:, None, :]
    part, row, column = (within & (masks > 0)).nonzero()
    pixel = (pictures[part] * SIZE + rows[part, row]) * SIZE + columns[part, column]
    cover = masks[part, row, column]
    paint = tones[part, row, column, None] * shades[part]
    flat = canvas.reshape(-1, 3)
    old = flat[pixel]
    flat[pixel] = old + cover[:, None] * (paint - old)
    part_map.reshape(-1)[pixel[cover > 0.5]] = slot


def paint_background(n_pictures: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Paint muted, blotchy backgrounds with a few distracting lines and specks, (n, SIZE, SIZE, 3)."""
    grey = rng.uniform(50, 190, (n_pictures, 1, 1, 1))
    coarse = grey + rng.normal(0, 15, (n_pictures, 1, 1, 3)) + rng.normal(0, 20, (n_pictures, 5, 5, 1))
    coarse = coarse + rng.normal(0, 8, (n_pictures, 5, 5, 3))
    canvas = smooth(coarse.astype(np.float32))
    _draw_lines(canvas, rng)
    n_specks = 24
    picture = np.arange(n_pictures)[:, None]
    row, column = rng.integers(0, SIZE, (2, n_pictures, n_specks))
    canvas[picture, row, column] = rng.uniform(0, 255, (n_pictures, n_specks, 3))
    return canvas


def smooth(coarse: NDArray[np.float32]) -> NDArray[np.float32]:
    """Resize coarse grids (n, k, k, c) to (n, SIZE, SIZE, c) by bilinear interpolation."""
    k, channels = coarse.shape[1], coarse.shape[3]
    position = np.linspace(0, k - 1, SIZE)
    weights = np.maximum(0, 1 - np.abs(position[:, None] - np.arange(k))).astype(np.float32)  # (SIZE, k)
    down = weights @ coarse.reshape(len(coarse), k, k * channels)
    blown_up: NDArray[np.float32] = weights @ down.reshape(len(coarse), SIZE, k, channels)
    return blown_up


def _draw_lines(canvas: NDArray[np.float32], rng: np.random.Generator) -> None:
    n_pictures = len(canvas)
    shown = (rng.random(n_pictures) < 0.5).nonzero()[0]
    angle = rng.uniform(0, np.pi, len(shown)).astype(np.float32)
    offset = rng.uniform(0.2, 0.8, (2, len(shown))).astype(np.float32) * SIZE
    colour = rng.uniform(0, 255, (len(shown), 3)).astype(np.float32)
    steps = np.arange(SIZE, dtype=np.float32)
    across = (steps[None] - offset[0, :, None]) * np.cos(angle)[:, None]
    along = (steps[None] - offset[1, :, None]) * np.sin(angle)[:, None]
    distance = np.abs(across[:, None, :] + along[:, :, None])
    picture, row, column = (distance < 0.8).nonzero()
    canvas[shown[picture], row, column] = colour[picture]


def paint_textures(n_pictures: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Paint gratings, cells, clouds and weaves over whole pictures without parts, uint8 (n, SIZE, SIZE, 3)."""
    kinds = rng.integers(len(_TEXTURES), size=n_pictures)
    light = np.empty((n_pictures, SIZE, SIZE, 1), dtype=np.float32)
    for kind, texture in enumerate(_TEXTURES):
        chosen = kinds == kind
        light[chosen, :, :, 0] = texture(int(chosen.sum()), rng)
    ground = rng.uniform(0, 256, (n_pictures, 1, 1, 3))
    figure = (ground + rng.uniform(80, 176, ground.shape)) % 256  # each channel at least 80 away from the ground's
    painted = ground + light * (figure - ground) + rng.normal(0, 6, (n_pictures, SIZE, SIZE, 3))
    return np.clip(painted, 0, 255).astype(np.uint8)


def _turned_grid(n_pictures: int, rng: np.random.Generator) -> tuple[Grid, Grid]:
    """Two perpendicular coordinates of the pixels, randomly rotated, (n, SIZE, SIZE)."""
    down, right = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    angle = rng.uniform(0, np.pi, (n_pictures, 1, 1)).astype(np.float32)
    return _cos(angle) * right + _sin(angle) * down, _cos(angle) * down - _sin(angle) * right


def _gratings(n_pictures: int, rng: np.random.Generator) -> Grid:
    x, y = _turned_grid(n_pictures, rng)
    period = rng.uniform(4, 16, (n_pictures, 1, 1)).astype(np.float32)
    bend = rng.uniform(0, 2, (n_pictures, 1, 1)).astype(np.float32)
    return 0.5 + 0.5 * _sin(_TAU * x / period + bend * _sin(_TAU * y / (3 * period)))


def _cells(n_pictures: int, rng: np.random.Generator) -> Grid:
    """Voronoi cells of random shades with dark borders."""
    n_sites = 60
    zoom = rng.uniform(0.6, 1, (n_pictures, 1, 1)).astype(np.float32)
    down, right = (zoom * axis for axis in np.mgrid[:SIZE, :SIZE].astype(np.float32))
    sites = rng.uniform(0, SIZE, (n_sites, 2, n_pictures, 1, 1)).astype(np.float32)
    shades = rng.uniform(0.3, 1, (n_sites, n_pictures, 1, 1)).astype(np.float32)
    shade: Grid = np.zeros_like(down)
    nearest, second = np.full_like(down, np.inf), np.full_like(down, np.inf)
    for site, its_shade in zip(sites, shades, strict=True):
        apart = _length(down - site[0], right - site[1])
        shade = np.where(apart < nearest, its_shade, shade)
        second = _smaller(second, _larger(nearest, apart))
        nearest = _smaller(nearest, apart)
    return shade * _from_0_to_1(second - nearest)


def _clouds(n_pictures: int, rng: np.random.Generator) -> Grid:
    cloud = np.zeros((n_pictures, SIZE, SIZE, 1), dtype=np.float32)
    for coarseness in (5, 9, 17, 33):
        strength = rng.uniform(0, 0.4, (n_pictures, 1, 1, 1))
        points = strength * rng.standard_normal((n_pictures, coarseness, coarseness, 1))
        cloud += smooth(points.astype(np.float32))
    return _from_0_to_1(0.5 + cloud[..., 0])


def _weaves(n_pictures: int, rng: np.random.Generator) -> Grid:
    """Light and dark threads, alternately over and under each other."""
    width = rng.uniform(4, 9, (n_pictures, 1, 1)).astype(np.float32)
    (across, warp), (along, weft) = (np.modf(axis / width + 100) for axis in _turned_grid(n_pictures, rng))
    over = (warp + weft) % 2 == 0
    return np.where(over, 0.4 + 0.6 * _sin(np.pi * across), 0.5 * _sin(np.pi * along))


_TEXTURES: tuple[Callable[[int, np.random.Generator], Grid], ...] = (_gratings, _cells, _clouds, _weaves)
"""Lightness of each pixel, from 0 to 1, (n, SIZE, SIZE)."""
