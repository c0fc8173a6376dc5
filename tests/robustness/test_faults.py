"""What a user meets when disks, processes and files fail: one sentence, nothing lost, and the same command goes on."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.utils.data import get_worker_info
from typer.testing import CliRunner

from sotglp import SotglpError
from sotglp.benchmark.results import read
from sotglp.cli import main
from sotglp.cli.commands import app
from sotglp.images import views
from sotglp.training.checkpoint import Checkpoint
from support.processes import hear_interrupts, needs_proc, wait_for
from support.samples import make_class_folders

Fails = Callable[..., str]

BACKBONE = ["--backbone", "tiny", "--shots", "4", "--set", "augment=false", "--set", "batch_size=4"]
EPOCHS = ["--epochs", "3"]
FIT = [*BACKBONE, *EPOCHS]
# So long that it is still going when something happens to it.
LONG = [*BACKBONE, "--epochs", "40"]

FULL = "No space left on device"


def inside(*arguments: object) -> str:
    """What a command prints, without a process of its own."""
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Fails:
    """Run a command that ends with code 2 and one sentence, which is returned; it may have told results before."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["sotglp", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        return sentence(capsys.readouterr().err, stop.value.code)

    return run


def sentence(error: str, code: object) -> str:
    """The one line on standard error that an exit code 2 comes with."""
    lines = [line for line in error.splitlines() if not line.startswith("sotglp: warning: ")]
    assert code == 2, error
    assert len(lines) == 1, error
    assert lines[0].startswith("sotglp: error: ")
    return lines[0]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    make_class_folders(root / "train", per_class=4, seed=0)
    make_class_folders(root / "test", per_class=2, seed=1)
    return root


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model file of a fit that nothing disturbs."""
    out = tmp_path_factory.mktemp("whole") / "m"
    inside("fit", data / "train", "--out", out, *FIT, "--no-cache")
    return out


@pytest.fixture(scope="module")
def whole_long(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("long") / "m"
    inside("fit", data / "train", "--out", out, *LONG, "--no-cache")
    return out


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fill_disk(patch: pytest.MonkeyPatch, pattern: str, after: int = 0) -> None:
    """Stop writes of files whose names fit a pattern half way for want of room, all but the first ``after`` ones."""
    write, written = Path.write_bytes, []

    def limited(path: Path, content: bytes) -> int:
        if not re.fullmatch(pattern, path.name):
            return write(path, content)
        written.append(path)
        if len(written) <= after:
            return write(path, content)
        write(path, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, FULL)

    patch.setattr(Path, "write_bytes", limited)


# --- a full disk


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


# --- corrupted files


def put_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def put_broken_link(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("nowhere"))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a flipped bit": flip,
    "half of it": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "nothing of it": lambda path: path.write_bytes(b""),
    "a folder": put_folder,
    "a link to nowhere": put_broken_link,
}


def test_damaged_cache_entries_are_computed_again(data: Path, whole: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    command = ["fit", data / "train", *FIT, "--cache-dir", cache]
    inside(*command, "--out", tmp_path / "first")
    entries = {path: path.read_bytes() for path in cache.rglob("??/*.safetensors")}
    assert len(entries) == 12
    for path, damage in zip(list(entries)[::3], sorted(DAMAGES.keys() - {"a folder"}), strict=True):
        DAMAGES[damage](path)
    inside(*command, "--out", tmp_path / "second")
    assert (tmp_path / "second").read_bytes() == whole.read_bytes()
    assert {path: path.read_bytes() for path in cache.rglob("??/*.safetensors")} == entries


@pytest.fixture
def stopped(data: Path, tmp_path: Path, refused: Fails) -> list[object]:
    """The command of a fit that stopped after its second epoch, for want of room."""
    command: list[object] = ["fit", data / "train", "--out", tmp_path / "m", *FIT, "--no-cache"]
    with pytest.MonkeyPatch.context() as patch:
        fill_disk(patch, r"\.m\.checkpoint\..*", after=2)
        refused(*command)
    assert names(tmp_path) == ["m.checkpoint"]
    return command


def test_a_damaged_checkpoint_is_named(stopped: list[object], whole: Path, tmp_path: Path, refused: Fails) -> None:
    checkpoint = tmp_path / "m.checkpoint"
    content = checkpoint.read_bytes()
    for damage in ("a folder", "a flipped bit", "half of it", "nothing of it"):
        DAMAGES[damage](checkpoint)
        error = refused(*stopped, "--resume")
        assert str(checkpoint) in error
        assert ("is a folder" if damage == "a folder" else "start again with --force") in error
        assert names(tmp_path) == ["m.checkpoint"]
        if damage == "a folder":
            checkpoint.rmdir()
        if damage != "nothing of it":
            checkpoint.write_bytes(content)
    inside(*stopped, "--force")
    assert (tmp_path / "m").read_bytes() == whole.read_bytes()


def test_every_flipped_byte_of_a_checkpoint_is_found(stopped: list[object], tmp_path: Path) -> None:
    checkpoint = tmp_path / "m.checkpoint"
    content = checkpoint.read_bytes()
    model = torch.nn.Module()
    model.kept = ()
    kept = Checkpoint(checkpoint, "another run's")
    for place in range(0, len(content), len(content) // 200):
        flipped = bytearray(content)
        flipped[place] ^= 1
        checkpoint.write_bytes(flipped)
        with pytest.raises(SotglpError, match="start again with --force") as caught:
            kept.read(model, torch.optim.SGD([torch.zeros(1)]), torch.amp.GradScaler("cpu", enabled=False))
        assert "other settings" not in str(caught.value)


# --- processes that die


def test_a_fit_killed_between_its_model_and_the_end_of_its_checkpoint(
    data: Path, whole: Path, tmp_path: Path, refused: Fails
) -> None:
    out = tmp_path / "m"
    command = ["fit", data / "train", "--out", out, *FIT, "--no-cache"]
    with pytest.MonkeyPatch.context() as patch:
        fill_disk(patch, r"\.m\.[0-9a-f]{8}\.part")
        refused(*command)
    shutil.copy(whole, out)
    assert names(tmp_path) == ["m", "m.checkpoint"]
    assert "exists: give another name, or --force" in refused(*command, "--resume")
    inside(*command, "--resume", "--force")
    assert out.read_bytes() == whole.read_bytes()
    assert names(tmp_path) == ["m"]


@pytest.mark.thorough
@pytest.mark.slow
def test_fits_that_are_killed_at_random_moments_end_in_the_same_file(data: Path, tmp_path: Path) -> None:
    told, page = tmp_path / "kills.json", tmp_path / "kills.md"
    script = Path(__file__).parents[2] / "benchmarks" / "kills.py"
    options = ["--runs", "2", "--seed", "1", "--data", data / "train", "--json", told, "--out", page]
    done = subprocess.run([sys.executable, script, *options], capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = json.loads(told.read_text())
    assert [run["equal"] for run in runs] == [True, True]
    assert sum(len(run["kills"]) for run in runs) >= 2
    assert "| in the cache | 1 |" in page.read_text()


def test_an_image_loader_that_dies_is_told(data: Path, whole_long: Path, tmp_path: Path, refused: Fails) -> None:
    command = ["fit", data / "train", "--out", tmp_path / "m", *FIT, "--no-cache", "--set", "workers=1"]
    load = views.open_image

    def die(source: Any, *ranges: Any) -> Any:
        if get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return load(source, *ranges)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(views, "open_image", die)
        assert "a process that loads images died" in refused(*command)
    assert names(tmp_path) == []
    inside(*command, "--resume")
    assert names(tmp_path) == ["m"]


@pytest.fixture
def running(data: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A long fit that has written its first checkpoint."""
    command = [sys.executable, "-m", "sotglp", "fit", str(data / "train"), "--out", str(tmp_path / "m"), *LONG]
    process = subprocess.Popen(
        [*command, "--no-cache"], stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=hear_interrupts
    )
    try:
        wait_for((tmp_path / "m.checkpoint").exists, process)
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_fit_that_is_told_to_stop_can_go_on(
    stop: signal.Signals, data: Path, whole_long: Path, tmp_path: Path, running: subprocess.Popen[str]
) -> None:
    running.send_signal(stop)
    _, error = running.communicate(timeout=60)
    assert running.returncode == 128 + stop
    assert error == "sotglp: interrupted; repeat the command with --resume to continue\n"
    assert names(tmp_path) == ["m.checkpoint"]
    inside("fit", data / "train", "--out", tmp_path / "m", *LONG, "--no-cache", "--resume")
    assert (tmp_path / "m").read_bytes() == whole_long.read_bytes()


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_two_processes_of_a_fit_that_are_told_to_stop_can_go_on(
    stop: signal.Signals, data: Path, tmp_path: Path
) -> None:
    command = ["fit", data / "train", "--out", tmp_path / "m", *LONG, "--no-cache"]
    process = start(*command, "--num-processes", 2)
    wait_for((tmp_path / "m.checkpoint").exists, process)
    process.send_signal(stop)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 128 + stop
    assert error == "sotglp: interrupted; repeat the command with --resume to continue\n"
    assert names(tmp_path) == ["m.checkpoint"]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_interpreter_shuts_down_ends_it_quietly(stop: signal.Signals) -> None:
    code = f"import atexit, os, sys; atexit.register(os.kill, os.getpid(), {int(stop)}); from sotglp.cli import main; "
    code += "sys.argv[1:] = ['--version']; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.returncode == -stop


