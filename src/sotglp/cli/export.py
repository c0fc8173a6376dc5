"""``sotglp export``: a model as one ONNX file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from typer import Option

from sotglp.cli import options
from sotglp.cli.inputs import inference_config
from sotglp.console.output import check_outputs, emit
from sotglp.console.progress import note
from sotglp.console.table import counted
from sotglp.errors import SotglpError
from sotglp.images.image_set import ImageSet
from sotglp.model_file.record import read_record


def export(
    model_file: options.ModelFile,
    out: Annotated[Path, Option(metavar="FILE", help="File to write; it ends in .onnx.")],
    check: Annotated[
        Path | None,
        Option(metavar="DIR", help="Folder of images to compare file and model on, and to calibrate --int8."),
    ] = None,
    int8: Annotated[
        bool,
        Option(
            "--int8", help="Store weights in 8 bits, and report the change; a convolutional backbone needs --check."
        ),
    ] = False,
    ood_method: options.OodMethod = None,
    temperature: options.Temperature = None,
    pretrained: options.Pretrained = None,
    force: options.Force = False,
    json_file: options.JsonFile = None,
) -> None:
    """Export a model to ONNX, so that `sotglp predict` runs without PyTorch, and compare the file with the model.

    [bold]Example[/bold]: sotglp export birds.safetensors --out birds.onnx --check photos/test
    """
    if out.suffix != ".onnx":
        raise SotglpError(f"{out} must end in .onnx, by which `sotglp predict` recognises exported models")
    check_outputs({"--json": json_file}, {"--out": out}, force=force)
    inference = inference_config(read_record(model_file), ood_method, temperature, precision="fp32")
    images = ImageSet.from_flat_folder(check) if check else None
    note("loading PyTorch, tracing the model and comparing; this takes about half a minute")
    from sotglp.export.onnx_file import export_model
    from sotglp.model_file.load import load_model

    model, record, _ = load_model(model_file, pretrained=pretrained)
    done = export_model(
        out,
        model,
        classes=record.classes,
        inference=inference,
        calibration=record.calibration,
        check=images,
        int8=int8,
        force=force,
    )
    differences = ", ".join(f"{what.replace('_', ' ')} {value:.1g}" for what, value in done.differences.items())
    lines = [
        f"wrote {out}: {done.n_bytes / 2**20:.1f} MiB{', weights in 8 bits' * int8}",
        f"largest difference on {counted(done.n_checked, 'image')}: {differences}",
    ]
    if int8:
        lines.append(f"same label on {done.same_labels:.1%} of them")
    emit(lines, {"file": str(out), **asdict(done), "ood_method": inference.ood_method}, json_file)
