import numpy as np
import pytest

from sotglp.demo import world
from sotglp.demo.painting import BACKGROUND, SIZE, Placement, paint_parts
from sotglp.demo.world import COLOURS, KNOWN_FILLS, KNOWN_SHAPES, MOST_PARTS, NO_PART, RGB, SHAPES, draw_parts, paint


def painted(seed, n=60, **how):
    rng = np.random.default_rng(seed)
    return paint(draw_parts(n, rng, **how), rng)


@pytest.mark.parametrize(("fewest", "most"), [(0, 1), (1, 3), (2, 4), (4, 4)])
def test_drawn_parts_are_known_ones_within_bounds_that_differ_in_shape_or_colour(fewest, most):
    parts = draw_parts(500, np.random.default_rng(0), fewest=fewest, most=most)
    here = parts[:, :, 0] != NO_PART
    assert parts.shape == (500, MOST_PARTS, 3)
    assert set(here.sum(axis=1)) == set(range(fewest, most + 1))
    assert (parts[~here] == NO_PART).all()
    assert parts[here].min() >= 0
    assert (parts[here] < [KNOWN_SHAPES, len(COLOURS), KNOWN_FILLS]).all()
    for slots, shown in zip(parts, here, strict=True):
        assert len({tuple(part[:2]) for part in slots[shown]}) == shown.sum()


def test_parts_of_a_pool_are_drawn_without_repetition():
    pool = np.array([[0, 1, 2], [3, 1, 0], [5, 5, 1]])
    parts = draw_parts(200, np.random.default_rng(0), fewest=1, most=4, pool=pool)
    allowed = {tuple(part) for part in pool.tolist()}
    for slots in parts.tolist():
        shown = [tuple(part) for part in slots if part[0] != NO_PART]
        assert 1 <= len(shown) <= 3
        assert set(shown) <= allowed
        assert len(set(shown)) == len(shown)


def test_the_part_map_marks_parts_that_are_there_and_each_is_mostly_seen():
    pictures = painted(3, n=200, fewest=0, most=4)
    here = pictures.parts[:, :, 0] != NO_PART
    area = np.stack([(pictures.part_map == slot).sum(axis=(1, 2)) for slot in range(MOST_PARTS)], axis=1)
    assert (area[~here] == 0).all()
    assert np.isin(pictures.part_map, [*range(MOST_PARTS), BACKGROUND]).all()
    assert np.median(area[here]) > 100
    assert (area[here] > 30).mean() > 0.97
    assert (pictures.part_map[~here.any(axis=1)] == BACKGROUND).all()


def test_a_plain_part_has_its_colour_where_the_map_says_that_it_is():
    parts = np.full((320, MOST_PARTS, 3), NO_PART)
    parts[:, 0] = [[i % KNOWN_SHAPES, i // KNOWN_SHAPES % len(COLOURS), 0] for i in range(320)]
    pictures = paint(parts, np.random.default_rng(0))
    marked = pictures.part_map == 0
    seen = np.stack([image[where].mean(axis=0) for image, where in zip(pictures.images, marked, strict=True)])
    distance = np.linalg.norm(seen[:, None] - RGB, axis=-1)
    assert np.array_equal(distance.argmin(axis=1), parts[:, 0, 1])
    for colour, rgb in enumerate(RGB):
        # Shades deviate by 14 from part to part; edges and clipped channels move the mean a little more.
        np.testing.assert_allclose(seen[parts[:, 0, 1] == colour].mean(axis=0), rgb, atol=15)


def test_later_slots_are_painted_over_earlier_ones(monkeypatch):
    n_pictures, middle = 60, SIZE // 2

    def all_in_the_middle(here, rng):
        radius = np.tile(np.linspace(13, 9, MOST_PARTS, dtype=np.float32), (n_pictures, 1))
        return Placement(np.full((*here.shape, 2), middle, np.float32), radius, np.zeros_like(radius))

    monkeypatch.setattr(world, "_draw_placement", all_in_the_middle)
    parts = draw_parts(n_pictures, np.random.default_rng(0), fewest=2, most=4)
    here = parts[:, :, 0] != NO_PART
    parts[here] = [0, 0, 0]
    parts[here, 1] = np.arange(here.sum()) % len(COLOURS)
    pictures = paint(parts, np.random.default_rng(1))
    last = here.sum(axis=1) - 1
    around = slice(middle - 2, middle + 3)
    assert (pictures.part_map[:, around, around] == last[:, None, None]).all()
    seen = pictures.images[:, around, around].mean(axis=(1, 2))
    nearest = np.linalg.norm(seen[:, None] - RGB, axis=-1).argmin(axis=1)
    assert np.array_equal(nearest, parts[np.arange(n_pictures), last, 1])


def test_every_part_lies_inside_the_picture_and_is_mostly_visible(monkeypatch):
    painted_areas = {}

    def measured(canvas, part_map, pictures, slot, masks, *others):
        painted_areas[slot] = np.zeros(len(canvas))
        painted_areas[slot][pictures] = (masks > 0.5).sum(axis=(1, 2))
        paint_parts(canvas, part_map, pictures, slot, masks, *others)

    monkeypatch.setattr(world, "paint_parts", measured)
    every = np.array([[[shape, 0, 0]] for shape in range(len(SHAPES))] * 100)
    lone = paint(every, np.random.default_rng(0))
    assert ((lone.part_map == 0).sum(axis=(1, 2)) > 0.9 * painted_areas[0]).all()

    pictures = painted(4, n=400, fewest=4, most=4)
    area = np.stack([painted_areas[slot] for slot in range(MOST_PARTS)], axis=1)
    seen = np.stack([(pictures.part_map == slot).sum(axis=(1, 2)) for slot in range(MOST_PARTS)], axis=1)
    assert (seen <= area).all()
    assert (seen > 0.5 * area).mean() > 0.97


def test_all_known_parts_are_drawn_and_none_is_preferred():
    parts = draw_parts(4000, np.random.default_rng(0), fewest=3, most=3)
    drawn = parts[parts[:, :, 0] != NO_PART]
    for attribute, size in enumerate((KNOWN_SHAPES, len(COLOURS), KNOWN_FILLS)):
        counts = np.bincount(drawn[:, attribute], minlength=size)
        expected = len(drawn) / size
        assert len(counts) == size
        assert abs(counts - expected).max() < 5 * np.sqrt(expected)
