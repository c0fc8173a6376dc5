from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sotglp import SotglpError
from sotglp.scoring.prediction_table import MOST_IN_NOTEBOOK, PredictionTable

ABOUT: dict[str, Any] = {"ood_method": "gl-mcm", "threshold": 0.3, "calibration": None}


def row(path: str, label: str = "cat", is_unknown: bool = False) -> dict[str, Any]:
    return {
        "path": path,
        "label": label,
        "most_probable": "cat",
        "probability": 0.9,
        "ood_score": 0.2 if is_unknown else 0.5,
        "is_unknown": is_unknown,
        "probabilities": {"cat": 0.9, "dog": 0.1},
    }


def test_a_notebook_shows_what_a_terminal_shows() -> None:
    table = PredictionTable([row("<a>.jpg"), row("b.jpg", "unknown", is_unknown=True)], ABOUT)
    html, text = table._repr_html_(), str(table)
    assert "&lt;a&gt;.jpg" in html
    assert "<a>.jpg" in text
    for part in ("90.0%", "unknown: below the threshold 0.3 of gl-mcm", "2 images"):
        assert part in html
        assert part in text


def test_a_notebook_counts_what_it_leaves_out() -> None:
    table = PredictionTable([row(f"{index}.jpg") for index in range(MOST_IN_NOTEBOOK + 2)], ABOUT)
    assert "and 2 more images" in table._repr_html_()
    assert "more" not in PredictionTable([row("a.jpg")], ABOUT)._repr_html_()
    assert PredictionTable([], ABOUT)._repr_html_()


def test_a_model_without_threshold_says_what_its_score_means() -> None:
    text = str(PredictionTable([row("a.jpg")], ABOUT | {"threshold": None}))
    assert "gl-mcm: larger" in text
    assert "--calibrate" in text


def test_files_are_not_replaced_unasked(tmp_path: Path) -> None:
    table = PredictionTable([row("a.jpg")], ABOUT)
    table.to_json_lines(tmp_path / "p.jsonl")
    assert json.loads((tmp_path / "p.jsonl").read_text(encoding="utf-8")) == table[0]
    with pytest.raises(SotglpError, match="exists"):
        table.to_json_lines(tmp_path / "p.jsonl")
    table.to_parquet(tmp_path / "p.parquet")
