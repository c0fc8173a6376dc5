from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_the_script_for_a_gpu_runs_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(sys, "path", list(sys.path))
    import gpu

    assert gpu.main(["--device", "cpu", "--dry-run", "--out", str(tmp_path)]) == 0
    rows = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text(encoding="utf-8").splitlines()]
    measured = {(row["precision"], row["what"]) for row in rows}
    for what in ("encode", "step, stored features", "fit, one epoch", "evaluate"):
        assert {(precision, what) for precision in ("fp32", "fp16", "bf16")} <= measured
    assert {("fp32", "encode, plain"), ("fp32", "transport")} <= measured
    assert "| tiny | fp16 | encode |" in (tmp_path / "gpu.md").read_text(encoding="utf-8")


def test_measurements_after_the_last_second_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu

    gpu.main(["--device", "cpu", "--dry-run", "--seconds", "-1", "--out", str(tmp_path)])
    assert "transport" in (tmp_path / "gpu.md").read_text(encoding="utf-8")
    assert (tmp_path / "gpu.jsonl").read_text(encoding="utf-8") == ""
