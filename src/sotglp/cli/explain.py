"""``sotglp explain``: which patches of an image each local prompt used, as a picture or as boxes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from sotglp.cli import options
from sotglp.console.output import check_result_file, say, write_json
from sotglp.errors import SotglpError

BOXES = ".json"


def explain(
    model_file: options.ModelFile,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="The image.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Picture to write, .png, .svg or .pdf, or .json for boxes."),
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="NAME", help="Class to explain; give two to see why this one and not that."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Explain so many of the most probable classes.")] = 1,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    ood_method: options.OodMethod = None,
    temperature: options.Temperature = None,
    pretrained: options.Pretrained = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    json_file: options.Json = None,
    debug: options.Debug = False,
) -> None:
    """Show which patches of an image each local prompt of a class took, and how much of its mass it put on them.

    [bold]Example[/bold]: sotglp explain birds.safetensors garden.jpg --out maps.png --class robin --class wren

    A row for each class: the picture with the patches that the class keeps, then one panel for each local prompt. What
    lies outside of the part that the model was shown is hatched.
    """
    if out is None and json_file is None:
        raise SotglpError("there is nowhere to show it: give --out FILE, or --json FILE (- for standard output)")
    if os.path.isdir(image):
        raise SotglpError(f"{image} is a folder, and one image is explained at a time: give an image")

    from sotglp.backbone.precision import choose_device
    from sotglp.console.figures import check_ending, save_figure
    from sotglp.explain.explanation import explain as explain_image
    from sotglp.files.atomic import check_output
    from sotglp.model_file.load import load_model
    from sotglp.model_file.record import read_record

    as_boxes = out is not None and out.suffix.lower() == BOXES
    if out is not None:
        check_output(out, force=force)
        if as_boxes:
            check_result_file(str(out))
        else:
            check_ending(out)
    check_result_file(json_file)
    inference = options.inference_config(1, 0, precision, ood_method, temperature, read_record(model_file).calibration)
    model, _, calibration = load_model(model_file, pretrained=pretrained, device=choose_device(device))
    explanation = explain_image(model, image, classes or top, inference, calibration)
    told = explanation.to_dict()
    if out is not None and as_boxes:
        write_json(str(out), told)
    elif out is not None:
        save_figure(explanation.plot(), out, force=force)
    if json_file:
        write_json(json_file, told)
    for one in explanation.classes:
        say(
            f"{image}: {one.label} ({one.probability:.3f}), global score {one.global_score:.4f}, local score "
            f"{one.local_score:.4f}, {int(one.support.sum())} of {one.support.size} patches",
            json_target=json_file,
        )
    if out is not None:
        say(f"{out} shows them", json_target=json_file)
