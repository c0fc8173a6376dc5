from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sotglp.datasets.drawn_split import draw_parts
from sotglp.errors import SotglpError

SIZES = st.dictionaries(st.integers(0, 9), st.integers(4, 60), min_size=1)


def samples(sizes):
    return [(Path(f"{number}/{k:03d}.jpg"), number, f"class {number}") for number, n in sizes.items() for k in range(n)]


@given(sizes=SIZES)
def test_every_image_is_in_one_part_and_every_class_in_all_by_its_shares(sizes):
    given_samples = samples(sizes)
    parts = draw_parts(given_samples)
    assert list(parts) == ["train", "val", "test"]
    assert sorted(chain(*parts.values())) == sorted(given_samples)
    for number, n in sizes.items():
        n_train, n_val, n_test = (sum(sample[1] == number for sample in part) for part in parts.values())
        assert abs(n_train - n / 2) <= 0.5
        assert abs(n_val - n / 5) <= 0.5
        assert n_test >= 1


@given(sizes=SIZES, extra=st.integers(10, 12))
def test_another_class_changes_nothing_for_the_others(sizes, extra):
    parts = draw_parts(samples(sizes))
    more = draw_parts(samples({**sizes, extra: 20}))
    assert {part: [sample for sample in drawn if sample[1] != extra] for part, drawn in more.items()} == parts


def test_the_draw_is_random_and_the_same_each_time():
    parts = draw_parts(samples({0: 100, 1: 100}))
    assert parts == draw_parts(samples({0: 100, 1: 100}))
    first, second = ([int(path.stem) for path, number, _ in parts["train"] if number == label] for label in (0, 1))
    assert first != second
    assert first == sorted(first) != list(range(50))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_too_few_images(n):
    with pytest.raises(SotglpError, match=f"class 'class 1' has only {n} images, too few for train, val and test; "):
        draw_parts(samples({0: 10, 1: n}))
