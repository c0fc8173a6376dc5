"""Every fuzz target on a few damaged inputs, and the harness itself; ``make fuzz`` takes ten minutes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from sotglp import SotglpError

sys.path.append(str(Path(__file__).parents[2] / "fuzz"))

import run
from damage import damaged
from targets import TARGETS

# A suite is checked against every preset, a graph is loaded, and images are decoded several times.
N_INPUTS = {"suite": 20, "exported": 60, "table": 80, "labels": 80, "format": 60}


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_inputs_are_read_or_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "reader").mkdir()
    seeds, read = TARGETS[name](tmp_path / "reader")
    record = run.Recorder(read, tmp_path, tmp_path / "crashes")
    for content in seeds:
        record(content)
    assert record.counts["accepted"] == len(seeds)

    n_inputs, checks = N_INPUTS.get(name, 150), list(HealthCheck)

    @settings(max_examples=n_inputs, deadline=None, database=None, derandomize=True, suppress_health_check=checks)
    @given(damaged(seeds))
    def check(content: bytes) -> None:
        record(content)

    check()
    assert record.counts["crashes"] == 0, [path.read_text() for path in (tmp_path / "crashes").glob("*.txt")]
    assert record.counts["refused"] > 0


def test_a_crash_is_kept_once_for_each_line(tmp_path: Path) -> None:
    def read(content: bytes) -> bool:
        if content == b"refused":
            raise SotglpError("no")
        if content.startswith(b"key"):
            raise KeyError(content)
        assert content != b"false"
        return content == b"accepted"

    record = run.Recorder(read, tmp_path, tmp_path / "crashes")
    for content in (b"accepted", b"refused", b"other", b"key", b"false", b"key 2"):
        record(content)
    assert record.counts == {"inputs": 6, "accepted": 1, "refused": 2, "crashes": 2}
    assert {path.read_bytes() for path in (tmp_path / "crashes").glob("*.bin")} == {b"key", b"false"}
    assert all("Traceback" in path.read_text() for path in (tmp_path / "crashes").glob("*.txt"))


def test_hypothesis_finds_a_planted_crash_in_bytes_and_in_values() -> None:
    record = json.dumps({"__metadata__": {"model": json.dumps({"top_k": 3})}}).encode()
    tensors = len(record).to_bytes(8, "little") + record + b"tensors"
    found = set()

    def read(content: bytes) -> None:
        if content[8 + len(record) :] != b"tensors":
            found.add("tensors")
        try:
            length = int.from_bytes(content[:8], "little")
            if json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["model"])["top_k"] is None:
                found.add("value")
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            return

    run.draw_until(run.time.monotonic() + 2, [tensors], read, seed=1)
    assert found == {"tensors", "value"}


PLANTED = """
import sys, time, os
sys.path.append({folder!r})
import run
run.TARGETS["csv"] = lambda folder: ([b"fine", b"the input"], read)
def read(content):
    if content == b"the input":
        {fate}
    return True
sys.exit(run.main())
"""


@pytest.mark.parametrize(
    ("fate", "reason"),
    [("time.sleep(60)", "no end"), ("os._exit(7)", "ended with 7"), ("raise KeyError(3)", "KeyError")],
)
def test_an_input_that_hangs_ends_or_crashes_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fate: str, reason: str
) -> None:
    script, crashes = tmp_path / "planted.py", tmp_path / "crashes"
    script.write_text(PLANTED.format(folder=str(Path(run.__file__).parent), fate=fate))
    monkeypatch.setattr(run, "__file__", str(script))
    monkeypatch.setattr(run, "MAX_SECONDS", 1)
    arguments = ["--target", "csv", "--engine", "hypothesis", "--seconds", "1", "--crashes", str(crashes)]
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments, "--json", str(tmp_path / "table.json")])
    assert run.main() == 1
    (row,) = json.loads((tmp_path / "table.json").read_text())["targets"]
    assert (row["target"], row["crashes"]) == ("csv", 1)
    assert row["inputs"] >= 1
    assert "1 crashes" in capsys.readouterr().out
    assert [path.read_bytes() for path in crashes.glob("*.bin")] == [b"the input"]
    assert reason in next(crashes.glob("*.txt")).read_text()
