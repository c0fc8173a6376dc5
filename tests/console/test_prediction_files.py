from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from sotglp import SotglpError
from sotglp.console.output import check_outputs
from sotglp.console.prediction_files import COLUMNS, json_lines, write_parquet

ROWS: list[dict[str, Any]] = [
    {
        "path": "a.jpg",
        "label": 3,
        "most_probable": 3,
        "probability": 0.75,
        "ood_score": 1.5,
        "is_unknown": False,
        "probabilities": {"3": 0.75, "4": 0.25},
        "set": [3, 4],
    },
    {
        "path": "b\udce9.jpg",
        "label": "unknown",
        "most_probable": 4,
        "probability": 0.5,
        "ood_score": float("nan"),
        "is_unknown": True,
        "probabilities": {"3": 0.5, "4": 0.5},
        "set": [],
    },
]
WRITTEN = [
    {**ROWS[0], "label": "3", "most_probable": "3", "set": ["3", "4"]},
    {**ROWS[1], "path": "b\\udce9.jpg", "most_probable": "4", "ood_score": None},
]


def test_json_lines_have_one_type_a_column() -> None:
    written = [json.loads(line) for line in json_lines(ROWS).splitlines()]
    assert written == WRITTEN
    assert tuple(written[0]) == (*COLUMNS, "set")


def test_parquet_has_the_same_columns(tmp_path: Path) -> None:
    write_parquet(tmp_path / "p.parquet", ROWS, force=False)
    assert pyarrow.parquet.read_table(tmp_path / "p.parquet").to_pylist() == WRITTEN
    write_parquet(tmp_path / "q.parquet", ROWS, force=False)
    assert (tmp_path / "p.parquet").read_bytes() == (tmp_path / "q.parquet").read_bytes()


def test_earlier_predictions_are_replaced_and_other_files_are_kept(tmp_path: Path) -> None:
    write_parquet(tmp_path / "p.parquet", ROWS, force=False)
    (tmp_path / "p.jsonl").write_bytes(json_lines(ROWS))
    check_outputs({"--parquet": str(tmp_path / "p.parquet"), "--jsonl": str(tmp_path / "p.jsonl")})
    pyarrow.parquet.write_table(pyarrow.table({"x": [1]}), tmp_path / "own.parquet")
    (tmp_path / "own.jsonl").write_text('{"x": 1}\n{"x": 2}\n', encoding="utf-8")
    for name in ("own.parquet", "own.jsonl"):
        with pytest.raises(SotglpError, match="not a result of sotglp"):
            check_outputs({"--out": str(tmp_path / name)})


def test_without_pyarrow_the_other_format_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sotglp.console.prediction_files.find_spec", lambda name: None)
    with pytest.raises(SotglpError, match="--jsonl"):
        write_parquet(tmp_path / "p.parquet", ROWS, force=False)
