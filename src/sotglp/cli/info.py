"""``sotglp info``: what is installed, what can be used, what a model file holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sotglp.cli import options
from sotglp.console.output import check_result_file, say, write_json

if TYPE_CHECKING:
    from sotglp.model_file.record import CalibrationRecord


def info(
    model_file: Annotated[Path | None, typer.Argument(metavar="[MODEL]", help="Model file to describe.")] = None,
    backbones: Annotated[bool, typer.Option("--backbones", help="List the backbones that can be adapted.")] = False,
    presets: Annotated[bool, typer.Option("--presets", help="List the presets and their settings.")] = False,
    methods: Annotated[bool, typer.Option("--methods", help="List the methods that can be compared.")] = False,
    suites: Annotated[bool, typer.Option("--suites", help="List the suites that `sotglp benchmark` knows.")] = False,
    json_file: options.Json = None,
    debug: options.Debug = False,
) -> None:
    """Describe a model file, or this installation.

    [bold]Example[/bold]: sotglp info birds.safetensors
    """
    check_result_file(json_file)
    if model_file:
        result, lines = _about_model(model_file)
    elif backbones:
        from sotglp.backbone.weights import supported_backbones

        result = {"backbones": supported_backbones()}
        lines = result["backbones"]
    elif presets:
        from sotglp.settings import load_preset
        from sotglp.settings import presets as names

        result = {"presets": {name: load_preset(name).model_dump() for name in names()}}
        lines = [_preset_line(name, values) for name, values in result["presets"].items()]
    elif methods:
        from sotglp.methods.method import METHODS

        result = {"methods": {name: {"title": one.title, "source": one.source} for name, one in METHODS.items()}}
        lines = [f"{name:24}{one.title:26}{one.source}" for name, one in METHODS.items()]
    elif suites:
        from sotglp.benchmark.suite import suites as suite_names

        result = {"suites": suite_names()}
        lines = result["suites"]
    else:
        result, lines = _about_installation()
    for line in lines:
        say(line, json_target=json_file)
    if json_file:
        write_json(json_file, result)


def _about_model(path: Path) -> tuple[dict[str, Any], list[str]]:
    from sotglp.model_file.record import read_record

    record = read_record(path)
    result: dict[str, Any] = {
        "classes": record.classes,
        "backbone": record.backbone,
        "model": record.model.model_dump(),
        "training": record.training.model_dump() if record.training else None,
        "history": record.history,
        "calibration": record.calibration.model_dump() if record.calibration else None,
        "written_by": record.versions,
    }
    weights = record.backbone["pretrained"] or "random weights"
    lines = [
        f"backbone    {record.backbone['name']}, {weights}, {record.backbone['image_size'][0]} pixels",
        f"weights     {record.backbone['fingerprint']}",
        f"classes     {len(record.classes)}: {', '.join(map(str, record.classes))}",
        f"model       {_settings_line(result['model'])}",
    ]
    if result["training"]:
        lines.append(f"training    {_settings_line(result['training'])}")
    if record.history:
        last = record.history[-1]
        lines.append(f"last epoch  {last['epoch']}: loss {last['loss']:.3f}, training accuracy {last['accuracy']:.3f}")
    if record.calibration:
        lines.append(f"calibrated  {_calibration_line(record.calibration)}")
    lines.append(f"written by  {_settings_line(record.versions)}")
    return result, lines


def _calibration_line(calibration: CalibrationRecord) -> str:
    rejection = calibration.rejection
    low, high = rejection.interval
    source = f"{calibration.n_folds} folds of the shots" if calibration.n_folds else "images kept from training"
    return (
        f"unknown below {calibration.ood_method} {rejection.threshold:.6g}, from {rejection.n} images in {source}; "
        f"of the classes' own images {rejection.expected_tpr:.1%} pass on average, {low:.1%} to {high:.1%} in nine of "
        f"ten cases; temperature {calibration.temperature:.3g}"
    )


def _about_installation() -> tuple[dict[str, Any], list[str]]:
    import torch

    from sotglp.files.versions import installed_versions

    devices = ["cpu"] + [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    result = {"devices": devices, "threads": torch.get_num_threads()}
    lines = [f"{name:16}{version}" for name, version in installed_versions().items()]
    return result, [*lines, f"{'devices':16}{', '.join(devices)} ({result['threads']} CPU threads)"]


def _preset_line(name: str, values: dict[str, Any]) -> str:
    training = {key: values["training"][key] for key in ("epochs", "batch_size", "learning_rate", "views", "draw")}
    return f"{name:16}n_local_prompts={values['model']['n_local_prompts']} {_settings_line(training)}"


def _settings_line(settings: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in settings.items())
