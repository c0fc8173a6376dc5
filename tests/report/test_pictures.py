from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from sotglp.explain.map_style import USED, VEIL
from sotglp.report.pictures import LEVELS, LONGEST_SIDE, Thumbnail, map_paths

NUMBER = r"(-?[\d.]+)"
RECTANGLE = re.compile(rf"M{NUMBER} {NUMBER}h{NUMBER}v{NUMBER}h{NUMBER}z")


def rectangles(path: str) -> list[tuple[float, ...]]:
    """Left, top, right, bottom of what a path goes round; nothing else may stand in it."""
    assert RECTANGLE.sub("", path) == ""
    found = []
    for left, top, width, height, back in (map(float, one) for one in RECTANGLE.findall(path)):
        assert back == -width
        found.append((left, top, left + width, top + height))
    return found


def grid(rows: int, columns: int, size: float = 12.5) -> NDArray[np.float64]:
    tops, lefts = np.meshgrid(np.arange(rows) * size, np.arange(columns) * size, indexing="ij")
    return np.stack([lefts, tops, lefts + size, tops + size], axis=-1)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_each_patch_is_as_dark_as_little_of_the_mass_lies_on_it(rows: int, columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mass = (rng.random((rows, columns)) * (rng.random((rows, columns)) < 0.7)).astype(np.float32)
    boxes = grid(rows, columns)
    picture = Thumbnail(70, 60, "")
    paths = map_paths(picture, boxes, mass)
    whole, *holes = rectangles(paths.veil)
    assert whole == (0, 0, 70, 60)
    assert holes == rectangles(paths.outlines)
    veils = {box: opacity for opacity, path in paths.shades for box in rectangles(path)}
    for row in range(rows):
        for column in range(columns):
            box = tuple(boxes[row, column])
            veil = veils.get(box, 0.0) if box in holes else VEIL
            share = mass[row, column] / mass.max() if mass.max() > 0 else 0
            assert (box in holes) == (share >= USED)
            assert abs(veil - VEIL * (1 - share)) <= VEIL / LEVELS / 2 + 2e-3


def test_paths_are_short_where_every_patch_has_some_mass() -> None:
    mass = np.random.default_rng(0).random((24, 24)).astype(np.float32)
    paths = map_paths(Thumbnail(240, 240, ""), grid(24, 24, 10), mass)
    nothing = map_paths(Thumbnail(25, 25, ""), grid(2, 2), np.zeros((2, 2), np.float32))
    assert (nothing.shades, nothing.outlines, rectangles(nothing.veil)) == ((), "", [(0, 0, 25, 25)])
    assert len(paths.veil) + len(paths.outlines) + sum(len(path) for _, path in paths.shades) < 45_000


def opened(thumbnail: Thumbnail) -> Image.Image:
    kind, _, data = thumbnail.uri.partition(",")
    assert kind == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


@pytest.mark.parametrize(
    ("size", "shown"),
    [((1200, 600), (240, 120)), ((300, 900), (80, 240)), ((64, 48), (64, 48)), ((4000, 5), (240, 1))],
)
def test_thumbnails_are_small_jpegs(size: tuple[int, int], shown: tuple[int, int]) -> None:
    picture = Image.new("RGB", size, (200, 30, 30))
    thumbnail = Thumbnail.of(picture)
    assert (thumbnail.width, thumbnail.height) == opened(thumbnail).size == shown
    assert max(shown) <= LONGEST_SIDE
    assert np.abs(np.asarray(opened(thumbnail)).mean(axis=(0, 1)) - (200, 30, 30)).max() < 3
    assert picture.size == size
    assert thumbnail == Thumbnail.of(picture)
