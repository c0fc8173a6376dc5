import json
import os
import warnings

import pytest

from sotglp.datasets.split_file import GUIDE, OtherSplitWarning, read_published, read_split_file
from sotglp.errors import SotglpError
from support.dataset_trees import plant

SPLIT = {
    "train": [["x/1.jpg", 1, "blue_sea"], ["y/1.jpg", 0, "ant"]],
    "val": [["y/2.jpg", 0, "ant"]],
    "test": [["x/2.jpg", 1, "blue_sea"]],
}


@pytest.fixture
def images(tmp_path):
    return plant(tmp_path / "images", ["x/1.jpg", "x/2.jpg", "y/1.jpg", "y/2.jpg"])


def split_of(images, content):
    path = images.parent / "split_zhou_Things.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def refused(path, images):
    with pytest.raises(SotglpError) as caught:
        read_split_file(path, images)
    message = str(caught.value)
    assert message.startswith(f"{path} ")
    assert not message.endswith(".")
    return message


def test_a_split_file(images):
    splits = read_split_file(split_of(images, SPLIT | {"ignored": "comment"}), images)
    assert splits.classes == ("ant", "blue sea")
    assert splits.train.images == (images / "x/1.jpg", images / "y/1.jpg")
    assert splits.train.labels == ("blue sea", "ant")
    assert (splits.val.images, splits.val.labels) == ((images / "y/2.jpg",), ("ant",))
    assert (splits.test.images, splits.test.labels) == ((images / "x/2.jpg",), ("blue sea",))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"train": [', "can't be read as JSON ("),
        (b"\xff\xfe\x00", "can't be read as JSON ("),
        (b"[" * 100_000, "is JSON that is nested too deeply"),
        ([SPLIT], "isn't a split file with the lists train, val and test"),
        ({}, "has no list 'train'; download it again (see https://"),
        (SPLIT | {"val": {"y/2.jpg": 0}}, "has no list 'val'; download"),
        (SPLIT | {"val": []}, "has no images for val; download"),
        (SPLIT | {"test": [["x/2.jpg", 1]]}, "has ['x/2.jpg', 1] as entry 0 of test instead of a path, a number"),
        (SPLIT | {"test": [*SPLIT["test"], ["x/2.jpg", "1", "blue_sea"]]}, "as entry 1 of test instead of"),
        (SPLIT | {"test": ["x/2.jpg"]}, "has 'x/2.jpg' as entry 0 of test instead of"),
        (SPLIT | {"test": [["x/3.jpg", 1, "blue_sea"]]}, "lists 1 of 4 images that do not exist, the first"),
    ],
)
def test_what_cannot_be_used(images, content, words):
    assert words in refused(split_of(images, content), images)


def test_an_entry_of_any_size_is_shown_in_short(images):
    message = refused(split_of(images, SPLIT | {"test": [["x" * 100_000]]}), images)
    assert len(message) < 1000


def test_a_missing_file_and_a_pipe_are_refused_unopened(images):
    assert "can't be opened (No such file or directory)" in refused(images / "gone.json", images)
    os.mkfifo(images / "split.json")
    assert "can't be opened (it is a pipe, a socket or a device)" in refused(images / "split.json", images)


def published(images, otherwise):
    folders = ("elsewhere", images.name)
    return read_published(images.parent, split_file="split_zhou_Things.json", images=folders, otherwise=otherwise)


def drawn(folder):
    return "a split is drawn", {part: [(folder / "images/x/1.jpg", 3, "big_cat")] for part in ("train", "test")}


def test_a_split_file_is_read_rather_than_another_split(images):
    path = split_of(images, SPLIT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert published(images, drawn).classes == ("ant", "blue sea")
    path.write_text("{")
    with pytest.raises(SotglpError, match="can't be read as JSON"):
        published(images, drawn)


def test_another_split_comes_with_a_warning_and_is_checked(images):
    with pytest.warns(OtherSplitWarning, match="so a split is drawn: results are not comparable") as caught:
        assert published(images, drawn).classes == ("big cat",)
    assert GUIDE in str(caught[0].message)
    (images / "x/1.jpg").unlink()
    with pytest.raises(SotglpError, match=r"has no split_zhou_Things\.json .*, and without it .* lists 2 of 2 images"):
        published(images, drawn)
