"""Data frames as tables of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sotglp.errors import SotglpError
from sotglp.images.columns import Columns
from sotglp.images.image_set import ImageSet
from sotglp.images.manifest import read_frame

pandas = pytest.importorskip("pandas")


@pytest.fixture(autouse=True)
def _in_a_folder_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("a.png", "sub/b.png"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_have_the_columns_of_manifests(library: str) -> None:
    frame_of = pytest.importorskip(library).DataFrame
    frame = frame_of({"image": ["a.png", "sub/b.png"], "label": [1.0, 0.0], "split": ["train", "test"]})
    assert read_frame(frame, Columns(split="all")) == ([Path("a.png"), Path("sub/b.png")], ("1", "0"))
    assert read_frame(frame[:1]) == ([Path("a.png")], ("1",))
    assert read_frame(frame[1:], with_labels=False) == ([Path("sub/b.png")], None)
    with pytest.raises(SotglpError, match="the data frame has rows of the splits test, train"):
        read_frame(frame)


def test_a_frame_of_one_column_and_of_images() -> None:
    assert read_frame(pandas.DataFrame({"anything": ["a.png"]})) == ([Path("a.png")], None)
    image = Image.new("RGB", (4, 4))
    assert read_frame(pandas.DataFrame({"image": [image, image], "label": ["a", "b"]})) == ([image] * 2, ("a", "b"))


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"x": [1], "y": [2]}, "has no column path, only: x, y"),
        ({"path": ["a.png"], "label": [None]}, "has no label for a.png in the row 7"),
        ({"path": ["a.png"], "label": [float("nan")]}, "has no label for a.png in the row 7"),
        ({"path": ["a.png"], "label": [pandas.NA]}, "has no label for a.png in the row 7"),
        ({"path": ["a.png"], "label": [b"\xff"]}, "the label in the row 7 is b'.*xff', which isn't UTF-8"),
        ({"path": ["a.png"], "label": [1.5]}, "the label in the row 7 is 1.5"),
        ({"path": [None], "label": ["cat"]}, "has no path in the row 7"),
        ({"path": ["gone.png"], "label": ["cat"]}, "lists gone.png in the row 7"),
    ],
)
def test_a_frame_that_cannot_be_used(table: dict[str, list[Any]], words: str) -> None:
    with pytest.raises(SotglpError, match=words):
        read_frame(pandas.DataFrame(table, index=[7]))


def test_a_frame_with_two_columns_of_a_name() -> None:
    frame = pandas.DataFrame([["a.png", "cat", "x"]], columns=["path", "label", "label"])
    with pytest.raises(SotglpError, match="column label twice"):
        read_frame(frame)


def test_an_image_set_needs_the_column_of_paths() -> None:
    frame = pandas.DataFrame({"path": ["a.png"], "label": ["cat"]})
    with pytest.raises(SotglpError, match="the images are a data frame; give its column"):
        ImageSet.from_items(frame)
    assert ImageSet.from_items(frame["path"], frame["label"]).labels == ("cat",)
