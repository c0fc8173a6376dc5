from __future__ import annotations

import json
from pathlib import Path

import pytest

from sotglp.console.output import write_json


def test_json_has_null_and_a_reason_for_numbers_that_it_lacks(tmp_path: Path) -> None:
    target = str(tmp_path / "r.json")
    write_json(target, {"auroc": float("nan"), "history": [{"loss": float("inf")}, {"loss": 0.5}], "n": (1, 2)})

    def refuse(name: str) -> None:
        pytest.fail(name)

    result = json.loads(Path(target).read_text(), parse_constant=refuse)
    assert (result["auroc"], result["history"], result["n"]) == (None, [{"loss": None}, {"loss": 0.5}], [1, 2])
    assert result["undefined"] == {"auroc": "not a number", "history.0.loss": "infinite"}
    write_json(target, {"auroc": 0.5})
    assert "undefined" not in json.loads(Path(target).read_text())