def test_a_second_signal_to_end_does_not_interrupt_the_cleaning_up() -> None:
    code = """
import os, signal, sotglp.cli
def run():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        print("cleaned")
sotglp.cli._run = run
sotglp.cli.main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "cleaned\n"
    assert done.returncode == 128 + signal.SIGTERM


def test_a_result_file_that_cannot_be_written_is_refused_before_the_work(
    data: Path, tmp_path: Path, refused: Fails
) -> None:
    (tmp_path / "file").write_text("")
    target = tmp_path / "file" / "r.json"
    error = refused("fit", data / "train", "--out", tmp_path / "m", *FIT, "--no-cache", "--json", target)
    assert f"{target} can't be written" in error
    assert names(tmp_path) == ["file"]


# --- two runs at once


def test_a_second_run_does_not_write_over_the_first_ones_state(
    data: Path, whole_long: Path, tmp_path: Path, running: subprocess.Popen[str], refused: Fails
) -> None:
    running.send_signal(signal.SIGSTOP)
    before = (tmp_path / "m.checkpoint").read_bytes()
    command = ["fit", data / "train", "--out", tmp_path / "m", "--no-cache"]
    assert "holds an interrupted run" in refused(*command, *LONG)
    assert "is in use by another run" in refused(*command, *LONG, "--resume")
    assert "is in use by another run" in refused(*command, *LONG, "--force", "--seed", 2)
    assert (tmp_path / "m.checkpoint").read_bytes() == before
    running.send_signal(signal.SIGCONT)
    assert running.wait(timeout=120) == 0
    assert (tmp_path / "m").read_bytes() == whole_long.read_bytes()
    assert names(tmp_path) == ["m"]


ADD_LINES = """
import sys
from pathlib import Path
from sotglp.benchmark.results import append, read

