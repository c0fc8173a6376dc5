from itertools import chain
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sotglp.datasets.parts import draw_parts, splits_of
from sotglp.errors import SotglpError
from support.dataset_trees import plant


@pytest.fixture
def folder(tmp_path):
    return plant(tmp_path, [f"{name}.jpg" for name in "abcdef"])


def samples(folder, *rows):
    return [(folder / f"{file}.jpg", number, name) for file, number, name in rows]


def refused(parts, folder):
    with pytest.raises(SotglpError) as caught:
        splits_of(parts, folder)
    message = str(caught.value)
    assert message.startswith(f"{folder} ")
    assert not message.endswith(".")
    return message


def test_classes_are_sorted_by_number_and_underscores_are_spaces(folder):
    train = samples(folder, ("a", 5, "zebra"), ("b", 2, "big__cat "), ("c", 9, "ant"))
    splits = splits_of({"train": train, "test": samples(folder, ("d", 9, "ant"), ("e", 2, "big cat"))}, folder)
    assert splits.classes == ("big cat", "zebra", "ant")
    assert splits.train.images == tuple(folder / f"{name}.jpg" for name in "abc")
    assert splits.train.labels == ("zebra", "big cat", "ant")
    assert splits.test.labels == ("ant", "big cat")
    assert splits.test.targets(splits.classes).tolist() == [2, 0]
    assert splits.val is None


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    numbers=st.lists(st.integers(0, 50), min_size=1, unique=True).flatmap(
        lambda known: st.tuples(st.just(known), st.lists(st.sampled_from(known), min_size=1))
    )
)
def test_labels_are_the_numbers_ranks(folder, numbers):
    known, tested = numbers
    train = samples(folder, *(("a", number, f"class {number}") for number in known))
    test = samples(folder, *(("b", number, f"class {number}") for number in tested))
    splits = splits_of({"train": train, "val": test, "test": test}, folder)
    rank = {number: position for position, number in enumerate(sorted(known))}
    assert splits.test.targets(splits.classes).tolist() == [rank[number] for number in tested]
    assert splits.val.labels == splits.test.labels


def test_parts_without_images(folder):
    train = samples(folder, ("a", 0, "cat"))
    assert "has no images for val, test;" in refused({"train": train, "val": [], "test": []}, folder)


@pytest.mark.parametrize("part", ["val", "test"])
def test_extra_classes(folder, part):
    train = samples(folder, ("a", 0, "cat"))
    parts = {"train": train, "val": train, "test": train}
    parts[part] = samples(folder, ("b", 1, "dog"), ("c", 0, "cat"), ("d", 2, "a_fox"))
    assert f"has classes in {part} without training images: a fox, dog;" in refused(parts, folder)


def test_a_number_with_two_names_and_a_name_with_two_numbers(folder):
    parts = {"train": samples(folder, ("a", 4, "cat")), "test": samples(folder, ("b", 4, "tiger"))}
    assert "has two names for class 4, 'cat' and 'tiger';" in refused(parts, folder)
    train = samples(folder, ("a", 4, "big_cat"), ("b", 7, "big cat"))
    assert "has the name 'big cat' for two classes, 4 and 7;" in refused({"train": train, "test": train}, folder)


def test_missing_images(folder):
    train = samples(folder, ("a", 0, "cat"), ("gone", 0, "cat"))
    (folder / "f.jpg").unlink()
    (folder / "f.jpg").mkdir()
    test = samples(folder, ("b", 0, "cat"), ("f", 0, "cat"))
    message = refused({"train": train, "test": test}, folder)
    assert f"lists 2 of 4 images that do not exist, the first {folder / 'gone.jpg'};" in message


def drawable(sizes):
    return [(Path(f"{number}/{k:03d}.jpg"), number, f"class {number}") for number, n in sizes.items() for k in range(n)]


@given(sizes=st.dictionaries(st.integers(0, 9), st.integers(4, 60), min_size=1), extra=st.integers(10, 12))
def test_a_drawn_split_has_each_image_once_and_each_class_by_its_shares(sizes, extra):
    parts = draw_parts(drawable(sizes))
    assert list(parts) == ["train", "val", "test"]
    assert sorted(chain(*parts.values())) == drawable(dict(sorted(sizes.items())))
    for number, n in sizes.items():
        n_train, n_val, n_test = (sum(sample[1] == number for sample in part) for part in parts.values())
        assert abs(n_train - n / 2) <= 0.5
        assert abs(n_val - n / 5) <= 0.5
        assert n_test >= 1
    more = draw_parts(drawable({**sizes, extra: 20}))
    assert {part: [sample for sample in drawn if sample[1] != extra] for part, drawn in more.items()} == parts


def test_a_drawn_split_is_random_and_the_same_each_time():
    parts = draw_parts(drawable({0: 100, 1: 100}))
    assert parts == draw_parts(drawable({0: 100, 1: 100}))
    first, second = ([int(path.stem) for path, number, _ in parts["train"] if number == label] for label in (0, 1))
    assert first != second
    assert first == sorted(first) != list(range(50))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_too_few_images_to_draw_a_split(n):
    with pytest.raises(SotglpError, match=f"class 'class 1' has only {n} images"):
        draw_parts(drawable({0: 10, 1: n}))
