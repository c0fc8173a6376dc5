from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sotglp.benchmark.results import append
from sotglp.cli.commands import app
from support.command import fails
from support.results import BACKBONE, VIT, made

PNGS = {"accuracy_shots.png", "accuracy_auroc.png", "time_accuracy.png"}
TEXTS = {"report.md", "tables.csv", "tables.tex"}


def run(*arguments: object) -> str:
    """Run in this process, and give what it prints."""
    done = CliRunner().invoke(app, ["report", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


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
                append(folder / "results.jsonl", made(method, shots=shots, seed=seed, accuracy=accuracy, ood=ood))
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_report(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "report"
    printed = run(results, "--out", out)
    assert names(out) == TEXTS | PNGS
    lines = printed.splitlines()
    assert lines[0] == "Accuracy with 16 shots (%)"
    assert re.split(" {2,}", lines[5]) == ["sot-glp", "76.0 ± 0.0"]
    assert lines[-1] == f"{out / 'report.md'}: 7 tables and 3 figures"
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


def test_the_same_results_give_the_same_bytes_whatever_the_order_of_lines(results: Path, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    run(results, "--out", one, "--svg")
    lines = (results / "results.jsonl").read_text().splitlines(keepends=True)
    turned = tmp_path / "turned.jsonl"
    turned.write_text("".join(reversed(lines)))
    run(turned, "--out", other, "--svg")
    assert names(one) == names(other) == TEXTS | PNGS | {name.replace(".png", ".svg") for name in PNGS}
    for name in names(one):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_json(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    told = json.loads(run(results, "--out", out, "--json", "-"))
    assert told["n_cells"] == 9
    assert set(told["files"]) == names(out)
    assert "torch" in told["versions"]
    first = told["tables"][0]
    assert first["title"] == "Accuracy with 16 shots (%)"
    method, accuracy = first["rows"][2]
    assert method["text"] == "sot-glp"
    assert accuracy == {
        "text": "76.0 ± 0.0",
        "summary": {"mean": pytest.approx(0.76), "low": pytest.approx(0.76), "high": pytest.approx(0.76), "n": 2},
        "is_best": True,
    }
    run(results, "--out", out, "--force", "--json", tmp_path / "result.json")
    assert json.loads((tmp_path / "result.json").read_text()) == told


@pytest.mark.parametrize("name", ["report.md", "tables.tex", "accuracy_auroc.png"])
def test_an_earlier_report_is_kept_unless_forced(
    results: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "report"
    out.mkdir()
    (out / name).write_text("mine")
    (out / "notes.txt").write_text("mine")
    assert f"{out / name} exists" in fails(capsys, monkeypatch, "report", results, "--out", out)
    assert names(out) == {name, "notes.txt"}
    assert (out / name).read_text() == "mine"
    run(results, "--out", out, "--force")
    assert (out / name).read_bytes() != b"mine"
    assert (out / "notes.txt").read_text() == "mine"


def test_base_to_new_has_tables_and_no_pictures(tmp_path: Path) -> None:
    told = {"base": 0.5, "new": 0.25, "harmonic_mean": 1 / 3, "n_base": 4, "n_new": 4}
    path = tmp_path / "results.jsonl"
    for method in ("coop", "sot-glp"):
        append(path, made(method, protocol="base-to-new", base_to_new=told))
    printed = run(path, "--out", tmp_path / "report")
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
    with pytest.warns(match="1 of the 10 results are left out"), pytest.warns(match="ends in an incomplete line"):
        printed = run(results, "--out", tmp_path / "report")
    assert "83.0 ± 88.9" in printed
    assert len((tmp_path / "report" / "tables.csv").read_text().splitlines()) == 1 + 9


def add_backbone(results: Path) -> None:
    append(results / "results.jsonl", made("coop", backbone=VIT))


def add_weights(results: Path) -> None:
    append(results / "results.jsonl", made("plot", backbone={**BACKBONE, "fingerprint": "sha256:1"}))


@pytest.mark.parametrize("add", [add_backbone, add_weights])
def test_backbones_are_not_mixed(
    results: Path,
    tmp_path: Path,
    add: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add(results)
    message = fails(capsys, monkeypatch, "report", results, "--out", tmp_path / "report")
    assert "holds results of several backbones" in message
    assert "weights sha256:0" in message
    assert "weights sha256:1" in message
    assert not (tmp_path / "report").exists()


def test_results_that_are_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "report"
    assert str(tmp_path / "results.jsonl") in fails(capsys, monkeypatch, "report", tmp_path, "--out", out)
    (tmp_path / "empty.jsonl").touch()
    assert "holds no results" in fails(capsys, monkeypatch, "report", tmp_path / "empty.jsonl", "--out", out)
    (tmp_path / "text.jsonl").write_text("hello\n")
    assert "is not a result" in fails(capsys, monkeypatch, "report", tmp_path / "text.jsonl", "--out", out)
    assert not out.exists()


def test_a_file_in_the_place_of_the_folder(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    assert "can't be written" in fails(capsys, monkeypatch, "report", results, "--out", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_pyplot_is_not_asked_for(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # an import would fail
    run(results, "--out", tmp_path / "report")
    assert names(tmp_path / "report") == TEXTS | PNGS
