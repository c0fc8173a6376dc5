import numpy as np
import pytest

from sotglp.demo.painting import BACKGROUND, SIZE, Placement, paint_textures, shape_masks
from sotglp.demo.world import COLOURS, KNOWN_FILLS, KNOWN_SHAPES, MOST_PARTS, NO_PART, RGB, SHAPES, draw_parts, paint


def painted(seed, n=60, **how):
    rng = np.random.default_rng(seed)
    return paint(draw_parts(n, rng, **how), rng)


def test_the_same_seed_paints_the_same_pictures_and_another_seed_others():
    one, again, other = painted(1), painted(1), painted(2)
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not np.array_equal(one.images, other.images)


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


def test_all_known_parts_are_drawn_and_none_is_preferred():
    parts = draw_parts(4000, np.random.default_rng(0), fewest=3, most=3)
    drawn = parts[parts[:, :, 0] != NO_PART]
    for attribute, size in enumerate((KNOWN_SHAPES, len(COLOURS), KNOWN_FILLS)):
        counts = np.bincount(drawn[:, attribute], minlength=size)
        expected = len(drawn) / size
        assert len(counts) == size
        assert abs(counts - expected).max() < 5 * np.sqrt(expected)


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
    parts = np.full((80, MOST_PARTS, 3), NO_PART)
    parts[:, 0] = [[i % KNOWN_SHAPES, i // KNOWN_SHAPES % len(COLOURS), 0] for i in range(80)]
    pictures = paint(parts, np.random.default_rng(0))
    for image, part_map, (part, *_) in zip(pictures.images, pictures.part_map, parts, strict=True):
        seen = image[part_map == 0].mean(axis=0)
        distance = np.linalg.norm(RGB - seen, axis=1)
        assert distance.argmin() == part[1]


def test_later_slots_are_painted_over_earlier_ones():
    rng = np.random.default_rng(0)
    parts = draw_parts(400, rng, fewest=4, most=4)
    parts[:, :, 2] = 0
    pictures = paint(parts, rng)
    distance = np.linalg.norm(pictures.images[..., None, :] - RGB[parts[:, :, 1]][:, None, None], axis=-1)
    for slot in range(MOST_PARTS):
        marked = pictures.part_map == slot
        nearest_own = distance[..., slot][marked] <= distance[marked].min(axis=-1) + 60
        assert nearest_own.mean() > 0.9


@pytest.mark.parametrize(
    ("shape", "area"),
    [
        ("circle", np.pi * 0.92**2),
        ("square", 1.6**2),
        ("ring", np.pi * (0.95**2 - 0.49**2)),
        ("cross", 4 * 0.3 * 0.95 * 2 - 0.6**2),
        ("triangle", 3 * np.sqrt(3) * 0.55**2),
    ],
)
def test_a_shape_covers_the_area_that_its_formula_gives(shape, area):
    radius = 12.0
    where = Placement(
        np.full((20, 2), SIZE / 2, dtype=np.float32),
        np.full(20, radius, dtype=np.float32),
        np.linspace(-0.5, 0.5, 20, dtype=np.float32),
    )
    masks = shape_masks(np.full(20, SHAPES.index(shape)), where)
    np.testing.assert_allclose(masks.sum(axis=(1, 2)), area * radius**2, rtol=0.04)


def test_textures_fill_the_whole_picture_and_vary():
    textures = paint_textures(40, np.random.default_rng(0))
    assert textures.shape == (40, SIZE, SIZE, 3)
    assert np.array_equal(textures, paint_textures(40, np.random.default_rng(0)))
    quarters = textures.reshape(40, 2, SIZE // 2, 2, SIZE // 2, 3).std(axis=(2, 4)).mean(axis=-1)
    assert (quarters > 3).all()
    assert len({texture.tobytes() for texture in textures}) == 40
