"""Commands with a model that changes the towers."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import safe_open

from support.command import Run
from support.samples import make_class_folders

BACKBONE = ("--backbone", "tiny", "--pretrained", "none")
QUICK = ("--shots", "2", "--epochs", "1", "--set", "augment=false", "--set", "remember=false", "--no-cache")


def test_it_is_fitted_calibrated_evaluated_and_used(tmp_path: Path, output_of: Run, error_of: Run) -> None:
    images, model = make_class_folders(tmp_path / "images", per_class=2), tmp_path / "m.safetensors"
    output_of("fit", images, "--out", model, "--method", "clip-lora", *BACKBONE, *QUICK, "--calibrate")
    with safe_open(model, framework="np") as file:
        learned = {name for name in file.keys() if "." not in name}  # noqa: SIM118
    assert learned == {"image_down", "image_up", "text_down", "text_up"}
    assert model.stat().st_size < 200_000
    shown = json.loads(output_of("info", model, "--json", "-"))
    assert (shown["backbone"]["name"], shown["model"]["rank"]) == ("tiny", 2)
    evaluated = json.loads(output_of("evaluate", model, images, "--json", "-"))
    assert 0 <= evaluated["accuracy_zero_shot"] <= 1
    predicted = json.loads(output_of("predict", model, images, "--coverage", "0.8", "--json", "-"))["predictions"]
    assert all(row["set"] is not None for row in predicted)
    assert "no transport plan" in error_of("explain", model, sorted(images.rglob("*.png"))[0], "--json", "-")
    sets = ("predict", model, images, "--coverage", "0.8", "--out", tmp_path / "shards")
    assert "calibrate on held-out images" in error_of(*sets)
