"""``sotglp export``: a model as one ONNX file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sotglp.cli import options
from sotglp.console.output import check_result_file, say, write_json
from sotglp.console.progress import note
from sotglp.errors import SotglpError


def export(
    model_file: options.ModelFile,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The file to write; it ends in .onnx.")],
    check: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of images to compare file and model on, beside noise."),
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Keep weights of linear layers in eight bits; what that costs is told.")
    ] = False,
    ood_method: options.OodMethod = None,
    temperature: options.Temperature = None,
    pretrained: options.Pretrained = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    json_file: options.Json = None,
    debug: options.Debug = False,
) -> None:
    """Write a model as an ONNX file, with which `sotglp predict` needs no torch; it is compared with the model first.

    [bold]Example[/bold]: sotglp export birds.safetensors --out birds.onnx --check photos/test
    """
    from sotglp.export.onnx_file import export_model
    from sotglp.files.atomic import check_output
    from sotglp.images.image_set import ImageSet
    from sotglp.model_file.load import load_model
    from sotglp.model_file.record import read_record

    check_result_file(json_file)
    if out.suffix != ".onnx":
        raise SotglpError(f"{out} must end in .onnx, by which `sotglp predict` knows it")
    check_output(out, force=force)
    told = read_record(model_file).calibration
    inference = options.inference_config(32, 0, "fp32", ood_method, temperature, told)
    images = ImageSet.from_flat_folder(check) if check else None
    model, record, _ = load_model(model_file, pretrained=pretrained)
    note("tracing the model and comparing, about half a minute", show=True)
    done = export_model(
        out, model, classes=record.classes, inference=inference, calibration=told, check=images, int8=int8, force=force
    )
    apart = ", ".join(f"{what.replace('_', ' ')} {value:.1g}" for what, value in done.differences.items())
    say(f"wrote {out}: {done.n_bytes / 2**20:.1f} MiB{', weights in eight bits' * int8}", json_target=json_file)
    say(f"largest difference on {done.n_checked} images: {apart}", json_target=json_file)
    if int8:
        say(f"the same label on {done.same_labels:.1%} of them", json_target=json_file)
    if json_file:
        write_json(json_file, {"file": str(out), **asdict(done), "ood_method": inference.ood_method})
