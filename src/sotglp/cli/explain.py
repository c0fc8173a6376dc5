"""``sotglp explain``: the patches of an image that each local prompt used, as a figure or as boxes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from sotglp.cli import options
from sotglp.cli.inputs import inference_config
from sotglp.console.figures import check_suffix, save_figure
from sotglp.console.output import check_outputs, emit, write_json
from sotglp.console.progress import note_loading
from sotglp.errors import SotglpError
from sotglp.model_file.record import read_record

BOXES = ".json"


def explain(
    model_file: options.ModelFile,
    image: Annotated[Path, Argument(metavar="IMAGE", help="The image.")],
    out: Annotated[
        Path | None,
        Option("--out", metavar="FILE", help="Figure to write, .png, .svg or .pdf, or .json for boxes."),
    ] = None,
    classes: Annotated[
        list[str] | None,
        Option("--class", metavar="NAME", help="Class to explain; give two to see why one and not the other."),
    ] = None,
    top: Annotated[int, Option(min=1, help="Number of most probable classes to explain.")] = 1,
    force: options.Force = False,
    ood_method: options.OodMethod = None,
    temperature: options.Temperature = None,
    pretrained: options.Pretrained = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    json_file: options.JsonFile = None,
) -> None:
    """Show which patches of an image each local prompt of a class used, and how its mass is spread over them.

    [bold]Example[/bold]: sotglp explain birds.safetensors garden.jpg --out maps.png --class robin --class wren

    The figure has one row per class: the image with the patches that the class keeps, then one panel per local prompt.
    The part of the image that the model doesn't see is hatched.
    """
    if out is None and json_file is None:
        raise SotglpError("there is no output: give --out FILE, or --json FILE (- for standard output)")
    if os.path.isdir(image):
        raise SotglpError(f"{image} is a folder: give a single image")
    boxes = str(out) if out is not None and out.suffix.lower() == BOXES else None
    figure = None if boxes else out
    if figure is not None:
        check_suffix(figure)
    check_outputs({"--out": boxes, "--json": json_file}, {"--out": figure} if figure else {}, force=force)
    if boxes and os.path.exists(boxes) and not force:
        raise SotglpError(f"{boxes} exists: give another name, or --force to replace it")
    inference = inference_config(read_record(model_file), ood_method, temperature, precision=precision)
    note_loading()
    from sotglp.backbone.precision import choose_device
    from sotglp.explain.explanation import explain as explain_image
    from sotglp.model_file.load import load_model

    model, _, calibration = load_model(model_file, pretrained=pretrained, device=choose_device(device))
    explanation = explain_image(model, image, classes or top, inference, calibration)
    result = explanation.to_dict()
    if boxes:
        write_json(boxes, result)
    elif out is not None:
        save_figure(explanation.plot(), out, force=force)
    lines = [
        f"{image}: {one.label}, {one.scores}, {int(one.support.sum())} of {one.support.size} patches"
        for one in explanation.classes
    ]
    emit([*lines, f"{image}: {explanation.decision}", *([f"wrote {out}"] if out else [])], result, json_file)
