import json
import warnings

import pytest

from sotglp.datasets.published import DRAWN, OtherSplitWarning, read_published
from sotglp.datasets.split_file import GUIDE
from sotglp.errors import SotglpError, SotglpWarning
from support.imagenet_trees import plant


@pytest.fixture
def folder(tmp_path):
    plant(tmp_path / "deep/images", ["a.jpg", "b.jpg"])
    return tmp_path


def read(folder, otherwise):
    return read_published(
        folder, split_file="split.json", images=("images", "deep/images"), otherwise=otherwise, instead=DRAWN
    )


def other_parts(folder):
    return {part: [(folder / "deep/images/b.jpg", 3, "big_cat")] for part in ("train", "test")}


def never(folder):
    raise AssertionError("the split file is there")


def test_the_split_file_goes_first(folder):
    row = ["a.jpg", 0, "ant"]
    (folder / "split.json").write_text(json.dumps({"train": [row], "val": [row], "test": [row]}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        splits = read(folder, never)
    assert splits.test.images == (folder / "deep/images/a.jpg",)
    plant(folder / "images", ["a.jpg"])
    assert read(folder, never).test.images == (folder / "images/a.jpg",)


def test_a_broken_split_file_is_not_passed_over(folder):
    (folder / "split.json").write_text("{")
    with pytest.raises(SotglpError, match="can't be read as JSON"):
        read(folder, never)


def test_what_there_is_instead_comes_with_a_warning(folder):
    assert issubclass(OtherSplitWarning, SotglpWarning)
    with pytest.warns(OtherSplitWarning) as caught:
        splits = read(folder, other_parts)
    assert splits.classes == ("big cat",)
    message = str(caught[0].message)
    assert message.startswith(f"{folder} has no split.json, so its images are split by a draw of our own: ")
    assert "not comparable" in message
    assert GUIDE in message


def test_neither(folder):
    def nothing(folder):
        raise SotglpError("there is nothing; put something there")

    with pytest.raises(SotglpError) as caught:
        read(folder, nothing)
    assert str(caught.value) == (
        f"{folder} has no split.json (see {GUIDE}), and without it there is nothing; put something there"
    )


def test_what_there_is_instead_is_checked_too(folder):
    (folder / "deep/images/b.jpg").unlink()
    with pytest.raises(SotglpError, match=r"and without it .* lists 2 of 2 images that are not there"):
        read(folder, other_parts)