path = Path(sys.argv[1])
(result,) = read(path.with_name("one.jsonl"))
for number in range(100):
    append(path, result.model_copy(update={"key": f"{sys.argv[2]}-{number}"}))
"""


def one_result(folder: Path) -> Path:
    """A file with the result of a cell."""
    result = {
        "key": "k",
        "cell": {"suite": "s", "protocol": "p", "dataset": "d", "method": "m", "shots": 1, "seed": 1},
        "metrics": {"accuracy": 1.0, "accuracy_global": 1.0, "accuracy_local": 1.0, "n": 1},
        "cost": {"fit_seconds": 1.0, "evaluate_seconds": 1.0, "peak_memory_mb": None, "threads": 1},
        "backbone": {"name": "b" * 1000},
        "settings": {},
        "versions": {},
        "finished": "",
    }
    path = folder / "one.jsonl"
    path.write_text(json.dumps(result) + "\n")
    return path


def test_benchmarks_lose_no_line_of_one_file(tmp_path: Path) -> None:
    one_result(tmp_path)
    results = tmp_path / "results.jsonl"
    writers = [subprocess.Popen([sys.executable, "-c", ADD_LINES, str(results), name]) for name in "abcd"]
    assert [process.wait(timeout=120) for process in writers] == [0] * 4
    assert {result.key for result in read(results)} == {f"{name}-{number}" for name in "abcd" for number in range(100)}


def test_a_result_that_finds_no_room_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    one_result(tmp_path)
    results = tmp_path / "results.jsonl"
    # Room for seven lines and a half.
    room = 15 * (len(json.dumps(read(one_result(tmp_path))[0].model_dump())) + 10) // 2 // 1024
    script = f'ulimit -f {room} && exec "$@"'
    command = ["bash", "-c", script, "bash", sys.executable, "-c", ADD_LINES, str(results), "a"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert f"the result can't be added to {results} (File too large): free space and resume" in done.stderr
    assert results.read_bytes().endswith(b"\n")
    assert 5 <= len(read(results)) <= 8


def test_a_benchmark_that_cannot_write_says_so_before_it_begins(
    suite: Path, tmp_path: Path, refused: Fails, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sotglp.benchmark.runner.run_tasks", lambda *_, **__: pytest.fail("began"))
    (tmp_path / "file").write_text("")
    error = refused("benchmark", suite, "--root", suite.parent, "--out", tmp_path / "file" / "out", "--no-cache")
    assert "can't be written" in error


SUITE: dict[str, Any] = {
    "backbone": {"name": "tiny", "pretrained": "auto"},
    "datasets": {"own": {"train": "train", "test": "test"}},
    "methods": ["zero-shot", "coop", "linear-probe"],
    "shots": [1, 2],
    "seeds": [1, 2],
    "settings": {"epochs": 3, "augment": False},
}
N_CELLS = 1 + 2 * 2 * 2


@pytest.fixture(scope="module")
def suite(data: Path) -> Path:
    path = data / "suite.yaml"
    path.write_text(yaml.safe_dump(SUITE))
    return path


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sotglp", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=hear_interrupts
    )


def children(process: subprocess.Popen[str], words: str) -> list[int]:
    """Processes that a process has started, with some words in their command lines."""
    found = []
    for about in Path("/proc").glob("[0-9]*"):
        try:
            parent = about.joinpath("stat").read_text().rpartition(")")[2].split()[1]
            command = about.joinpath("cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
        if parent == str(process.pid) and words in command:
            found.append(int(about.name))
    return sorted(found)


@needs_proc
@pytest.mark.slow
def test_a_killed_process_of_a_benchmark_is_told_and_its_cells_run_again(suite: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    command = ["benchmark", suite, "--root", suite.parent, "--out", tmp_path, "--no-cache"]
    process = start(*command, "--processes", 2)
    wait_for(results.exists, process)
    os.kill(children(process, "popen_loky")[0], signal.SIGKILL)
    error = process.communicate(timeout=240)[1]
    assert process.returncode == 0
    assert "a worker process was killed" in error
    keys = [result.key for result in read(results)]
    assert len(keys) == len(set(keys)) == N_CELLS


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1])
def test_one_of_two_processes_of_a_fit_that_is_killed_is_told(data: Path, tmp_path: Path, which: int) -> None:
    command = ["fit", data / "train", "--out", tmp_path / "m", *LONG, "--no-cache"]
    process = start(*command, "--num-processes", 2)
    wait_for((tmp_path / "m.checkpoint").exists, process)
    os.kill(children(process, "-m sotglp fit")[which], signal.SIGKILL)
    error = process.communicate(timeout=120)[1]
    # torch writes lines such as "[W1127 ...]" when it notices a lost connection first.
    assert [line for line in error.splitlines() if not line.startswith(("sotglp: error: ", "["))] == []
    assert "probably because memory ran out" in error
    assert "--resume" in error
    assert process.returncode == 2
    assert names(tmp_path) == ["m.checkpoint"]
    inside(*command, "--resume")
    assert names(tmp_path) == ["m"]


@pytest.mark.slow
def test_two_benchmarks_with_one_output(suite: Path, tmp_path: Path) -> None:
    command = ["benchmark", suite, "--root", suite.parent, "--out", tmp_path, "--cache-dir", tmp_path / "cache"]
    both = [start(*command) for _ in range(2)]
    assert [process.communicate(timeout=200)[1] for process in both] == ["", ""]
    told = json.loads(inside(*command, "--json", "-"))
    assert (told["n_before"], len(told["results"])) == (N_CELLS, N_CELLS)
    by_key: dict[str, set[float]] = {}
    for line in (tmp_path / "results.jsonl").read_text().splitlines():
        result = json.loads(line)
        by_key.setdefault(result["key"], set()).add(result["metrics"]["accuracy"])
    assert [len(accuracies) for accuracies in by_key.values()] == [1] * N_CELLS


@pytest.mark.slow
def test_two_fits_with_one_cache_and_with_one_output(data: Path, whole: Path, tmp_path: Path) -> None:
    command = ["fit", data / "train", *FIT, "--cache-dir", tmp_path / "cache"]
    both = [start(*command, "--out", tmp_path / name) for name in ("a", "b")]
    assert [process.communicate(timeout=120)[1] for process in both] == ["", ""]
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == whole.read_bytes()

    out = tmp_path / "out" / "m"
    other = ["--seed", "2"]
    inside(*command, "--out", tmp_path / "c", *other)
    both = [start(*command, "--out", out), start(*command, "--out", out, *other)]
    ends = [(process.communicate(timeout=120)[1], process.returncode) for process in both]
    winners = [number for number, (_, code) in enumerate(ends) if code == 0]
    assert winners
    for error, code in ends:
        if code:
            assert "exists" in sentence(error, code) or "in use by" in error or "holds an interrupted run" in error
    assert out.read_bytes() in [((tmp_path / "a", tmp_path / "c")[winner]).read_bytes() for winner in winners]
    assert set(names(out.parent)) <= {"m", "m.checkpoint"}


# --- real file systems that are full, or can only be read

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
