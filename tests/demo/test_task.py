from itertools import combinations

import numpy as np

from sotglp.demo.task import (
    N_CLASSES,
    contains_class,
    draw_class_pictures,
    draw_mid,
    draw_near,
    few_shot_task,
)
from sotglp.demo.world import COLOURS, FILLS, KNOWN_FILLS, KNOWN_SHAPES, NO_PART, SHAPES, draw_parts


def sets_of(parts):
    return [{tuple(part) for part in slots if part[0] != NO_PART} for slots in parts.tolist()]


def test_classes_share_parts_so_that_no_part_decides():
    task = few_shot_task()
    classes = sets_of(task.parts)
    assert len(classes) == len(set(task.names)) == N_CLASSES
    assert all(len(one) == 3 for one in classes)
    for part in map(tuple, task.pool.tolist()):
        assert sum(part in one for one in classes) == 5
    shared = [len(one & other) for one, other in combinations(classes, 2)]
    assert max(shared) == 2
    assert len({tuple(pair) for pair in task.pool[:, :2].tolist()}) == len(task.pool)


def test_a_name_tells_its_parts_by_colour_and_shape_without_fills():
    task = few_shot_task()
    for name, parts in zip(task.names, task.parts.tolist(), strict=True):
        parts_named = [phrase.split()[-2:] for phrase in name.split(" and ")]
        assert parts_named == [[COLOURS[colour], SHAPES[shape]] for shape, colour, _ in parts]
        assert not any(fill in name for fill in FILLS)


def test_a_class_picture_shows_the_parts_of_its_class_and_at_most_one_stranger():
    pictures, targets = draw_class_pictures(10, seed=5)
    task = few_shot_task()
    classes, pairs = sets_of(task.parts), {tuple(pair) for pair in task.pool[:, :2].tolist()}
    assert np.array_equal(np.bincount(targets), np.full(N_CLASSES, 10))
    strangers = 0
    for shown, target in zip(sets_of(pictures.parts), targets, strict=True):
        others = shown - classes[target]
        assert classes[target] <= shown
        assert len(others) <= 1
        assert all(part[:2] not in pairs for part in others)
        strangers += len(others)
    assert 0.3 < strangers / len(targets) < 0.7


def test_a_seed_determines_the_pictures():
    one, other = (draw_class_pictures(4, seed)[0].images for seed in (1, 2))
    assert not {image.tobytes() for image in one} & {image.tobytes() for image in other}
    assert np.array_equal(one, draw_class_pictures(4, 1)[0].images)


def test_near_pictures_are_of_the_same_parts_but_no_class():
    task = few_shot_task()
    pool, classes = set(map(tuple, task.pool.tolist())), sets_of(task.parts)
    for shown in sets_of(draw_near(300, seed=1).parts):
        assert len(shown & pool) == 3
        assert len(shown - pool) <= 1
        assert shown & pool not in classes
        assert not any(one <= shown for one in classes)


def test_mid_pictures_have_an_unseen_shape_or_fill():
    parts = draw_mid(300, seed=1).parts
    here = parts[:, :, 0] != NO_PART
    unseen = here & ((parts[:, :, 0] >= KNOWN_SHAPES) | (parts[:, :, 2] >= KNOWN_FILLS))
    assert (unseen.sum(axis=1) == here.sum(axis=1)).all()
    assert 0.3 < (parts[:, 0, 0] >= KNOWN_SHAPES).mean() < 0.7


def test_contains_class_agrees_with_looking_for_each_class():
    task = few_shot_task()
    rng = np.random.default_rng(0)
    pool = task.pool.copy()
    pool[:, 2] = rng.integers(KNOWN_FILLS, size=len(pool))  # fills do not matter
    parts = draw_parts(500, rng, fewest=2, most=4, pool=pool)
    pairs = [{part[:2] for part in shown} for shown in sets_of(parts)]
    wanted = [{part[:2] for part in one} for one in sets_of(task.parts)]
    expected = [any(one <= shown for one in wanted) for shown in pairs]
    assert contains_class(parts).tolist() == expected
    assert any(expected)
    assert not all(expected)
