"""``sotglp convert-weights``: read the tensors of a weight file that isn't read in place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from sotglp.cli import options
from sotglp.console.output import check_outputs, emit
from sotglp.console.progress import note_loading
from sotglp.errors import SotglpError


def convert_weights(
    source: Annotated[Path, Argument(metavar="IN", help="TorchScript archive or checkpoint of a trainer.")],
    out: Annotated[Path, Argument(metavar="OUT", help="Safetensors file to write.")],
    force: Annotated[bool, Option("--force", help="Replace an existing file.")] = False,
    json_file: options.JsonFile = None,
) -> None:
    """Write the tensors of a weight file as .safetensors, with the names that open_clip has.

    For files that `--pretrained` refuses, since loading them as usual could run code in them: OpenAI's TorchScript
    archives, and checkpoints that hold a trainer's settings. Only tensors are read; everything else in the file is left
    out, and no code in it runs.

    [bold]Example[/bold]: sotglp convert-weights ViT-B-32.pt ViT-B-32.safetensors
    """
    if out.suffix != ".safetensors":
        raise SotglpError(f"the output {out} must end in .safetensors")
    check_outputs({"--json": json_file}, {"OUT": out}, force=force)
    note_loading("open_clip", "PyTorch and open_clip")
    from sotglp.backbone.conversion import convert

    n_tensors, dtypes = convert(source, out, force=force)
    result: dict[str, Any] = {"tensors": n_tensors, "types": dtypes, "out": str(out)}
    emit([f"wrote {n_tensors} tensors ({', '.join(dtypes)}) to {out}"], result, json_file)
