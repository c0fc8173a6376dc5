import json
import os

import pytest

from sotglp.datasets.split_file import GUIDE, read_split_file
from sotglp.errors import SotglpError
from support.imagenet_trees import plant

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
    splits = read_split_file(split_of(images, SPLIT), images)
    assert splits.classes == ("ant", "blue sea")
    assert splits.train.images == (images / "x/1.jpg", images / "y/1.jpg")
    assert splits.train.labels == ("blue sea", "ant")
    assert (splits.val.images, splits.val.labels) == ((images / "y/2.jpg",), ("ant",))
    assert (splits.test.images, splits.test.labels) == ((images / "x/2.jpg",), ("blue sea",))


def test_more_in_the_file_is_ignored(images):
    assert read_split_file(split_of(images, SPLIT | {"about": "me"}), images).classes == ("ant", "blue sea")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"train": [', "can't be read as JSON ("),
        (b"\xff\xfe\x00", "can't be read as JSON ("),
        (b"", "can't be read as JSON ("),
        ([SPLIT], "is no split file, which has the lists train, val and test; get it from https://"),
        ({}, "has no list 'train'; get it again from https://"),
        (SPLIT | {"val": {"y/2.jpg": 0}}, "has no list 'val'; get"),
        (SPLIT | {"val": []}, "has no images for val; get"),
        (SPLIT | {"test": [["x/2.jpg", 1]]}, "has ['x/2.jpg', 1] as entry 0 of test instead of a path, a number"),
        (SPLIT | {"test": [*SPLIT["test"], ["x/2.jpg", "1", "blue_sea"]]}, "as entry 1 of test instead of"),
        (SPLIT | {"test": ["x/2.jpg"]}, "has 'x/2.jpg' as entry 0 of test instead of"),
        (SPLIT | {"test": [["x/3.jpg", 1, "blue_sea"]]}, "lists 1 of 4 images that are not there, the first"),
        (SPLIT | {"test": [["x/2.jpg", 2, "fox"]]}, "has classes in test that train has no images of: fox;"),
        (SPLIT | {"test": [["x/2.jpg", 1, "red_sea"]]}, "gives class 1 two names, 'blue sea' and 'red sea';"),
    ],
)
def test_what_cannot_be_used(images, content, words):
    assert words in refused(split_of(images, content), images)


def test_a_file_that_is_not_there(images):
    assert "can't be opened (No such file or directory)" in refused(images / "split.json", images)


def test_the_guide_is_coops():
    assert GUIDE.startswith("https://github.com/KaiyangZhou/CoOp/")


def test_json_that_is_nested_too_deeply(images):
    assert "nested too deeply" in refused(split_of(images, b"[" * 100_000), images)


def test_an_entry_of_any_size_is_shown_in_short(images):
    message = refused(split_of(images, SPLIT | {"test": [["x" * 100_000]]}), images)
    assert len(message) < 1000


def test_a_pipe_is_refused_unopened(images):
    os.mkfifo(images / "split.json")
    assert "can't be opened (it is a pipe, a socket or a device)" in refused(images / "split.json", images)
