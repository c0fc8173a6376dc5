"""Which command makes a model like this one, as far as its file tells."""

from __future__ import annotations

import json
import shlex
from contextlib import suppress
from typing import Any

import yaml

from sotglp.backbone import embedded
from sotglp.backbone.weights import is_known
from sotglp.files.packaged import parse_yaml
from sotglp.methods.method import METHODS, Method
from sotglp.model_file.record import ModelRecord
from sotglp.settings import Settings, TrainConfig, load_preset

TRAIN, CALIBRATION = "TRAIN_DIR", "CALIBRATION_DIR"
"""Stand for folders that no model file names."""

OWN_OPTIONS = ("shots", "epochs", "seed")
"""Settings that ``sotglp fit`` has an option for; others go through ``--set``."""


def method_of(settings: Settings) -> Method:
    """The method that settings of a model belong to: of its kind, the one that says most of what they say."""
    fitting = [
        method
        for method in METHODS.values()
        if method.config_class is type(settings)
        and all(getattr(settings, name) == value for name, value in method.settings.items())
    ]
    return max(fitting, key=lambda method: len(method.settings)) if fitting else _plainest(settings)


def fit_command(record: ModelRecord, out: str) -> str | None:
    """The command that fits such a model; None where the file does not tell how it was trained.

    Parameters
    ----------
    record : ModelRecord
        What the model file tells.
    out : str
        Name of the model file.
    """
    if record.training is None or not is_known(record.backbone["name"]):
        return None
    method = method_of(record.model)
    usual_model, usual_training = method.settings_on(load_preset("folder"), {})
    changed = _differences(record.model, usual_model) | _differences(record.training, usual_training)
    words = ["sotglp", "fit", TRAIN, "--out", out, "--method", method.name, *_backbone_options(record.backbone)]
    for name in OWN_OPTIONS:
        if changed.get(name) is not None:
            words += [f"--{name}", str(changed.pop(name))]
    for name, value in changed.items():
        words += ["--set", f"{name}={_as_yaml(value)}"]
    if calibration := record.calibration:
        words += ["--calibrate"] if calibration.n_folds else ["--calibrate-on", CALIBRATION]
        words += ["--tpr", f"{calibration.rejection.tpr:g}", "--ood-method", calibration.ood_method]
    return shlex.join(words)


def fit_command_caveats(record: ModelRecord) -> list[str]:
    """What the command can't say, in sentences."""
    backbone = record.backbone
    if not is_known(backbone["name"]):
        return [f"The backbone {backbone['name']} was given in Python, so no command makes this model."]
    if record.training is None:
        return ["The model file does not tell how it was trained, so no command can be given."]
    notes = [
        f"{TRAIN} stands for the folder of training images, which the model file does not name; nor does it tell "
        "whether classes were added, removed or renamed after the fit."
    ]
    if record.calibration and not record.calibration.n_folds:
        notes.append(f"{CALIBRATION} stands for the images that it was calibrated on, which are not named either.")
    if record.calibration and record.calibration.ood_temperature != 1:
        notes.append(
            f"The calibrated score has the temperature {record.calibration.ood_temperature:g}, for which the command "
            "has no option: calibrate in Python."
        )
    if backbone.get("seed"):
        notes.append(f"Its random weights have the seed {backbone['seed']}, for which the command has no option.")
    if backbone.get("patch_attention", "value") != "value":
        notes.append("Its patches are those of ordinary attention, for which the command has no option: use Python.")
    return notes


def _plainest(settings: Settings) -> Method:
    """Of the methods of that kind, the one that changes the fewest settings."""
    of_kind = [method for method in METHODS.values() if method.config_class is type(settings)]
    return min(of_kind, key=lambda method: len(method.settings))


def _differences(settings: Settings | TrainConfig, usual: Settings | TrainConfig) -> dict[str, Any]:
    given, other = settings.model_dump(), usual.model_dump()
    return {name: value for name, value in given.items() if value != other[name]}


def _backbone_options(backbone: dict[str, Any]) -> list[str]:
    words = ["--backbone", backbone["name"]]
    if backbone["pretrained"] != embedded.TAG:
        words += ["--pretrained", backbone["pretrained"] or "none"]
    return [*words, "--image-size", str(backbone["image_size"][0])]


def _as_yaml(value: Any) -> str:
    """A value as ``--set`` reads it; text in quotes only where it would be read as something else."""
    if isinstance(value, str):
        with suppress(yaml.YAMLError):
            if parse_yaml(value) == value:
                return value
    return json.dumps(value)
