"""The fuzzing harness, and each of its targets on a few hundred inputs; ``make fuzz`` takes ten minutes."""

from __future__ import annotations

import json
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sotglp import SotglpError
from sotglp.benchmark.suite import load_suite
from sotglp.datasets.split_file import read_split_file
from sotglp.settings import load_preset

sys.path.append(str(Path(__file__).parents[2] / "fuzz"))

import run
from targets import TARGETS
from worker import Board, own_input, watched

# A suite is checked against every preset and method that it names.
N_INPUTS = {name: 60 if name == "suite" else 250 for name in TARGETS}


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_inputs_are_read_or_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "reader").mkdir()
    inputs, read = TARGETS[name].prepare(tmp_path / "reader")
    board = Board(tmp_path / "board")
    check = watched(read, name, board, tmp_path / "crashes")
    for index in range(len(inputs)):
        check(own_input(inputs, TARGETS[name].mutate, 1, index))
    assert board.n_accepted == len(inputs)
    for index in range(len(inputs), N_INPUTS[name]):
        check(own_input(inputs, TARGETS[name].mutate, 1, index))
    assert board.n_crashes == 0, [path.read_text() for path in (tmp_path / "crashes").glob("*.txt")]
    assert board.n_refused > 0
    assert board.n_accepted + board.n_refused == N_INPUTS[name]


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
NAMES = st.text() | st.sampled_from(["model", "training", "datasets", "methods", "coop", "settings", "train", "test"])
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner), max_leaves=20)


@settings(max_examples=60, deadline=None)
@given(value=st.dictionaries(NAMES, VALUES))
def test_any_json_is_read_or_refused_as_settings(value: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        # JSON is YAML.
        path = Path(folder) / "mine.yaml"
        path.write_text(json.dumps(value))
        for read in (load_preset, load_suite, lambda name: read_split_file(Path(name), Path(folder))):
            with suppress(SotglpError):
                read(str(path))


def test_the_own_engine_repeats_itself() -> None:
    inputs, damage = [b"path,label\na.png,cat\n"] * 2, TARGETS["csv"].mutate
    made = [own_input(inputs, damage, 1, index) for index in range(50)]
    assert made[:2] == inputs
    assert made == [own_input(inputs, damage, 1, index) for index in range(50)]
    assert made[2:] != [own_input(inputs, damage, 2, index) for index in range(2, 50)]


def test_what_should_not_be_raised_is_kept_once_for_each_place(tmp_path: Path) -> None:
    def read(content: bytes) -> bool:
        if content == b"refused":
            raise SotglpError("no")
        if content == b"key":
            raise KeyError(content)
        assert content != b"false"
        return content == b"accepted"

    board = Board(tmp_path / "board")
    check = watched(read, "t", board, tmp_path / "crashes")
    for content in (b"accepted", b"refused", b"other", b"key", b"false", b"key"):
        check(content)
    assert (board.n_run, board.n_accepted, board.n_refused, board.n_crashes) == (6, 1, 2, 2)
    kept = {path.read_bytes() for path in (tmp_path / "crashes").glob("t-*.bin")}
    assert kept == {b"key", b"false"}
    assert all("Traceback" in path.read_text() for path in (tmp_path / "crashes").glob("t-*.txt"))
    # Another process sees the same counts.
    assert Board(tmp_path / "board").n_run == 6


WORKER = """
import sys, time, os
from pathlib import Path
sys.path.append({folder!r})
from worker import Board
board = Board(Path(sys.argv[2]))
board.n_run += 1
board.put(b"the input")
{fate}
"""


@pytest.mark.parametrize(
    ("fate", "words"),
    [("time.sleep(60)", "still at it after 1 s"), ("os._exit(7)", "ended with 7"), ("os.abort()", "ended with -6")],
)
def test_an_input_that_hangs_or_kills_the_process_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fate: str, words: str
) -> None:
    worker = tmp_path / "fake.py"
    worker.write_text(WORKER.format(folder=str(Path(run.__file__).parent), fate=fate))
    monkeypatch.setattr(run, "WORKER", worker)
    monkeypatch.setattr(run, "MOST_SECONDS", 1.0)
    monkeypatch.setattr(run, "MOST_RESTARTS", 1)
    outcome = run.fuzz("csv", "own", 5.0, 1, tmp_path / "crashes")
    assert (outcome.inputs, outcome.crashes) == (1, 1)
    assert [path.read_bytes() for path in (tmp_path / "crashes").glob("*.bin")] == [b"the input"]
    assert words in next((tmp_path / "crashes").glob("*.txt")).read_text()


def test_the_command_prints_and_writes_its_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    said = iter([run.Outcome("csv", "own", 9, 5, 4, 0, 1.0), run.Outcome("csv", "own", 9, 5, 3, 1, 1.0)])
    monkeypatch.setattr(run, "fuzz", lambda *_: next(said))
    monkeypatch.setattr(
        sys, "argv", ["run.py", "--target", "csv", "--engine", "own", "--json", str(tmp_path / "t.json")]
    )
    assert run.main() == 0
    (row,) = json.loads((tmp_path / "t.json").read_text())["targets"]
    assert (row["inputs"], row["accepted"], row["refused"], row["crashes"]) == (9, 5, 4, 0)
    assert "engine own" in capsys.readouterr().out
    assert run.main() == 1
