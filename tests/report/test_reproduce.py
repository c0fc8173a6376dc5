from __future__ import annotations

import shlex
from typing import Any

import pytest

from sotglp.backbone_defaults import preset_for
from sotglp.cli.fit import settings_of_candidates
from sotglp.methods.method import METHODS, infer_method
from sotglp.model_file.record import CalibrationRecord, ModelRecord
from sotglp.report.reproduce import fit_command, fit_command_caveats
from sotglp.scoring.rejection import Rejection
from sotglp.settings import OodMethod, Settings, TrainConfig, load_preset

BACKBONE: dict[str, Any] = {
    "name": "ViT-B-16",
    "pretrained": "openai",
    "seed": None,
    "image_size": [224, 224],
    "fingerprint": "sha256:0",
    "patch_attention": "value",
}


def record(method: str = "sot-glp", changes: dict[str, Any] | None = None, **others: Any) -> ModelRecord:
    model, training = METHODS[method].settings_on(load_preset("folder"), changes or {})
    return ModelRecord(["a", "b"], **{"model": model, "training": training, "backbone": BACKBONE, **others})


def calibration(n_folds: int, method: OodMethod = "knn", temperature: float = 1.0) -> CalibrationRecord:
    rejection = Rejection(threshold=0.1, tpr=0.9, n=20, expected_tpr=0.9, interval=(0.7, 1.0))
    return CalibrationRecord(
        ood_method=method, ood_temperature=temperature, rejection=rejection, temperature=1.0, n_folds=n_folds
    )


def options(command: str) -> tuple[dict[str, str], list[str]]:
    """Options of a command by name, and its settings."""
    words = shlex.split(command)
    assert words[:3] == ["sotglp", "fit", "TRAIN_DIR"]
    found: dict[str, str] = {}
    settings = []
    rest = iter(words[3:])
    for word in rest:
        assert word.startswith("--")
        if word == "--set":
            settings.append(next(rest))
        else:
            found[word] = "" if word == "--calibrate" else next(rest)
    return found, settings


def fit_settings(found: dict[str, str], common: dict[str, Any], settings: list[str]) -> tuple[Settings, TrainConfig]:
    method = found["--method"]
    return settings_of_candidates(found["--backbone"], method, "folder", common, settings)[method]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"shots": None, "seed": 7, "epochs": None},
        {"epochs": 5, "learning_rate": 1e-05, "micro_batch": 4, "augment": False},
    ],
)
def test_the_command_says_all_settings(method: str, changes: dict[str, Any]) -> None:
    saved = record(method, changes)
    command = fit_command(saved, "out.safetensors")
    assert command is not None
    found, settings = options(command)
    common = {name: int(found[f"--{name}"]) if f"--{name}" in found else None for name in ("shots", "epochs", "seed")}
    fitted_with = fit_settings(found, common, settings)
    assert fitted_with == (saved.model, saved.training)
    assert infer_method(saved.model).kind == METHODS[method].kind


@pytest.mark.parametrize("rate", [0.5, 0.005])
def test_settings_that_come_with_the_backbone_need_no_option(rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sotglp.backbone_defaults.backbones_with_defaults", lambda: ["ViT-B-16"])
    monkeypatch.setattr("sotglp.backbone_defaults.read_packaged", lambda *_: {"learning_rate": 0.5, "epochs": 9})
    saved = record(changes={"learning_rate": rate})  # of a fit without the epochs of the backbone
    found, settings = options(fit_command(saved, "out.safetensors") or "")
    assert settings == ["epochs=null"] + (["learning_rate=0.005"] if rate == 0.005 else [])
    assert fit_settings(found, {}, settings) == (saved.model, saved.training)


@pytest.mark.parametrize(
    "template", ["A photo of a {}", "true {}", "a: {}", "[{}] x", "it's {} #1", 'say "{}" aloud', "123 {}", "- {}"]
)
def test_text_goes_through_shell_and_yaml(template: str) -> None:
    saved = record(changes={"template": template, "relaxation": 0.5, "top_k": None})
    found, settings = options(fit_command(saved, "a b.safetensors") or "")
    assert found["--out"] == "a b.safetensors"
    assert fit_settings(found, {}, settings)[0] == saved.model


@pytest.mark.parametrize("method", [name for name in METHODS if name != "zero-shot"])
def test_methods_are_known_by_their_settings(method: str) -> None:
    assert infer_method(record(method).model).name == method


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("ViT-B-16", "openai", "224")),
        ({"name": "tiny", "pretrained": "embedded", "image_size": [64, 64]}, ("tiny", None, "64")),
        ({"pretrained": None, "seed": 0}, ("ViT-B-16", "none", "224")),
    ],
)
def test_the_backbone_is_named_and_default_settings_need_no_options(
    changes: dict[str, Any], expected: tuple[str | None, ...]
) -> None:
    backbone = BACKBONE | changes
    model, training = METHODS["sot-glp"].settings_on(preset_for(str(backbone["name"]), load_preset("folder")), {})
    found, settings = options(fit_command(record(backbone=backbone, model=model, training=training), "m") or "")
    assert tuple(found.get(name) for name in ("--backbone", "--pretrained", "--image-size")) == expected
    assert found.keys() <= {"--out", "--method", "--backbone", "--pretrained", "--image-size"}
    assert settings == []


def test_the_calibration() -> None:
    found, _ = options(fit_command(record(calibration=calibration(5)), "m") or "")
    assert (found["--calibrate"], found["--tpr"], found["--ood-method"]) == ("", "0.9", "knn")
    held_out = record(calibration=calibration(0))
    found, _ = options(fit_command(held_out, "m") or "")
    assert found["--calibrate-on"] == "CALIBRATION_DIR"
    assert any("CALIBRATION_DIR" in note for note in fit_command_caveats(held_out))
    assert "--tpr" not in options(fit_command(record(), "m") or "")[0]


@pytest.mark.parametrize(
    ("changes", "caveat", "has_command"),
    [
        ({}, "TRAIN_DIR stands for", True),
        ({"backbone": BACKBONE | {"seed": 3, "pretrained": None}}, "seed 3", True),
        ({"backbone": BACKBONE | {"patch_attention": "ordinary"}}, "ordinary patch attention", True),
        ({"calibration": calibration(5, temperature=0.5)}, "OOD temperature 0.5", True),
        ({"training": None}, "no training settings", False),
        ({"backbone": BACKBONE | {"name": "CLIP"}}, "passed in Python", False),
    ],
)
def test_caveats_of_the_command(changes: dict[str, Any], caveat: str, has_command: bool) -> None:
    saved = record(**changes)
    assert any(caveat in one for one in fit_command_caveats(saved))
    assert (fit_command(saved, "m") is not None) == has_command
