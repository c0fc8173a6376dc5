"""``sotglp info``: the installation, supported names, or the contents of a model file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from sotglp.backbone_defaults import (
    METHOD,
    SCORE,
    backbones_with_defaults,
    default_method,
    default_ood_method,
    training_defaults,
)
from sotglp.benchmark.suite import suites as suite_names
from sotglp.cli import options
from sotglp.cli.backbone_table import backbone_lines, backbone_rows
from sotglp.cli.model_sections import model_lines
from sotglp.console.output import check_outputs, emit
from sotglp.console.progress import note_loading
from sotglp.errors import SotglpError
from sotglp.files.versions import installed_versions
from sotglp.methods.method import METHODS
from sotglp.model_file.record import read_record
from sotglp.settings import load_preset
from sotglp.settings import presets as preset_names


def info(
    model_file: Annotated[Path | None, Argument(metavar="[MODEL]", help="Model file to describe.")] = None,
    backbones: Annotated[
        bool, Option("--backbones", help="List the backbones, their sizes, weights and licences.")
    ] = False,
    filter_text: Annotated[
        str | None,
        Option("--filter", metavar="TEXT", help="With --backbones: those with these words, and all of their tags."),
    ] = None,
    presets: Annotated[bool, Option("--presets", help="List the presets, and settings by backbone.")] = False,
    methods: Annotated[bool, Option("--methods", help="List the methods.")] = False,
    suites: Annotated[bool, Option("--suites", help="List the suites of `sotglp benchmark`.")] = False,
    json_file: options.JsonFile = None,
) -> None:
    """Describe a model file, or this installation.

    [bold]Example[/bold]: sotglp info birds.safetensors
    """
    check_outputs({"--json": json_file})
    if filter_text is not None and (model_file or not backbones):
        raise SotglpError(f"--filter {filter_text!r} has nothing to filter: use it with --backbones, without a model")
    result: dict[str, Any]
    if model_file:
        result, lines = _model(model_file)
    elif backbones:
        result = backbone_rows(filter_text)
        lines = backbone_lines(result, all_tags=filter_text is not None)
    elif presets:
        result = {
            "presets": {name: load_preset(name).model_dump() for name in preset_names()},
            "backbones": {
                name: training_defaults(name)
                | {METHOD: default_method(name), SCORE: default_ood_method(name, has_shots=True)}
                for name in backbones_with_defaults()
            },
        }
        lines = [_preset_line(name, values) for name, values in result["presets"].items()]
        lines += [
            f"--backbone {name}: {_settings_line(values)}, where a preset names nothing else"
            for name, values in result["backbones"].items()
        ]
    elif methods:
        result = {"methods": {name: {"title": one.title, "source": one.source} for name, one in METHODS.items()}}
        lines = [f"{name:24}{one.title:26}{one.source}" for name, one in METHODS.items()]
    elif suites:
        result = {"suites": suite_names()}
        lines = result["suites"]
    else:
        result, lines = _installation()
    emit(lines, result, json_file)


def _model(path: Path) -> tuple[dict[str, Any], list[str]]:
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
    if record.choices:
        result["choices"] = [asdict(choice) for choice in record.choices]
    if record.value_ranges:
        result["value_ranges"] = record.value_ranges
    return result, model_lines(path, record)


def _installation() -> tuple[dict[str, Any], list[str]]:
    note_loading()
    import torch

    devices = ["cpu"] + [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    result = {"devices": devices, "threads": torch.get_num_threads()}
    lines = [f"{name:16}{version}" for name, version in installed_versions().items()]
    return result, [*lines, f"{'devices':16}{', '.join(devices)} ({result['threads']} CPU threads)"]


def _preset_line(name: str, values: dict[str, Any]) -> str:
    training = {key: values["training"][key] for key in ("epochs", "batch_size", "learning_rate", "views", "draw")}
    return f"{name:16}n_local_prompts={values['model']['n_local_prompts']} {_settings_line(training)}"


def _settings_line(settings: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in settings.items())
