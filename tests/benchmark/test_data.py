from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from sotglp import SotglpError
from sotglp.benchmark.data import BenchmarkData, load_data
from sotglp.benchmark.suite import DatasetChoice
from support.samples import make_class_folders

OWN: dict[str, Any] = {"train": "own/train", "test": "own/test"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_class_folders(tmp_path / "own" / "train", per_class=3, seed=0)
    make_class_folders(tmp_path / "own" / "test", per_class=2, seed=1)
    shutil.copytree(tmp_path / "own" / "test" / "blue sea", tmp_path / "iNaturalist" / "images")
    (tmp_path / "list.csv").write_text("path,label\nown/test/blue sea/0.png,blue sea\nown/test/green leaf/1.png,leaf\n")
    return tmp_path


def read(root: Path, **more: Any) -> BenchmarkData:
    return load_data("own", DatasetChoice(**{**OWN, **more}), root)


def test_sources_are_folders_manifests_or_known_datasets(root: Path) -> None:
    data = read(
        root,
        ood={"nature": "inaturalist", "sea": "own/test/blue sea", "listed": "list.csv"},
        shift={"again": "own/test"},
        transfer={"listed": "list.csv"},
    )
    assert data.classes == ("blue sea", "green leaf", "red_brick")
    assert (len(data.train), len(data.test)) == (9, 6)
    assert {name: len(images) for name, images in data.ood.items()} == {"nature": 2, "sea": 2, "listed": 2}
    assert data.shift["again"].classes == data.classes
    assert data.transfer["listed"].classes == ("blue sea", "leaf")


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"train": "own/train"}, "own in the suite file has only one of train and test"),
        ({}, "there is no dataset 'own'"),
        ({**OWN, "test": "own/nothing"}, "nothing does not exist"),
        ({**OWN, "ood": {"x": "nowhere"}}, "nowhere does not exist"),
        ({**OWN, "shift": {"x": "sun"}}, "SUN"),
    ],
)
def test_a_missing_source_is_named(root: Path, choice: dict[str, Any], message: str) -> None:
    with pytest.raises(SotglpError, match=message):
        load_data("own", DatasetChoice(**choice), root)


def test_a_dataset_without_training_images_is_rejected(root: Path) -> None:
    with pytest.raises(SotglpError, match="inaturalist has no images to train on"):
        load_data("inaturalist", DatasetChoice(), root)


def test_the_digest_depends_on_images_and_labels_but_not_on_the_root(root: Path, tmp_path: Path) -> None:
    digest = read(root).digest(root)
    moved = tmp_path / "moved"
    shutil.copytree(root / "own", moved / "own")
    assert read(moved).digest(moved) == digest
    (moved / "own" / "train" / "blue sea" / "0.png").unlink()
    assert read(moved).digest(moved) != digest
    assert read(root, ood={"sea": "own/test/blue sea"}).digest(root) != digest
    (root / "own" / "test" / "red_brick").rename(root / "own" / "test" / "brick")
    assert read(root).digest(root) != digest
