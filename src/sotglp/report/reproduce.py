"""The `sotglp fit` command that trains a model like a given one, as far as its file records it."""

from __future__ import annotations

import json
import shlex
from contextlib import suppress
from typing import Any

import yaml

from sotglp.backbone.architectures import is_known
from sotglp.backbone.embedded import TAG
from sotglp.backbone_defaults import preset_for
from sotglp.files.packaged import parse_yaml
from sotglp.methods.method import infer_method
from sotglp.model_file.record import ModelRecord
from sotglp.settings import load_preset

TRAIN, CALIBRATION = "TRAIN_DIR", "CALIBRATION_DIR"
"""Placeholders for folders, which model files don't record."""

OWN_OPTIONS = ("shots", "epochs", "seed")
"""Settings with an own option of ``sotglp fit``; all others need ``--set``."""


def fit_command(record: ModelRecord, out: str) -> str | None:
    """Return the command that fits such a model to the file ``out``; None if the record is insufficient."""
    backbone, calibration = record.backbone, record.calibration
    if record.training is None or not is_known(backbone["name"]):
        return None
    method = infer_method(record.model)
    changed: dict[str, Any] = {}
    defaults = method.settings_on(preset_for(backbone["name"], load_preset("folder")), {})
    for settings, default in zip((record.model, record.training), defaults, strict=True):
        usual = default.model_dump()
        changed |= {name: value for name, value in settings.model_dump().items() if value != usual[name]}
    words = ["sotglp", "fit", TRAIN, "--out", out, "--method", method.name, "--backbone", backbone["name"]]
    if backbone["pretrained"] != TAG:
        words += ["--pretrained", backbone["pretrained"] or "none"]
    words += ["--image-size", str(backbone["image_size"][0])]
    for name, value in changed.items():
        has_option = name in OWN_OPTIONS and value is not None
        words += [f"--{name}", str(value)] if has_option else ["--set", f"{name}={_as_yaml(value)}"]
    if calibration:
        words += ["--calibrate"] if calibration.n_folds else ["--calibrate-on", CALIBRATION]
        bound = calibration.rejection.accepted_error
        if bound is None:
            words += ["--tpr", f"{calibration.rejection.tpr:g}"]
        else:
            words += ["--max-error", f"{bound.max_error:g}", "--confidence", f"{bound.confidence:g}"]
        if calibration.calibrator != "temperature":
            words += ["--calibrator", calibration.calibrator]
        words += ["--ood-method", calibration.ood_method]
    return shlex.join(words)


def fit_command_caveats(record: ModelRecord) -> list[str]:
    """Return sentences on what the command can't reproduce."""
    backbone, calibration = record.backbone, record.calibration
    if not is_known(backbone["name"]):
        return [f"The backbone {backbone['name']} was passed in Python, so no command reproduces this model."]
    if record.training is None:
        return ["The model file contains no training settings, so no command reproduces this model."]
    caveats = [
        f"{TRAIN} stands for the folder of training images, which the model file does not record; neither does it "
        "record classes added, removed or renamed after the fit."
    ]
    if calibration and not calibration.n_folds:
        caveats.append(f"{CALIBRATION} stands for the calibration images, which the model file does not record.")
    temperature = calibration.ood_temperature if calibration else 1.0
    in_python = {
        f"OOD temperature {temperature:g}": temperature != 1,
        f"seed {backbone.get('seed')} of random weights": backbone.get("seed"),
        "ordinary patch attention": backbone.get("patch_attention", "value") != "value",
    }
    return caveats + [
        f"The command has no option for the {what}: use Python." for what, needed in in_python.items() if needed
    ]


def _as_yaml(value: Any) -> str:
    """A value as ``--set`` parses it; text is quoted only if it would parse as something else."""
    if isinstance(value, str):
        with suppress(yaml.YAMLError):
            if parse_yaml(value) == value:
                return value
    return json.dumps(value)
