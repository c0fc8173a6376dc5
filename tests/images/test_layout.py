import warnings
from pathlib import Path

import pytest

from sotglp.errors import SotglpWarning
from sotglp.images.folders import read_class_folders
from sotglp.images.layout import FolderLayoutError


def plant(root: Path, *files: str) -> None:
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def refusal(root: Path) -> str:
    with pytest.raises(FolderLayoutError) as caught:
        read_class_folders(root)
    text = str(caught.value)
    assert "\n" not in text
    assert str(root) in text
    return text


@pytest.mark.parametrize(
    ("files", "meant"),
    [
        (["train/cat/1.png", "train/dog/1.png", "test/cat/2.png", "test/dog/2.png"], "train"),
        (["Training/cat/1.png", "VALID/cat/2.png", "Eval/cat/3.png"], "Training"),
        (["val/cat/1.png", "dev/cat/2.png", "dev/dog/2.png"], "dev"),
        (["train2017/cat/1.png", "val2017/cat/2.png"], "train2017"),
        (["train_set/cat/1.png", "test-set/cat/2.png", "other/3.png"], "train_set"),
        (["train/cat/1.png", "train/dog/1.png"], "train"),
        (["photos/cat/1.png", "photos/dog/1.png"], "photos"),
        (["photos/train/cat/1.png", "photos/test/cat/1.png"], "photos/train"),
        (["a/b/cat/1.png", "a/b/dog/1.png"], "a/b"),
        (["images/cat/1.png", "images/dog/1.png", "annotations/cat/1.xml"], "images"),
        (["images/train/cat/1.png", "images/val/cat/1.png", "labels/train/1.txt"], "images/train"),
        (["JPEGImages/cat/1.png", "masks/cat/1.png"], "JPEGImages"),
        (["train/images/cat/1.png", "test/images/cat/1.png"], "train/images"),
    ],
)
def test_splits_and_wrappers_are_refused_with_the_folder_meant(tmp_path, files, meant):
    plant(tmp_path, *files)
    assert f"did you mean {tmp_path / meant}?" in refusal(tmp_path)


@pytest.mark.parametrize(
    "files",
    [
        ["train/1.png", "test/2.png"],
        ["images/1.png", "annotations/1.xml"],
        ["images/train/1.png", "images/val/2.png", "labels/train/1.txt"],
    ],
)
def test_without_class_folders_anywhere_a_manifest_is_advised(tmp_path, files):
    plant(tmp_path, *files)
    assert "give a manifest" in refusal(tmp_path)


@pytest.mark.parametrize(
    "files",
    [
        ["cat/train/1.png", "cat/test/2.png", "dog/train/1.png"],
        ["cat/train/1.png", "dog/test/1.png"],
        ["cat/1.png", "cat/Validation/2.png", "dog/1.png"],
        ["cat/studio/train/1.png", "cat/studio/dev/2.png", "dog/1.png"],
    ],
)
def test_splits_inside_class_folders_are_refused(tmp_path, files):
    plant(tmp_path, *files)
    assert "mixed" in refusal(tmp_path)


@pytest.mark.parametrize(
    "files",
    [
        ["car/1.png", "bus/1.png", "train/1.png"],
        ["cat/1.png", "cat/old/2.png"],
        ["cat/2024/1.png", "dog/2024/1.png"],
        ["cat/train/1.png", "dog/train/1.png"],
        ["station/1.png", "station/train/2.png", "street/1.png"],
        ["images of cats/1.png", "labels/1.png"],
        ["testbench/a/1.png", "valve/a/1.png"],
        ["cat/batch/1.png"],
    ],
)
def test_other_folders_are_classes(tmp_path, files):
    plant(tmp_path, *files)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images, _ = read_class_folders(tmp_path)
    assert len(images) == len(files)


def test_a_class_called_train_with_folders_is_reported(tmp_path):
    plant(tmp_path, "car/1.png", "train/steam/1.png", "train/electric/1.png")
    with pytest.warns(SotglpWarning, match=r"train holds the folders .*did you mean .*train\?"):
        assert set(read_class_folders(tmp_path)[1]) == {"car", "train"}
