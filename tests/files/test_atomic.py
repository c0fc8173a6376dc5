from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sotglp import SotglpError
from sotglp.files.atomic import check_output, place_file, write_file

KILLED_WHILE_WRITING = """
import os, pathlib, signal, sys
from sotglp.files.atomic import write_file

def write(beside):
    beside.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)

write_file(pathlib.Path(sys.argv[1]), write, force=False)
"""


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


def test_what_a_killed_process_left_is_cleared_by_the_next_write(tmp_path: Path) -> None:
    target, other = tmp_path / "out.txt", tmp_path / "out.txt.more"
    for path in (target, other):
        done = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(path)], check=False)
        assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob(".out.txt*.part"))) == 2
    write_file(target, lambda path: path.write_text("all of it"), force=False)
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".part") == ["out.txt"]
    (left,) = tmp_path.glob(".*.part")
    assert left.name.startswith(".out.txt.more.")


def test_what_another_process_is_writing_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"

    def write(path: Path) -> None:
        write_file(target, lambda inner: inner.write_text("the quicker one's"), force=True)
        assert path.exists()
        path.write_text("the slower one's")

    write_file(target, write, force=True)
    assert target.read_text() == "the slower one's"
    assert [path.name for path in tmp_path.iterdir()] == ["out.txt"]


def test_a_device_or_pipe_is_never_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    for target in (*tmp_path.iterdir(), *map(Path, ("/dev/null", "/dev/stdout", "/dev/fd/1"))):
        with pytest.raises(SotglpError, match="pipe or a device"):
            check_output(target, force=True)
        with pytest.raises(SotglpError, match="pipe or a device"):
            write_file(target, lambda path: path.write_text("new"), force=True)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
