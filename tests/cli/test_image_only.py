"""Commands with an image tower of timm, which has no text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sotglp.methods.method import METHODS
from support.command import Run
from support.samples import make_class_folders

BACKBONE = ("--backbone", "timm:test_vit", "--pretrained", "none", "--image-size", "64")
WITHOUT_TEXT = {"linear-probe", "tip-adapter", "tip-adapter-f", "gda", "proker", "pool"}
QUICK = ("--shots", "2", "--epochs", "1", "--no-cache")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_class_folders(tmp_path_factory.mktemp("images"), per_class=3)


@pytest.mark.parametrize("method", ["linear-probe", "tip-adapter-f", "gda", "proker", "pool", "auto"])
def test_methods_without_text_are_fitted_evaluated_and_used(
    method: str, images: Path, tmp_path: Path, output_of: Run, error_of: Run
) -> None:
    model = tmp_path / "m.safetensors"
    output_of("fit", images, "--out", model, "--method", method, *BACKBONE, *QUICK)
    assert json.loads(output_of("evaluate", model, images, "--json", "-"))["accuracy"] > 0.8  # of plain colours
    predictions = json.loads(output_of("predict", model, images, "--json", "-"))["predictions"]
    assert len(predictions) == 9
    assert json.loads(output_of("info", model, "--json", "-"))["backbone"]["name"] == "timm:test_vit"
    image = sorted(images.rglob("*.png"))[0]
    assert "no transport plan" in error_of("explain", model, image, "--json", "-")


@pytest.mark.slow
def test_a_model_with_its_image_tower_is_calibrated_reported_and_exported(
    images: Path, tmp_path: Path, output_of: Run
) -> None:
    model, graph, page = tmp_path / "m.safetensors", tmp_path / "m.onnx", tmp_path / "r.html"
    calibrated = ("--calibrate", "--include-backbone")
    output_of("fit", images, "--out", model, "--method", "gda", *BACKBONE, *QUICK, *calibrated)
    assert json.loads(output_of("info", model, "--json", "-"))["calibration"]["ood_method"] == "knn"
    output_of("report", model, images, "--out", page)
    assert "timm:test_vit" in page.read_text(encoding="utf-8")
    exported = json.loads(output_of("export", model, "--out", graph, "--check", images, "--json", "-"))
    assert exported["same_labels"] == 1
    assert max(exported["differences"].values()) <= 1e-4


@pytest.mark.parametrize(
    "method", sorted(METHODS.keys() - {"linear-probe", "tip-adapter", "tip-adapter-f", "gda", "proker", "pool"})
)
def test_other_methods_are_refused_before_a_backbone_is_loaded(
    method: str, images: Path, tmp_path: Path, error_of: Run
) -> None:
    line = error_of(
        "fit", images, "--out", tmp_path / "m.safetensors", "--method", method, "--backbone", "timm:missing"
    )
    assert "has no text tower: choose the method" in line


@pytest.mark.thorough
@pytest.mark.slow
def test_a_benchmark_runs_methods_without_text_and_refuses_others(
    images: Path, tmp_path: Path, output_of: Run, error_of: Run
) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        f"backbone: {{name: 'timm:test_vit', pretrained: none, image_size: 64}}\n"
        f"datasets: {{own: {{train: {images.name}, test: {images.name}}}}}\n"
        "methods: [linear-probe]\nshots: [2]\nseeds: [1]\n"
    )
    arguments = ("benchmark", suite, "--root", images.parent, "--out", tmp_path / "out", "--no-cache", "--json", "-")
    (result,) = json.loads(output_of(*arguments))["results"]
    assert result["backbone"]["name"] == "timm:test_vit"
    assert "has no text tower" in error_of(*arguments, "--methods", "clap")
