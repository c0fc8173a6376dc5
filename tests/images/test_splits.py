from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sotglp import SotglpError, SotglpWarning
from sotglp.images.columns import Columns
from sotglp.images.splits import read_sets


def test_a_folder_of_class_folders_is_one_set(class_folders: Path) -> None:
    assert [(path, len(images)) for path, images in read_sets(class_folders, Columns()).items()] == [
        (class_folders, 18)
    ]


def test_splits_are_sets_and_other_folders_are_reported(class_folders: Path, tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for name in ("train", "test"):
        shutil.copytree(class_folders, root / name)
    shutil.copytree(class_folders / "red_brick", root / "other_things")
    with pytest.warns(SotglpWarning, match="other_things"):
        sets = read_sets(root, Columns())
    assert list(sets) == [root / "test", root / "train"]
    assert all(len(images) == 18 for images in sets.values())


def test_other_layouts_are_refused_as_ever(class_folders: Path, tmp_path: Path) -> None:
    shutil.copytree(class_folders, tmp_path / "wrapper" / "photos")
    with pytest.raises(SotglpError, match="did you mean"):
        read_sets(tmp_path / "wrapper", Columns())
    with pytest.raises(SotglpError, match="does not exist"):
        read_sets(tmp_path / "nowhere", Columns())
