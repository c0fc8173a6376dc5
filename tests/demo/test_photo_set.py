from __future__ import annotations

import csv
import hashlib
import shutil
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from sotglp import SotglpError
from sotglp.demo.photo_set import copy_photos, load_photos, packaged_photos
from sotglp.demo.photographs import SHOTS, SHOWN

MOST_BYTES = 3_000_000


def test_the_photos_fit_in_a_package() -> None:
    files = [path for path in packaged_photos().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MOST_BYTES
    for path in files:
        if path.suffix == ".jpg":
            with Image.open(path) as photo:
                assert photo.mode == "RGB"
                assert max(photo.size) <= 224
                assert not photo.getexif()


def test_each_class_has_equally_many_photos() -> None:
    photos = load_photos(packaged_photos())
    assert photos.train.classes == photos.test.classes
    assert len(photos.train.classes) == 8
    assert set(Counter(photos.train.labels).values()) == {SHOTS}
    assert len(set(Counter(photos.test.labels).values())) == 1
    assert len(photos.unknown) >= 50


def test_no_photo_is_there_twice() -> None:
    photos = [path for images in load_photos(packaged_photos()) for path in images.images]
    assert all(isinstance(path, Path) for path in photos)
    assert len({hashlib.sha256(path.read_bytes()).hexdigest() for path in photos}) == len(photos)


def test_every_unknown_photo_has_its_source_and_licence() -> None:
    root = packaged_photos()
    with (root / "ATTRIBUTION.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["file"] for row in rows) == sorted(path.name for path in load_photos(root).unknown.images)
    assert all(row["licence"] and row["author_or_source"] and row["repository"] for row in rows)
    notice = (root / "NOTICE").read_text(encoding="utf-8")
    for licence in {row["licence"].partition(" (")[0] for row in rows}:
        assert licence in notice
    assert "Marcus Klasson" in (root / "LICENSE").read_text(encoding="utf-8")


def test_the_figure_shows_test_photos() -> None:
    assert all((packaged_photos() / "test" / name).is_file() for name in SHOWN)


def test_a_copy_has_the_same_bytes_and_the_licences(tmp_path: Path) -> None:
    copy_photos(tmp_path / "photos")
    source = packaged_photos()
    expected = {path.relative_to(source): path.read_bytes() for path in source.rglob("*") if path.is_file()}
    found = {path.relative_to(tmp_path / "photos"): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == expected


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(SotglpError, match=r"can't be written \(No space left on device\)"):
        copy_photos(tmp_path)
