"""Disks that are full or can only be read: one sentence, nothing lost, and the same command continues."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.faults import FIT, FULL, Fails, fill_disk, inside, names


@pytest.mark.parametrize(
    ("pattern", "after", "words", "left"),
    [
        (r"\.[0-9a-f]{64}\.safetensors\..*", 5, "features can't be written to", ["m"]),
        (r"\.m\.checkpoint\..*", 0, "m.checkpoint can't be written", ["m"]),
        (r"\.m\.checkpoint\..*", 1, "m.checkpoint can't be written", ["m", "m.checkpoint"]),
        (r"\.m\.[0-9a-f]{8}\.part", 0, "m can't be written", ["m", "m.checkpoint"]),
    ],
    ids=["cache", "first checkpoint", "second checkpoint", "model"],
)
def test_a_disk_that_gets_full_in_a_fit(
    data: Path, whole: Path, tmp_path: Path, refused: Fails, pattern: str, after: int, words: str, left: list[str]
) -> None:
    out, cache = tmp_path / "out" / "m", tmp_path / "cache"
    out.parent.mkdir()
    out.write_text("an older model")
    command = ["fit", data / "train", "--out", out, *FIT, "--cache-dir", cache, "--force"]
    with pytest.MonkeyPatch.context() as patch:
        fill_disk(patch, pattern, after)
        error = refused(*command)
    assert words in error
    assert FULL in error
    assert out.read_text() == "an older model"
    assert names(out.parent) == left
    assert list(cache.rglob("*.part")) == []
    inside(*command, "--resume")
    assert out.read_bytes() == whole.read_bytes()
    assert names(out.parent) == ["m"]


def test_a_disk_that_is_full_when_results_are_written(
    data: Path, whole: Path, tmp_path: Path, refused: Fails, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, table = tmp_path / "r.json", tmp_path / "r.csv"
    inside("info", whole, "--json", result)
    earlier = result.read_bytes()
    fill_disk(monkeypatch, r"\.r\.(json|csv)\..*")
    for command in (
        ("evaluate", whole, data / "test", "--json", result),
        ("predict", whole, data / "test", "--json", result),
        ("predict", whole, data / "test", "--csv", table),
        ("cache", "list", "--cache-dir", tmp_path / "absent", "--json", result),
    ):
        assert FULL in refused(*command)
    assert names(tmp_path) == ["r.json"]
    assert result.read_bytes() == earlier


def test_a_fit_whose_result_file_finds_no_room_keeps_its_model(
    data: Path, whole: Path, tmp_path: Path, refused: Fails, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "m"
    fill_disk(monkeypatch, r"\.r\.json\..*")
    assert FULL in refused("fit", data / "train", "--out", out, *FIT, "--no-cache", "--json", tmp_path / "r.json")
    assert out.read_bytes() == whole.read_bytes()
    assert names(tmp_path) == ["m"]


def test_a_result_file_that_cannot_be_written_is_refused_before_the_work(
    data: Path, tmp_path: Path, refused: Fails
) -> None:
    (tmp_path / "file").write_text("")
    target = tmp_path / "file" / "r.json"
    error = refused("fit", data / "train", "--out", tmp_path / "m", *FIT, "--no-cache", "--json", target)
    assert f"{target} can't be written" in error
    assert names(tmp_path) == ["file"]


def test_a_benchmark_that_cannot_write_says_so_before_it_begins(
    suite: Path, tmp_path: Path, refused: Fails, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sotglp.benchmark.runner.run_tasks", lambda *_, **__: pytest.fail("began"))
    (tmp_path / "file").write_text("")
    error = refused("benchmark", suite, "--root", suite.parent, "--out", tmp_path / "file" / "out", "--no-cache")
    assert "can't be written" in error


MOUNT = ["unshare", "--mount", "--map-root-user", "bash", "-euc"]


def may_mount() -> bool:
    """Whether a file system can be mounted that only one command sees."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*MOUNT, "mount -t tmpfs none /mnt"], capture_output=True, check=False).returncode == 0


needs_mount = pytest.mark.skipif(not may_mount(), reason="no file system can be mounted here")


def mounted(script: str, folder: Path, *arguments: object) -> str:
    """What a script says on standard output and error; $1 is a folder to mount at, "${@:2}" a command of sotglp."""
    command = [*MOUNT, script, "bash", str(folder), sys.executable, "-m", "sotglp", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@needs_mount
@pytest.mark.slow
def test_a_fit_goes_on_when_there_is_room_on_the_disk_again(data: Path, whole: Path, tmp_path: Path) -> None:
    full, kept = tmp_path / "full", tmp_path / "kept"
    full.mkdir()
    kept.mkdir()
    script = f"""
        mount -t tmpfs -o size={4 * 2**10 + whole.stat().st_size // 1024 * 1024 // 2} none "$1"
        echo precious > "$1/precious"
        "${{@:2}}" && exit 1 || echo "code $?"
        ls -A "$1"
        mount -o remount,size=16m "$1"
        "${{@:2}}" --resume
        ls -A "$1"
        cat "$1/precious"
        cp "$1/m" {kept}
    """
    said = mounted(script, full, "fit", data / "train", "--out", full / "m", *FIT, "--no-cache").splitlines()
    errors = [line for line in said if line.startswith("sotglp: error: ")]
    assert len(errors) == 1
    assert "can't be written (No space left on device): choose another name" in errors[0]
    assert said[:2] == ["code 2", "precious"]
    assert said[-len(errors) - 3 : -len(errors)] == ["m", "precious", "precious"]
    assert (kept / "m").read_bytes() == whole.read_bytes()


@needs_mount
@pytest.mark.slow
def test_places_that_can_only_be_read(data: Path, whole: Path, suite: Path, tmp_path: Path) -> None:
    fixed = tmp_path / "fixed"
    cache = fixed / "cache"
    fit = ["fit", data / "train", *FIT, "--cache-dir", cache]
    inside(*fit, "--out", tmp_path / "first")
    script = 'mount --bind "$1" "$1"; mount -o remount,ro,bind "$1"; "${@:2}" || echo "code $?"'

    assert "Read-only file system" in mounted(script, fixed, "fit", data / "train", "--out", fixed / "m", *FIT)
    # What a cache holds is served; what is missing is refused.
    mounted(script, fixed, *fit, "--out", tmp_path / "second")
    assert (tmp_path / "second").read_bytes() == whole.read_bytes()
    said = mounted(script, fixed, *fit, "--out", tmp_path / "third", "--shots", 3, "--seed", 5, "--set", "augment=true")
    assert "code 2" in said
    assert f"features can't be written to {cache} (Read-only file system)" in said
    said = mounted(script, fixed, "benchmark", suite, "--root", suite.parent, "--out", fixed / "out", "--no-cache")
    assert "code 2" in said
    assert "can't be written (Read-only file system)" in said
    assert names(tmp_path) == ["first", "fixed", "second"]
    assert names(fixed) == ["cache"]
