from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from sotglp.console.output import csv_table, write_json


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


FORMULAS = [
    "=1+1",
    "+1",
    "-1",
    "@A1",
    "\uff1d1+1",
    "\uff0b1",
    "\uff0d1",
    "\uff20A1",
    "\u22121",
    "\t=1",
    "\r=1",
    " =1",
    "\u3000=1",
]


@pytest.mark.parametrize("text", [*FORMULAS, *(f"a.png;{formula}" for formula in FORMULAS), "a;b; =1"])
def test_no_text_of_a_table_is_a_formula(text: str) -> None:
    _, (cell,) = csv.reader(io.StringIO(csv_table(["x"], [[text]]), newline=""))
    for part in cell.split(";"):
        assert part.startswith("'") or part.strip()[0] in "ab"
    assert cell.replace("'", "") == text


def test_other_cells_of_a_table_stay_as_they_are() -> None:
    cells = ["caf\u00e9-1.png", "a=b", "a;b", -0.5, 3, True, False, None, ["cat", "dog"]]
    lines = csv_table(["x"] * 9, [cells]).splitlines()
    assert lines[1] == "caf\u00e9-1.png,a=b,a;b,-0.5,3,true,false,,cat; dog"
