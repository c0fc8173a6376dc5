from __future__ import annotations

from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.transforms import Bbox

from sotglp.benchmark.label_placement import place_labels

PIXEL = 2.0


@settings(deadline=None, max_examples=15)
@given(st.lists(st.tuples(st.integers(150, 850), st.integers(100, 500)), min_size=1, max_size=8, unique=True))
def test_labels_cover_neither_each_other_nor_their_points(centres: list[tuple[int, int]]) -> None:
    points = np.array(centres, dtype=np.float64)
    sizes = np.array([(60 + 10 * (index % 3), 18) for index in range(len(points))], dtype=np.float64)
    middles = place_labels(points, sizes, Bbox.from_bounds(0, 0, 1000, 600), PIXEL)
    assert (middles - sizes / 2 >= 0).all()
    assert (middles + sizes / 2 <= (1000, 600)).all()
    for (one, size), (other, other_size) in combinations(zip(middles, sizes, strict=True), 2):
        assert (np.abs(one - other) >= (size + other_size) / 2 - 1e-6).any()
    for middle, size, centre in zip(middles, sizes, points, strict=True):
        assert (np.abs(middle - centre) > size / 2).any()
