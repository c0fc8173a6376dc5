"""Tables, patterns and standard input, by commands."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet
import pytest

from support.command import Run, run_here, sotglp
from support.samples import COLOURS, make_class_folders

FAST = ("--backbone", "tiny", "--no-cache", "--epochs", "1", "--shots", "4", "--set", "learning_rate=0.1")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A semicolon-separated table of two thirds training rows, with backslashes, and other names of columns."""
    root = tmp_path_factory.mktemp("tables")
    make_class_folders(root / "photos")
    rows = [
        f"photos\\{name}\\{place}.png;{name};{'test' if place % 3 == 2 else 'train'}"
        for name in COLOURS
        for place in range(6)
    ]
    (root / "all.csv").write_text("\n".join(["Bild;Art;split", *rows]), encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def model(data: Path) -> Path:
    columns = ("--path-column", "Bild", "--label-column", "Art")
    done = sotglp("fit", data / "all.csv", *columns, "--split", "train", "--out", data / "m.safetensors", *FAST)
    assert "3 classes from 12 images" in done.stdout
    assert "warning" not in done.stderr
    return data / "m.safetensors"


def test_a_split_is_evaluated(model: Path, data: Path, output_of: Run, error_of: Run) -> None:
    columns = ("--path-column", "Bild", "--label-column", "Art")
    result = json.loads(output_of("evaluate", model, data / "all.csv", *columns, "--split", "test", "--json", "-"))
    assert result["n"] == 6
    assert "splits test, train in the column split" in error_of("evaluate", model, data / "all.csv", *columns)
    assert "no column path, only: Bild, Art, split" in error_of("evaluate", model, data / "all.csv")
    assert "isn't a manifest" in error_of("evaluate", model, data / "photos", "--split", "test")


def test_data_check_reads_a_split(data: Path, output_of: Run) -> None:
    columns = ("--path-column", "Bild", "--label-column", "Art")
    lines = output_of("data", "check", data / "all.csv", *columns, "--split", "train", "--skip-labels")
    assert "12 readable images" in lines


def test_predict_takes_patterns_and_tables(model: Path, data: Path, output_of: Run) -> None:
    def paths(*arguments: object) -> list[str]:
        result = json.loads(output_of("predict", model, *arguments, "--json", "-"))
        return [row["path"] for row in result["predictions"]]

    seas = [str(data / "photos" / "blue sea" / f"{place}.png") for place in range(6)]
    assert paths(data / "photos" / "blue*" / "*.png") == seas
    assert paths(Path(seas[0]).as_uri()) == seas[:1]
    assert len(paths(data / "all.csv", "--path-column", "Bild", "--split", "test")) == 6


def test_predict_writes_files_for_other_tools(model: Path, data: Path, output_of: Run, error_of: Run) -> None:
    seas = data / "photos" / "blue sea"
    lines, table = data / "p.jsonl", data / "p.parquet"
    result = json.loads(output_of("predict", model, seas, "--jsonl", lines, "--parquet", table, "--json", "-"))
    written = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    assert written == result["predictions"]
    assert pyarrow.parquet.read_table(table).to_pylist() == written
    printed = output_of("predict", model, seas, "--jsonl", "-", "--parquet", table)
    assert [json.loads(line) for line in printed.splitlines()] == written
    assert "two different outputs" in error_of("predict", model, seas, "--jsonl", "-", "--json", "-")


def test_predict_reads_a_list_from_a_pipe(model: Path, data: Path) -> None:
    names = [str(data / "photos" / "blue sea" / f"{place}.png") for place in range(2)]
    command = [sys.executable, "-m", "sotglp", "predict", str(model), "-", "--json", "-"]
    done = subprocess.run(command, input="\n".join(names), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert [row["path"] for row in json.loads(done.stdout)["predictions"]] == names


def test_predict_reads_an_image_from_standard_input(
    model: Path, data: Path, monkeypatch: pytest.MonkeyPatch, output_of: Run
) -> None:
    image = (data / "photos" / "blue sea" / "0.png").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(image)))
    (row,) = json.loads(output_of("predict", model, "-", "--json", "-"))["predictions"]
    assert row["path"] == "-"


def test_the_same_image_under_two_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_class_folders(tmp_path / "photos")
    (root / "green leaf" / "0.png").write_bytes((root / "blue sea" / "0.png").read_bytes())
    every = (*FAST, "--set", "shots=null")
    for command in (
        ("fit", root, "--out", tmp_path / "m.safetensors", *every),
        ("data", "check", root, "--skip-labels"),
    ):
        out, err = run_here(capsys, monkeypatch, *command, code=int(command[0] == "data"))
        (line,) = [line for line in (out + err).splitlines() if "0.png (blue sea)" in line]
        assert "0.png (green leaf)" in line
