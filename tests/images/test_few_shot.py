import warnings
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedShuffleSplit

from sotglp.errors import SotglpError, SotglpWarning, some_names
from sotglp.images.few_shot import deal_folds, draw_shots

SEEDS = st.integers(0, 2**32 - 1)


def shuffled(counts, seed=0):
    labels = np.repeat([f"class {k}" for k in range(len(counts))], counts)
    return np.random.default_rng(seed).permutation(labels).tolist()


def by_scikit_learn(labels, shots, seed):
    """The published code's draw: its classes have the order of their first images."""
    names = list(dict.fromkeys(labels))
    labels = [names.index(label) for label in labels]
    splitter = StratifiedShuffleSplit(n_splits=1, train_size=shots * len(set(labels)), random_state=seed)
    return set(next(splitter.split(labels, labels))[0].tolist())


def per_class(labels, drawn):
    return Counter(labels[i] for i in drawn)


def silently(*args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SotglpWarning)
        return draw_shots(*args, **kwargs)


def check_form(labels, drawn):
    assert drawn.dtype == np.int64
    assert (np.diff(drawn) > 0).all()
    assert drawn.min() >= 0
    assert drawn.max() < len(labels)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 30), n_classes=st.integers(1, 7), shots=st.integers(1, 16), seed=SEEDS)
def test_with_equal_classes_both_draws_are_scikit_learns(n, n_classes, shots, seed):
    labels = shuffled([n] * n_classes)
    drawn = silently(labels, shots, seed)
    check_form(labels, drawn)
    np.testing.assert_array_equal(drawn, silently(labels, shots, seed, draw="published"))
    assert per_class(labels, drawn) == Counter({label: min(n, shots) for label in set(labels)})
    if n > shots:
        assert set(drawn.tolist()) == by_scikit_learn(labels, shots, seed)


@settings(max_examples=40, deadline=None)
@given(counts=st.lists(st.integers(2, 40), min_size=2, max_size=6), shots=st.integers(1, 8), seed=SEEDS)
@example(counts=[3, 6], shots=4, seed=0)
def test_the_published_draw_is_scikit_learns(counts, shots, seed):
    labels = shuffled(counts)
    left = len(labels) - shots * len(counts)
    if 0 < left < len(counts):
        with pytest.raises(SotglpError, match=r"impossible.* must remain"):
            draw_shots(labels, shots, seed, draw="published")
        return
    drawn = silently(labels, shots, seed, draw="published")
    check_form(labels, drawn)
    assert set(drawn.tolist()) == (by_scikit_learn(labels, shots, seed) if left > 0 else set(range(len(labels))))


@settings(max_examples=60, deadline=None)
@given(counts=st.lists(st.integers(1, 40), min_size=1, max_size=6), shots=st.integers(1, 16), seed=SEEDS)
@example(counts=[1, 5], shots=3, seed=0)
def test_per_class_takes_as_many_of_each_class_as_there_are(counts, shots, seed):
    labels = shuffled(counts)
    drawn = silently(labels, shots, seed)
    check_form(labels, drawn)
    assert per_class(labels, drawn) == Counter({f"class {k}": min(n, shots) for k, n in enumerate(counts)})
    np.testing.assert_array_equal(drawn, silently(np.array(labels), shots, seed))


@pytest.mark.parametrize("draw", ["per-class", "published"])
def test_the_seed_decides(draw):
    labels = shuffled([30, 40, 50])
    draws = {tuple(draw_shots(labels, 4, seed, draw=draw).tolist()) for seed in range(20)}
    assert len(draws) == 20


def test_every_image_can_be_drawn():
    labels = shuffled([5, 6])
    drawn = np.concatenate([draw_shots(labels, 2, seed) for seed in range(60)])
    assert set(drawn.tolist()) == set(range(11))


def test_classes_are_drawn_independently():
    labels = ["a"] * 30 + ["b"] * 30 + ["c"] * 7
    drawn = draw_shots(labels, 5, 0)
    assert drawn[drawn < 30].tolist() != (drawn[(drawn >= 30) & (drawn < 60)] - 30).tolist()


def test_images_added_to_one_class_leave_the_draw_from_another_alone():
    labels = ["a"] * 20 + ["b"] * 10
    more = [*labels, *["b"] * 7]
    first, second = draw_shots(labels, 3, 1), draw_shots(more, 3, 1)
    assert first[first < 20].tolist() == second[second < 20].tolist()


@pytest.mark.parametrize("draw", ["per-class", "published"])
def test_classes_with_too_few_images_are_named_in_one_warning(draw):
    labels = shuffled([4] + [1] * 7)
    with pytest.warns(SotglpWarning) as caught:
        drawn = draw_shots(labels, 4, 0, draw=draw)
    assert drawn.tolist() == list(range(11))
    assert [str(warning.message) for warning in caught] == [
        "7 classes have fewer than 4 images, all of which are used: "
        "class 1, class 2, class 3, class 4, class 5 and 2 more"
    ]
    assert caught[0].filename == __file__


def test_no_warning_where_every_class_has_enough():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_shots(shuffled([4, 4]), 4, 0)
        draw_shots(shuffled([5, 9]), 4, 0)


def test_classes_that_the_published_draw_misses_or_cannot_draw_are_named():
    with pytest.raises(SotglpError, match="two images of every class, but there is one of: class 1;"):
        draw_shots(shuffled([20, 1]), 2, 0, draw="published")
    labels = shuffled([200, 2])
    with pytest.warns(SotglpWarning, match='has no image of: class 1; use the draw "per-class"'):
        drawn = draw_shots(labels, 2, 0, draw="published")
    assert per_class(labels, drawn) == {"class 0": 4}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((["a"], 0, 1), "shots is 0; give the number"),
        ((["a"], -3, 1), "shots is -3"),
        ((["a"], 1.5, 1), "shots is 1.5"),
        (([], 1, 1), "no labels"),
        ((["a"], 1, -1), "seed is -1"),
        ((["a"], 1, 2**63), "seed is 9223372036854775808"),
        ((["a"], 1, None), "seed is None"),
    ],
)
def test_arguments_out_of_range(arguments, words):
    with pytest.raises(SotglpError, match=words):
        draw_shots(*arguments)
    with pytest.raises(SotglpError, match="draw is 'random'; give one of 'per-class', 'published'"):
        draw_shots(["a"], 1, 1, draw="random")


def test_some_names():
    assert some_names(["a"]) == "a"
    assert some_names(list("abcde")) == "a, b, c, d, e"
    assert some_names(list("abcdefg")) == "a, b, c, d, e and 2 more"


def test_seeds_beyond_those_of_scikit_learn_draw_too():
    labels = shuffled([5, 5])
    drawn = silently(labels, 2, 5_000_000_000, draw="published")
    np.testing.assert_array_equal(drawn, silently(labels, 2, 5_000_000_000 % 2**32, draw="published"))


def test_every_image_is_held_out_once_and_each_class_is_left() -> None:
    labels = "aabbbbbba"
    folds = deal_folds(np.array([name == "b" for name in labels], dtype=np.int64), 3)
    assert sorted(set(folds.tolist())) == [0, 1, 2]
    for fold in range(3):
        learned, held_out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        assert {labels[i] for i in learned} == {labels[i] for i in held_out} == {"a", "b"}
        assert sorted([*learned, *held_out]) == list(range(9))


def test_a_single_image_of_a_class_gives_one_fold() -> None:
    assert deal_folds(np.array([0, 0, 1]), 3).tolist() == [0, 0, 0]
