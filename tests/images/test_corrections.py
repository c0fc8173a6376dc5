from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from sotglp import SotglpError
from sotglp.images.corrections import Correction, apply_corrections, read_corrections

HEADER = "path,label,action,new_label,reason\n"


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_corrections_change_a_copy(class_folders: Path, tmp_path: Path) -> None:
    (class_folders / "blue sea" / "notes.txt").write_text("kept")
    (class_folders / "green leaf" / "deep").mkdir()
    (class_folders / "green leaf" / "3.png").rename(class_folders / "green leaf" / "deep" / "3.png")
    before, out = files(class_folders), tmp_path / "deep" / "fixed"
    done = apply_corrections(
        class_folders,
        [
            Correction("blue sea/1.png", "blue sea", "relabel", "green leaf"),  # whose name is taken
            Correction("green leaf/deep/3.png", "green leaf", "relabel", "red_brick"),
            Correction("red_brick/2.png", "red_brick", "relabel", "brown mud"),  # a new class
            Correction("red_brick/0.png", "red_brick", "remove"),
            Correction("red_brick/1.png", "red_brick", "keep"),
            Correction("red_brick/4.png", "red_brick", ""),
            Correction("red_brick/5.png", "red_brick", "relabel", "red_brick"),
        ],
        out,
    )
    assert files(class_folders) == before
    expected = dict(before)
    for old, new in (
        ("blue sea/1.png", "green leaf/1 (2).png"),
        ("green leaf/deep/3.png", "red_brick/deep/3.png"),
        ("red_brick/2.png", "brown mud/2.png"),
    ):
        expected[new] = expected.pop(old)
        assert done.moved[old] == new
    del expected["red_brick/0.png"]
    assert files(out) == expected
    assert done.removed == ("red_brick/0.png",)
    assert (done.n_copied, done.n_undecided, done.new_classes) == (len(before) - 1, 1, ("brown mud",))
    assert [path.name for path in out.parent.iterdir()] == ["fixed"]


def test_classes_without_images_are_reported(class_folders: Path, tmp_path: Path) -> None:
    corrections = [Correction(f"blue sea/{place}.png", "blue sea", "remove") for place in range(5)]
    last = Correction("blue sea/5.png", "blue sea", "relabel", "green leaf")
    back = Correction("red_brick/0.png", "red_brick", "relabel", "blue sea")
    assert apply_corrections(class_folders, [*corrections, last], tmp_path / "out").emptied == ("blue sea",)
    assert apply_corrections(class_folders, [*corrections, last, back], tmp_path / "out2").emptied == ()


def test_splits_keep_their_folders(class_folders: Path, tmp_path: Path) -> None:
    for name in ("train", "test"):
        shutil.copytree(class_folders, tmp_path / "both" / name)
    correction = Correction("train/blue sea/1.png", "blue sea", "relabel", "green leaf")
    apply_corrections(tmp_path / "both", [correction], tmp_path / "out")
    assert (tmp_path / "out" / "train" / "green leaf" / "1 (2).png").is_file()
    assert (tmp_path / "out" / "test" / "blue sea" / "1.png").is_file()
    assert not (tmp_path / "out" / "train" / "blue sea" / "1.png").exists()


@pytest.mark.parametrize(
    ("correction", "message"),
    [
        (Correction("../secret.png", "blue sea", "remove"), "there is no image"),
        (Correction("blue sea/99.png", "blue sea", "remove"), "there is no image"),
        (Correction("blue sea/1.png", "green leaf", "remove"), "has changed"),
        (Correction("blue sea/1.png", "blue sea", "relabel", "../up"), "can't be the name of a folder"),
        (Correction("blue sea/1.png", "blue sea", "relabel", ".."), "can't be the name of a folder"),
        (Correction("blue sea/1.png", "blue sea", "relabel", ".hidden"), "can't be the name of a folder"),
    ],
)
def test_a_correction_that_cannot_be_carried_out_writes_nothing(
    correction: Correction, message: str, class_folders: Path, tmp_path: Path
) -> None:
    with pytest.raises(SotglpError, match=message):
        apply_corrections(class_folders, [correction], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(class_folders: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    apply_corrections(class_folders, [], tmp_path / "out")  # empty
    (tmp_path / "link").symlink_to("nowhere")
    for out, message in (
        (tmp_path / "link", "exists"),
        (tmp_path / "out", "exists"),
        (class_folders, "exists"),
        (class_folders / "new", "is in"),
        (class_folders / "blue sea" / "1.png", "exists"),
    ):
        with pytest.raises(SotglpError, match=message):
            apply_corrections(class_folders, [], out)
    with pytest.raises(SotglpError, match="is not a folder"):
        apply_corrections(class_folders / "nowhere", [], tmp_path / "other")


def test_a_failed_copy_leaves_nothing(class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copy2", full)
    with pytest.raises(SotglpError, match="No space left"):
        apply_corrections(class_folders, [], tmp_path / "new" / "out")
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(SotglpError, match=r"failed at .*file"):
        apply_corrections(class_folders, [], tmp_path / "file" / "out")


def test_links_are_followed_once_and_odd_files_are_reported(class_folders: Path, tmp_path: Path) -> None:
    (class_folders / "blue sea" / "loop").symlink_to(class_folders)
    (class_folders / "blue sea" / "broken.png").symlink_to("nowhere")
    os.mkfifo(class_folders / "pipe")
    done = apply_corrections(class_folders, [], tmp_path / "out")
    assert set(done.skipped) == {"blue sea/loop", "blue sea/broken.png", "pipe"}


def test_names_that_a_spreadsheet_would_change(class_folders: Path, tmp_path: Path) -> None:
    (class_folders / "blue sea" / "1.png").rename(class_folders / "blue sea" / " spaced.png")
    (class_folders / "blue sea").rename(class_folders / "=sea")
    table = tmp_path / "t.csv"
    table.write_text(f"\ufeff{HEADER}'=sea/ spaced.png,'=sea,Remove,,\n'=sea/2.png,'=sea,relabel,'=sea,\n")
    done = apply_corrections(class_folders, read_corrections(table), tmp_path / "out")
    assert done.removed == ("'=sea/ spaced.png",)
    assert done.moved == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path,label,action\na/1.png,a,delete\n", "has the action 'delete' in row 1"),
        ("path,label,action\na/1.png,a,relabel\n", "no new_label in row 1"),
        ("path,label,action\na/1.png,a,keep\na/1.png,a,remove\n", "twice, in row 2"),
        ("path,label\na/1.png,a\n", "no column action"),
        ("", "is empty"),
    ],
)
def test_tables_that_cannot_be_read(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(SotglpError, match=message):
        read_corrections(tmp_path / "t.csv")


def test_semicolons_and_missing_columns(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("action;path;label\nKEEP;a/1.png;a\n;a/2.png;a\n")
    assert read_corrections(tmp_path / "t.csv") == [
        Correction("a/1.png", "a", "keep"),
        Correction("a/2.png", "a", ""),
    ]
