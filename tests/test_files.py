from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from sotglp import SotglpError
from sotglp.files import check_output, place_file, write_file


def test_a_file_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "er" / "out.txt"
    write_file(target, lambda path: path.write_text("all of it"), force=False)
    assert target.read_text() == "all of it"
    assert [path.name for path in target.parent.iterdir()] == ["out.txt"]


def test_an_existing_file_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    target.write_text("precious")
    with pytest.raises(SotglpError, match=r"exists.*--force"):
        write_file(target, lambda path: path.write_text("new"), force=False)
    with pytest.raises(SotglpError, match=r"exists.*--force"):
        check_output(target, force=False)
    assert target.read_text() == "precious"
    write_file(target, lambda path: path.write_text("new"), force=True)
    assert target.read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"

    def write(path: Path) -> None:
        target.write_text("somebody else's")
        path.write_text("ours")

    with pytest.raises(SotglpError, match="exists"):
        write_file(target, write, force=False)
    assert target.read_text() == "somebody else's"


def test_a_failed_write_leaves_nothing_and_keeps_the_old(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    target.write_text("old")

    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(SotglpError, match="No space left on device"):
        write_file(target, fail, force=True)
    assert target.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SotglpError, match="can't be written"):
        check_output(tmp_path / "file" / "out.txt", force=False)
    with pytest.raises(SotglpError, match="can't be written"):
        write_file(tmp_path / "file" / "out.txt", lambda path: path.write_text(""), force=False)
    with pytest.raises(SotglpError, match="is a folder"):
        check_output(tmp_path, force=True)
    with pytest.raises(SotglpError, match="can't be written"):
        check_output(Path("/proc/no/out.txt"), force=False)


def test_permissions_follow_the_users_mask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_file(tmp_path / "out.txt", lambda path: path.write_text(""), force=False)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out.txt").stat().st_mode) == 0o640


def test_a_folder_that_is_cleared_away_meanwhile_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "deep" / "out.txt"
    touch, cleared = Path.touch, []

    def clear_first(path: Path, **options: bool) -> None:
        if len(cleared) < 3:
            cleared.append(path)
            path.parent.rmdir()
        touch(path, **options)

    monkeypatch.setattr(Path, "touch", clear_first)
    write_file(target, lambda path: path.write_text("all of it"), force=False)
    assert target.read_text() == "all of it"
    assert len(cleared) == 3


@pytest.mark.parametrize("durable", [True, False])
def test_only_a_durable_file_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool) -> None:
    waited = []
    monkeypatch.setattr(os, "fsync", waited.append)
    place_file(tmp_path / "out.txt", lambda path: path.write_text("all of it"), force=False, durable=durable)
    assert (tmp_path / "out.txt").read_text() == "all of it"
    assert len(waited) == durable


def test_a_disk_that_refuses_is_told_as_it_said_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        place_file(tmp_path / "file" / "deep" / "out", lambda path: path.write_text(""), force=True, durable=False)
