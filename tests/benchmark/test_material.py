from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from sotglp import SotglpError
from sotglp.benchmark.material import Material, read_material
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


def read(root: Path, **more: Any) -> Material:
    return read_material("own", DatasetChoice(**{**OWN, **more}), root)


def test_places_are_folders_manifests_or_known_datasets(root: Path) -> None:
    material = read(
        root,
        ood={"nature": "inaturalist", "sea": "own/test/blue sea", "listed": "list.csv"},
        shift={"again": "own/test"},
        transfer={"listed": "list.csv"},
    )
    assert material.classes == ("blue sea", "green leaf", "red_brick")
    assert (len(material.train), len(material.test)) == (9, 6)
    assert {name: len(images) for name, images in material.ood.items()} == {"nature": 2, "sea": 2, "listed": 2}
    assert material.shift["again"].classes == material.classes
    assert material.transfer["listed"].classes == ("blue sea", "leaf")


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"train": "own/train"}, "the dataset own needs train and test in the suite file, or neither"),
        ({}, "there is no dataset 'own'"),
        ({**OWN, "test": "own/nothing"}, "nothing does not exist"),
        ({**OWN, "ood": {"x": "nowhere"}}, "nowhere does not exist"),
        ({**OWN, "shift": {"x": "sun"}}, "there is no SUN"),
    ],
)
def test_a_place_that_is_not_there_is_named(root: Path, choice: dict[str, Any], message: str) -> None:
    with pytest.raises(SotglpError, match=message):
        read_material("own", DatasetChoice(**choice), root)


def test_a_dataset_that_is_only_there_for_tests_is_not_trained_on(root: Path) -> None:
    with pytest.raises(SotglpError, match="inaturalist has no images to train on"):
        read_material("inaturalist", DatasetChoice(), root)


def test_the_digest_tells_images_and_labels_but_not_where_the_root_is(root: Path, tmp_path: Path) -> None:
    digest = read(root).digest(root)
    moved = tmp_path / "moved"
    shutil.copytree(root / "own", moved / "own")
    assert read(moved).digest(moved) == digest
    (moved / "own" / "train" / "blue sea" / "0.png").unlink()
    assert read(moved).digest(moved) != digest
    assert read(root, ood={"sea": "own/test/blue sea"}).digest(root) != digest
    (root / "own" / "test" / "red_brick").rename(root / "own" / "test" / "brick")
    assert read(root).digest(root) != digest
