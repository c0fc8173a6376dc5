import numpy as np
import pytest

from sotglp.demo.painting import (
    BACKGROUND,
    SIZE,
    Placement,
    fill_tones,
    paint_parts,
    paint_textures,
    shape_masks,
    smooth,
)
from sotglp.demo.world import FILLS, SHAPES


def placed(n, radius=12.0, centre=(SIZE / 2, SIZE / 2), turn=None):
    turns = np.linspace(-0.5, 0.5, n) if turn is None else np.full(n, turn)
    return Placement(np.tile(np.float32(centre), (n, 1)), np.full(n, radius, np.float32), turns.astype(np.float32))


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
@pytest.mark.parametrize("radius", [8, 13])
def test_a_shape_covers_the_area_that_its_formula_gives(shape, area, radius):
    masks = shape_masks(np.full(20, SHAPES.index(shape)), placed(20, radius))
    np.testing.assert_allclose(masks.sum(axis=(1, 2)), area * radius**2, rtol=0.04)
    assert masks.min() == 0
    assert masks.max() == 1


def test_shapes_differ_and_turn_with_their_parts():
    upright = shape_masks(np.arange(len(SHAPES)), placed(len(SHAPES), turn=0))
    turned = shape_masks(np.arange(len(SHAPES)), placed(len(SHAPES), turn=0.5))
    for i in range(len(SHAPES)):
        assert all(abs(upright[i] - upright[k]).sum() > 40 for k in range(i))
    moved = abs(upright - turned).sum(axis=(1, 2))
    is_round = np.isin(SHAPES, ["circle", "ring"])
    assert (moved[is_round] < 1e-2).all()
    assert (moved[~is_round] > 20).all()


@pytest.mark.parametrize("fill", range(len(FILLS)))
def test_a_fill_keeps_its_colour_and_darkens_its_pattern(fill):
    tones = fill_tones(np.full(50, fill), placed(50), np.random.default_rng(0))
    if FILLS[fill] == "plain":
        assert (tones == 1).all()
        return
    assert (tones.max(axis=(1, 2)) == 1).all()
    assert (tones.min(axis=(1, 2)) < 0.5).all()
    assert tones.min() > 0
    dark = (tones < 0.6).mean(axis=(1, 2))
    assert (dark > 0.1).all()
    assert (dark < 0.7).all()


@pytest.mark.parametrize("centre", [(0, 0), (SIZE - 1, SIZE / 2), (SIZE / 2, SIZE + 3)])
def test_a_part_over_the_edge_is_cut_off_there(centre):
    canvas, part_map = np.zeros((2, SIZE, SIZE, 3), np.float32), np.full((2, SIZE, SIZE), BACKGROUND, np.uint8)
    where, second = placed(1, centre=centre), np.array([1])
    masks = shape_masks(np.array([0]), where)
    paint_parts(canvas, part_map, second, 3, masks, np.ones_like(masks), np.float32([[10, 20, 30]]), where)
    down, right = np.mgrid[:SIZE, :SIZE]
    expected = np.clip(0.92 * 12 - np.hypot(down - centre[0], right - centre[1]) + 0.5, 0, 1)
    np.testing.assert_allclose(canvas[1], expected[..., None] * [10, 20, 30], atol=1e-3)
    clearly = abs(expected - 0.5) > 1e-4
    assert np.array_equal(part_map[1][clearly] == 3, expected[clearly] > 0.5)
    assert not canvas[0].any()
    assert (part_map[0] == BACKGROUND).all()


def test_smooth_goes_linearly_from_point_to_point():
    coarse = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype(np.float32)
    points, fine = np.arange(4), np.linspace(0, 3, SIZE)
    for picture, blown_up in zip(coarse, smooth(coarse), strict=True):
        for channel in range(3):
            rows = np.stack([np.interp(fine, points, column) for column in picture[:, :, channel].T], axis=1)
            expected = np.stack([np.interp(fine, points, row) for row in rows])
            np.testing.assert_allclose(blown_up[:, :, channel], expected, atol=1e-5)


def test_textures_fill_the_picture_and_depend_on_the_seed():
    textures, again, others = (paint_textures(200, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert (textures.shape, textures.dtype) == ((200, SIZE, SIZE, 3), np.uint8)
    assert np.array_equal(textures, again)
    assert not np.array_equal(textures, others)
    assert len({texture.tobytes() for texture in textures}) == 200
    quarters = textures.reshape(200, 2, SIZE // 2, 2, SIZE // 2, 3).std(axis=(2, 4)).mean(axis=-1)
    assert quarters.min() > 8  # noise alone has 6
    assert [len(paint_textures(n, np.random.default_rng(0))) for n in (0, 1, 2)] == [0, 1, 2]
