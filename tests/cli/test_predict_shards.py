from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sotglp import SOTGLP, Backbone
from sotglp.model_file.save import save_model
from support.command import Run
from support.processes import wait_for
from support.shards import COLOURS, web_dataset

pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    save_model(path, SOTGLP(Backbone.load("tiny"), list(COLOURS)).eval())
    return path


def test_predict_writes_a_folder_and_a_summary(output_of: Run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(web_dataset(3))
    out = tmp_path / "rows"
    printed = output_of("predict", model, tmp_path / "a.tar", "--out", out, "--json", tmp_path / "s.json")
    assert "3 images in 1 part" in printed
    summary = json.loads((tmp_path / "s.json").read_text())
    assert (summary["n"], summary["resumed"], summary["ood_method"]) == (3, 0, "gl-mcm")
    assert pq.read_table(out / "part-00000.parquet").num_rows == 3
    again = output_of("predict", model, tmp_path / "a.tar", "--out", out)
    assert "1 part (1 from before)" in again


def test_what_does_not_fit_a_folder_is_refused(error_of: Run, model: Path, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    archive.write_bytes(web_dataset(1))
    assert "give --out DIR" in error_of("predict", model, archive)
    assert "give --out DIR" in error_of("predict", model, "s3://bucket/a.tar")
    assert "--processes is for shards: give --out DIR" in error_of("predict", model, archive, "--processes", "2")
    assert "--engine is for shards: give --out DIR" in error_of("predict", model, archive, "--engine", "ray")
    for options, said in (
        (["--out", tmp_path / "a.csv"], "give --csv"),
        (["--out", "s3://bucket/rows"], "of this machine"),
        (["--out", tmp_path / "rows", "--csv", "-"], "--out and --csv"),
        (["--out", tmp_path / "rows", "--top", "3"], "--out and --top"),
        (["--out", tmp_path / "rows", "--engine", "dask"], "choose one of local, ray"),
        (["--out", tmp_path], "isn't a folder of predictions"),
        (["--out", tmp_path / "rows", "--coverage", "0.9"], "needs a calibrated model"),
    ):
        assert said in error_of("predict", model, archive, *options)
    assert "does not exist" in error_of("predict", model, tmp_path / "b.tar", "--out", tmp_path / "rows")


@pytest.mark.slow
def test_a_killed_run_is_resumed_with_the_same_rows(output_of: Run, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.tar").write_bytes(web_dataset(2, seed=i))
    out, whole = tmp_path / "out", tmp_path / "whole"
    command = [
        sys.executable,
        "-m",
        "sotglp",
        "predict",
        str(model),
        str(folder),
        "--out",
        str(out),
        "--batch-size",
        "1",
    ]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    wait_for((out / "part-00000.parquet").exists, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    output_of("predict", model, folder, "--out", out, "--batch-size", 1)
    output_of("predict", model, folder, "--out", whole, "--batch-size", 1)
    names = sorted(path.name for path in whole.iterdir())
    assert sorted(path.name for path in out.iterdir()) == names
    assert all((out / name).read_bytes() == (whole / name).read_bytes() for name in names)


def test_evaluate_reads_archives(output_of: Run, error_of: Run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(web_dataset(3))
    output_of("evaluate", model, tmp_path / "a.tar", "--json", tmp_path / "e.json")
    assert json.loads((tmp_path / "e.json").read_text())["n"] == 3
    assert "--cache-dir" in error_of("evaluate", model, tmp_path / "a.tar", "--cache-dir", tmp_path / "cache")
