"""Settings that a fit chooses on held-out shots: printed, kept in the model file, shown by info."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sotglp import SotglpError
from sotglp.model_file.load import load_model
from sotglp.model_file.record import read_record
from support.command import Run, run_here
from support.samples import make_class_folders

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


def test_lr_auto_keeps_the_chosen_rate(class_folders: Path, tmp_path: Path, output_of: Run) -> None:
    out = tmp_path / "m.safetensors"
    printed = output_of("fit", class_folders, "--out", out, *TINY, "--set", "learning_rate=0.02", "--lr", "auto")
    record = read_record(out)
    (choice,) = record.choices
    assert (choice.setting, choice.preferred, choice.cost) == ("learning_rate", "0.02", 3)
    assert set(choice.merits) == {"0.005", "0.02", "0.08"}
    assert record.training is not None
    assert record.training.learning_rate == float(choice.chosen)
    assert str(choice) in printed


@pytest.mark.parametrize("held_out", [False, True])
def test_ood_method_auto_leaves_classes_out(held_out: bool, tmp_path: Path, output_of: Run) -> None:
    out = tmp_path / "m.safetensors"
    train = make_class_folders(tmp_path / "a", per_class=3)
    other = make_class_folders(tmp_path / "b", per_class=2, seed=5)
    for folder in (train, other):
        for source in sorted(folder.iterdir()):
            shutil.copytree(source, folder / f"dark {source.name}")
            for picture in (folder / f"dark {source.name}").iterdir():
                Image.open(picture).point(lambda value: value // 3).save(picture)
    calibrated = ["--calibrate-on", other] if held_out else ["--calibrate"]
    printed = output_of("fit", train, "--out", out, *TINY, *calibrated, "--ood-method", "auto")
    record = read_record(out)
    (choice,) = record.choices
    assert (choice.setting, choice.measure, choice.n) == ("ood_method", "AUROC", 3)
    assert record.calibration is not None
    assert record.calibration.ood_method == choice.chosen
    assert str(choice) in printed


def test_a_resumed_fit_repeats_no_finished_choice(
    class_folders: Path, tmp_path: Path, output_of: Run, error_of: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "m.safetensors"
    command = ("fit", class_folders, "--out", out, *TINY, "--method", "auto", "--lr", "auto", "--calibrate")
    command = (*command, "--ood-method", "auto")

    def stopped(*_: Any, **__: Any) -> None:
        raise SotglpError("stopped here")

    with monkeypatch.context() as stopping:
        stopping.setattr("sotglp.cli.fit_model.cross_fit", stopped)
        assert "stopped here" in error_of(*command)
    with monkeypatch.context() as finished:
        for name in ("choose_method.choose_method", "choose_method.choose_rate"):
            finished.setattr(f"sotglp.scoring.{name}", stopped)
        finished.setattr("sotglp.cli.fit_model.choose_score", stopped)
        output_of(*command, "--resume")
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(out.name)] == [out.name]
        assert "stopped here" in error_of(*command, "--force")
    choices = [choice.setting for choice in read_record(out).choices]
    assert choices[0] == "method"
    assert choices[-1] == "ood_method"


def test_a_rate_that_is_no_number_is_named(class_folders: Path, tmp_path: Path, error_of: Run) -> None:
    assert "'fast'" in error_of("fit", class_folders, "--out", tmp_path / "m.safetensors", "--lr", "fast")


def test_without_training_no_rate_is_chosen(
    class_folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "m.safetensors"
    command = ("fit", class_folders, "--out", out, *TINY, "--method", "zero-shot", "--lr", "auto")
    assert "--lr auto" in run_here(capsys, monkeypatch, *command)[1]
    assert read_record(out).choices == ()
