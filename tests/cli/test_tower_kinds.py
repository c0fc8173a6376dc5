"""Commands with a small random model of each kind of tower, found in a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.command import Run
from support.samples import make_class_folders
from support.tower_folders import KINDS, NEEDS_TRANSFORMERS, write_model_folder

QUICK = ("--shots", "2", "--epochs", "1", "--set", "augment=false", "--set", "top_k=2", "--no-cache")


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param in NEEDS_TRANSFORMERS:
        pytest.importorskip("transformers")
    return write_model_folder(request.param, tmp_path / request.param)


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize("folder", KINDS, indirect=True)
def test_fit_evaluate_explain_export_and_predict(folder: Path, tmp_path: Path, output_of: Run) -> None:
    images = make_class_folders(tmp_path / "images", per_class=3)
    model, graph = tmp_path / "m.safetensors", tmp_path / "m.onnx"
    output_of("fit", images, "--out", model, "--backbone", folder, *QUICK)
    assert 0 <= json.loads(output_of("evaluate", model, images, "--json", "-"))["accuracy"] <= 1
    one = sorted(images.rglob("*.png"))[0]
    explained = json.loads(output_of("explain", model, one, "--json", "-"))
    assert explained["classes"]
    exported = json.loads(output_of("export", model, "--out", graph, "--check", images, "--json", "-"))
    assert exported["same_labels"] == 1
    assert max(exported["differences"].values()) <= 1e-4
    results = [json.loads(output_of("predict", file, images, "--json", "-")) for file in (model, graph)]
    labels = [[row["label"] for row in result["predictions"]] for result in results]
    assert labels[0] == labels[1]
