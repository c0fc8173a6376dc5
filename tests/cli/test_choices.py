"""Settings that a fit chooses on held-out shots: printed, kept in the model file, shown by info."""

from __future__ import annotations

import json
from pathlib import Path

from sotglp.model_file.load import load_model
from sotglp.model_file.record import read_record
from support.command import Run

TINY = ["--backbone", "tiny", "--no-cache", "--shots", "4", "--epochs", "1", "--set", "augment=false"]


def test_method_auto_is_printed_kept_and_shown(class_folders: Path, tmp_path: Path, output_of: Run) -> None:
    out = tmp_path / "m.safetensors"
    printed = output_of("fit", class_folders, "--out", out, *TINY, "--method", "auto", "--json", tmp_path / "r.json")
    (choice,) = read_record(out).choices
    assert choice.setting == "method"
    assert f"method {choice.chosen}" in printed
    assert all(name in printed for name in choice.merits)
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["choices"][0]["chosen"] == choice.chosen
    assert result["seconds_of_choices"] > 0
    assert load_model(out)[0].kind == choice.chosen
    assert str(choice) in output_of("info", out)
    shown = json.loads(output_of("info", out, "--json", "-"))
    assert shown["choices"] == result["choices"]
