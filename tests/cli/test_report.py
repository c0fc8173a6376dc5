from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from sotglp.benchmark.results import append
from support.command import Run, sotglp
from support.results import BACKBONE, VIT, made

PNGS = {"accuracy_shots.png", "accuracy_auroc.png", "time_accuracy.png", "training_epochs.png"}
TEXTS = {"report.md", "tables.csv", "tables.tex"}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A folder as `sotglp benchmark` leaves it."""
    ood = {"far": {"auroc": 0.75, "fpr95": 0.5, "n": 9}}
    folder = tmp_path / "results"
    append(folder / "results.jsonl", made("zero-shot", shots=0, seed=0, accuracy=0.25, ood=ood))
    for method in ("coop", "sot-glp"):
        for shots in (1, 16):
            for seed in (1, 2):
                accuracy = 0.5 + 0.01 * shots + (0.1 if method == "sot-glp" else 0.02 * seed)
                curves = {"loss": [1.5, 1.0], "accuracy": [0.25, 0.5]}
                result = made(method, shots=shots, seed=seed, accuracy=accuracy, ood=ood, curves=curves)
                append(folder / "results.jsonl", result)
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_report(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output_of: Run) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # an import would fail
    out = tmp_path / "deep" / "report"
    printed = output_of("report", results, "--out", out)
    assert names(out) == TEXTS | PNGS
    lines = printed.splitlines()
    assert lines[0] == "Accuracy with 16 shots (%)"
    assert re.split(" {2,}", lines[5]) == ["sot-glp", "76.0 ± 0.0"]
    assert lines[-1] == f"{out / 'report.md'}: 7 tables and 4 figures"
    text = (out / "report.md").read_text(encoding="utf-8")
    assert "9 cells on the backbone tiny (embedded, images 64 x 64), weights sha256:0." in text
    assert "sotglp 0.1.0" in text
    assert set(re.findall(r"\]\((.*?)\)", text)) == (TEXTS - {"report.md"}) | PNGS
    assert re.findall(r"### (.*)", text)[:3] == [
        "Accuracy with 16 shots (%)",
        "Accuracy with 1 shot (%)",
        "Paired differences of accuracy with 16 shots",
    ]
    assert "**76.0 ± 0.0**" in text
    latex = (out / "tables.tex").read_text(encoding="utf-8")
    assert latex.count(r"\begin{table}") == latex.count(r"\end{table}") == text.count("### ") == 7
    rows = list(csv.DictReader((out / "tables.csv").open(encoding="utf-8")))
    assert len(rows) == 9
    assert {row["method"] for row in rows if float(row["accuracy"]) == 0.25} == {"zero-shot"}


def test_the_same_results_give_the_same_bytes_whatever_the_order_of_lines(
    results: Path, tmp_path: Path, output_of: Run
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    output_of("report", results, "--out", one, "--svg")
    lines = (results / "results.jsonl").read_text().splitlines(keepends=True)
    turned = tmp_path / "turned.jsonl"
    turned.write_text("".join(reversed(lines)))
    output_of("report", turned, "--out", other, "--svg")
    assert names(one) == names(other) == TEXTS | PNGS | {name.replace(".png", ".svg") for name in PNGS}
    for name in names(one):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_json(results: Path, tmp_path: Path, output_of: Run) -> None:
    out = tmp_path / "report"
    result = json.loads(output_of("report", results, "--out", out, "--json", "-"))
    assert result["n_cells"] == 9
    assert set(result["files"]) == names(out)
    assert "torch" in result["versions"]
    first = result["tables"][0]
    assert first["title"] == "Accuracy with 16 shots (%)"
    method, accuracy = first["rows"][2]
    assert method["text"] == "sot-glp"
    assert accuracy == {
        "text": "76.0 ± 0.0",
        "summary": {"mean": pytest.approx(0.76), "low": pytest.approx(0.76), "high": pytest.approx(0.76), "n": 2},
        "is_best": True,
    }


@pytest.mark.parametrize("name", ["report.md", "tables.tex", "accuracy_auroc.png"])
def test_an_earlier_report_is_kept_unless_forced(
    results: Path, tmp_path: Path, name: str, error_of: Run, output_of: Run
) -> None:
    out = tmp_path / "report"
    out.mkdir()
    (out / name).write_text("mine")
    (out / "notes.txt").write_text("mine")
    assert f"{out / name} exists" in error_of("report", results, "--out", out)
    assert names(out) == {name, "notes.txt"}
    assert (out / name).read_text() == "mine"
    output_of("report", results, "--out", out, "--force")
    assert (out / name).read_bytes() != b"mine"
    assert (out / "notes.txt").read_text() == "mine"


def test_base_to_new_has_tables_and_no_pictures(tmp_path: Path, output_of: Run) -> None:
    result = {"base": 0.5, "new": 0.25, "harmonic_mean": 1 / 3, "n_base": 4, "n_new": 4}
    path = tmp_path / "results.jsonl"
    for method in ("coop", "sot-glp"):
        append(path, made(method, protocol="base-to-new", base_to_new=result))
    printed = output_of("report", path, "--out", tmp_path / "report")
    assert printed.startswith("Accuracy on base classes with 16 shots (%)")
    assert "5 tables and 0 figures" in printed
    assert names(tmp_path / "report") == TEXTS
    assert "![" not in (tmp_path / "report" / "report.md").read_text()


def test_cells_that_were_run_again_and_a_torn_line_are_left_out(results: Path, tmp_path: Path) -> None:
    path = results / "results.jsonl"
    again = {**BACKBONE, "patch_attention": "ordinary"}
    append(path, made("sot-glp", seed=1, accuracy=0.9, key="again", suite="other", backbone=again))
    with open(path, "a") as file:
        file.write('{"key": "torn')
    done = sotglp("report", results, "--out", tmp_path / "report")
    assert "1 of the 10 results are left out" in done.stderr
    assert "ends in an incomplete line" in done.stderr
    assert "83.0 ± 88.9" in done.stdout
    assert len((tmp_path / "report" / "tables.csv").read_text().splitlines()) == 1 + 9


@pytest.mark.parametrize("backbone", [VIT, {**BACKBONE, "fingerprint": "sha256:1"}], ids=["other", "weights"])
def test_backbones_are_not_mixed(results: Path, tmp_path: Path, backbone: dict[str, Any], error_of: Run) -> None:
    append(results / "results.jsonl", made("plot", backbone=backbone))
    message = error_of("report", results, "--out", tmp_path / "report")
    assert "holds results of several backbones" in message
    assert "weights sha256:0" in message
    assert "weights sha256:1" in message
    assert not (tmp_path / "report").exists()


def test_results_that_are_not_there(tmp_path: Path, error_of: Run) -> None:
    out = tmp_path / "report"
    assert str(tmp_path / "results.jsonl") in error_of("report", tmp_path, "--out", out)
    (tmp_path / "empty.jsonl").touch()
    assert "holds no results" in error_of("report", tmp_path / "empty.jsonl", "--out", out)
    (tmp_path / "text.jsonl").write_text("hello\n")
    assert "is not a result" in error_of("report", tmp_path / "text.jsonl", "--out", out)
    assert not out.exists()
