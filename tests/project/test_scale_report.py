from __future__ import annotations

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_costs_of_many_images_and_classes_follow_from_those_of_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from scale_report import STAGES, write_report

    costs = {stage: 0.009 if stage in ("decode", "encode") else 0.006 for stage in STAGES}  # 36 ms
    rows = {"stages tower": {"images": 2, "bytes": 1e4, "seconds": costs}}
    rows |= {f"step tower {n}": {"text": 0.036 * n, "head": 0.0} for n in (20, 50)}
    rows |= {f"exchanged tower {n}": {"bytes": 1e6 + 1e4 * n} for n in (20, 50)}
    write_report(rows, tmp_path / "scale.md")
    text = (tmp_path / "scale.md").read_text(encoding="utf-8")
    assert "| tower | 100 M | 1,000 |" in text  # core hours
    assert "| tower | 1,000 | 36.0 | 1 | 5 |" in text  # seconds of a step, hours of a hundred and of an epoch
    assert "| tower | 20 | 1.20 | 10.0 | 1.00 |" in text  # MB a step, KB of a class, fixed MB
    assert "| tower | 20 | 0.7 | 0.019 s | 0.002 s | 3.3 MB/s |" in text
