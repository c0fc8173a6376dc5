import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from sotglp.errors import SotglpError, SotglpWarning
from sotglp.images.image_set import ImageSet
from sotglp.images.labels import class_names, distinct_names, label_array, label_text, warn_of_names


def objects(*labels):
    array = np.empty(len(labels), dtype=object)
    array[:] = labels
    return array


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["cat", np.str_("dog")], ["cat", "dog"]),
        (iter(["cat", "dog"]), ["cat", "dog"]),
        ([b"cat", "dog"], ["cat", "dog"]),
        (["Stra\u00dfe".encode(), "dog"], ["Stra\u00dfe", "dog"]),
        (np.array([b"caf\xc3\xa9", b"dog"]), ["caf\u00e9", "dog"]),
        (objects(b"cat", "dog"), ["cat", "dog"]),
        ([3, 20], ["3", "20"]),
        (torch.tensor([3, 20]), ["3", "20"]),
        (np.array([3.0, -1.0], dtype=np.float16), ["3", "-1"]),
        (objects(3.0, np.int64(20), np.float32(1e15)), ["3", "20", "999999986991104"]),
        ([0.0, -0.0], ["0", "0"]),
        ([True, False], ["True", "False"]),
        (["cat", 1], ["cat", "1"]),
        (["1", 1.0, b"2"], ["1", "1", "2"]),
        (["nul\0", "dog"], ["nul\0", "dog"]),
        (["cafe\u0301", b"cafe\xcc\x81", "dog"], ["caf\u00e9", "caf\u00e9", "dog"]),
    ],
)
def test_labels_become_class_names(labels, names):
    assert class_names(labels) == tuple(names)
    assert all(type(name) is str for name in class_names(names))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["cat", b"\xff"], r"label 1 is b'\\xff', which isn't UTF-8"),
        (np.array([b"cat", b"\xff"]), r"label 1 is b'\\xff', which isn't UTF-8"),
        (["cat", " "], "label 1 is ' ', so it is missing"),
        (["cat", "dog\u200b"], "label 1 is 'dog.u200b', which has the invisible character U.200B"),
        (np.array(["cat", "\ufeffdog"]), "label 1 is .* invisible character U.FEFF"),
        (["cat", "caf\udce9"], "label 1 is 'caf.udce9', which isn't UTF-8"),
        (["cat", None], "label 1 is None, so it is missing"),
        ([3, None], "label 1 is None"),
        (["cat", 0.5], "label 1 is 0.5, which isn't a whole number"),
        (["cat", float("nan")], "label 1 is nan, so it is missing"),
        ([1.0, np.nan], "label 1 is nan"),
        (objects("cat", np.nan), "label 1 is nan"),
        (objects(1.4, 0.6), "label 0 is 1.4, which isn't a whole number"),
        (np.array([1.0, 0.6]), "label 1 is 0.6, which isn't a whole number"),
        (objects(1, Fraction(1, 2)), "label 1 is 1/2, which isn't a whole number"),
        ([1.0, np.inf], "label 1 is inf, which isn't a whole number"),
        (objects("cat", "dog", 1), "label 2 is 1 of type int, and label 0 is 'cat' of type str; give labels of one"),
        (objects(True, 0), "label 1 is 0 of type int, and label 0 is True of type bool"),
        ([1j, 2j], r"label 0 is .*1j.* of type complex"),
        ([Path("a"), Path("b")], "label 0 is PosixPath|label 0 is WindowsPath"),
        ([["a"], ["b", "c"]], "not one list"),
        ([["a"], ["b"]], r"shape \(2, 1\)"),
        ("ab", "the labels are one str"),
        (b"ab", "the labels are one bytes"),
        (3, "the labels are one int"),
    ],
)
def test_labels_that_cannot_be_used_are_named_by_position_and_value(labels, words):
    with pytest.raises(SotglpError, match=words):
        class_names(labels)


def test_the_array_of_labels_keeps_numbers_and_shape():
    assert label_array([[1], [2]]).tolist() == [[1], [2]]
    assert label_array(np.array([1.0, 2.0])).dtype == np.float64
    assert label_array(objects(b"cat", "dog")).tolist() == ["cat", "dog"]
    assert label_array(np.array([[b"a"], [b"b"]])).tolist() == [["a"], ["b"]]


@pytest.mark.parametrize("label", [None, float("nan"), 1.5, b"\xff", object()])
def test_one_label_that_cannot_be_used(label):
    with pytest.raises(SotglpError, match="the label is "):
        label_text(label)


def test_an_image_set_takes_the_labels_of_the_estimators():
    assert ImageSet.from_items(["a.png", "b.png"], np.array([7, 8])).labels == ("7", "8")


def test_class_labels_have_different_names():
    assert distinct_names(["cat", "Cat", 3]) == ["cat", "Cat", "3"]
    for labels in (["caf\u00e9", "cafe\u0301"], [1, "1"], ["a", "b", "a"]):
        with pytest.raises(SotglpError, match="have the same name"):
            distinct_names(labels)


@pytest.mark.parametrize("name", ["'cat'", '"cat"', "b'cat'", "\u201ccat\u201d", "\u201ecat\u201c", "`cat`"])
def test_quotes_in_names_are_reported(name):
    with pytest.warns(SotglpWarning, match="in quotes"):
        warn_of_names([name, "dog"])


def test_names_with_quotes_inside_them_are_not_reported():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_names(["cat's eye", "the 'old' oak", "'", "dogs'"])
