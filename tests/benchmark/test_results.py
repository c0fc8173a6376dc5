from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sotglp.benchmark.results import append, latest, read
from sotglp.errors import SotglpError, SotglpWarning
from support.results import BACKBONE, VIT, made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out" / "results.jsonl"


def test_results_come_back_in_order_a_line_each(path: Path) -> None:
    first = made(ood={"far": {"auroc": 0.9, "fpr95": 0.2, "n": 5}}, prompts={"overlap": 0.5})
    second = made("zero-shot", shots=0, seed=0, protocol="base-to-new", base_to_new={"base": 0.5, "new": None})
    for result in (first, second):
        append(path, result)
    assert read(path) == [first, second]
    lines = path.read_bytes().split(b"\n")
    assert len(lines) == 3
    assert lines[2] == b""
    assert json.loads(lines[0])["cell"] == {
        "suite": "made-up",
        "protocol": "few-shot",
        "dataset": "birds",
        "method": "sot-glp",
        "shots": 16,
        "seed": 1,
    }


def test_what_is_not_known_is_ignored_and_what_may_be_missing_is_empty(path: Path) -> None:
    values = made().model_dump()
    values["later"] = values["metrics"]["later"] = values["cost"]["later"] = 1
    for name in ("ood", "shift", "transfer", "prompts", "base_to_new"):
        del values["metrics"][name]
    path.parent.mkdir()
    path.write_text(json.dumps(values) + "\n")
    assert read(path) == [made()]


def test_of_two_lines_with_one_key_the_last_counts(path: Path) -> None:
    for result in (made(accuracy=0.1), made("coop"), made(accuracy=0.2)):
        append(path, result)
    assert [(result.cell.method, result.metrics.accuracy) for result in read(path)] == [("sot-glp", 0.2), ("coop", 0.5)]


def test_a_torn_last_line_is_skipped_and_replaced(path: Path) -> None:
    first, second = made(dataset="two\u2028lines\x85here"), made("coop", dataset="naïve")
    append(path, first)
    append(path, second)
    whole = path.read_bytes()
    start = whole.index(b"\n") + 1
    for end in (*range(start + 1, len(whole), 40), whole.index("ï".encode()) + 1):  # also within a letter
        path.write_bytes(whole[:end])
        with pytest.warns(SotglpWarning, match="ends in an incomplete line"):
            assert read(path) == [first]
        append(path, second)
        assert path.read_bytes() == whole
    path.write_bytes(b"")
    assert read(path) == []


@pytest.mark.parametrize("broken", ["{", "", '{"key": "1"}', "[]"])
def test_a_broken_line_elsewhere_is_named(path: Path, broken: str) -> None:
    append(path, made())
    with open(path, "a") as file:
        file.write(broken + "\n")
    append(path, made("coop"))
    with pytest.raises(SotglpError) as caught:
        read(path)
    assert f"line 2 of {path} is not a result" in str(caught.value)


def test_what_is_no_text_or_not_there(path: Path, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"\x89PNG\n\xff\n")
    for wrong in (path, tmp_path, picture):
        with pytest.raises(SotglpError, match="can't be read as results") as caught:
            read(wrong)
        assert str(wrong) in str(caught.value)


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SotglpError, match="can't be added to"):
        append(tmp_path / "file" / "results.jsonl", made())


def test_latest_forgets_what_was_run_again_but_not_other_cells_or_backbones() -> None:
    old, new = made(accuracy=0.1, key="1"), made(accuracy=0.2, key="2", suite="other")
    retrained = made("coop", key="3", backbone={**BACKBONE, "fingerprint": "sha256:2"})
    others = [made(seed=2), made(shots=1), made(dataset="cars"), made(protocol="base-to-new"), made(backbone=VIT)]
    kept = latest([old, made("coop"), *others, new, retrained])
    assert kept == [new, retrained, *others]


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
    path = folder / "one.jsonl"
    append(path, made(key="k", backbone={**BACKBONE, "name": "b" * 1000}))
    return path


def test_benchmarks_lose_no_line_of_one_file(tmp_path: Path) -> None:
    one_result(tmp_path)
    results = tmp_path / "results.jsonl"
    writers = [subprocess.Popen([sys.executable, "-c", ADD_LINES, str(results), name]) for name in "abcd"]
    assert [process.wait(timeout=120) for process in writers] == [0] * 4
    assert {result.key for result in read(results)} == {f"{name}-{number}" for name in "abcd" for number in range(100)}


def test_a_result_that_finds_no_room_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    line = one_result(tmp_path).stat().st_size
    results = tmp_path / "results.jsonl"
    room = 15 * line // 2 // 1024  # seven lines and a half
    script = f'ulimit -f {room} && exec "$@"'
    command = ["bash", "-c", script, "bash", sys.executable, "-c", ADD_LINES, str(results), "a"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert f"the result can't be added to {results} (File too large): free space and resume" in done.stderr
    assert results.read_bytes().endswith(b"\n")
    assert 5 <= len(read(results)) <= 8
