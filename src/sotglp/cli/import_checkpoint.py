"""``sotglp import-checkpoint``: make a model file of a checkpoint of the published implementation."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from sotglp.backbone_defaults import CLIP
from sotglp.cli import options
from sotglp.console.output import check_outputs, emit
from sotglp.console.progress import note_loading
from sotglp.console.table import counted
from sotglp.errors import SotglpError
from sotglp.images.image_set import ImageSet


def import_checkpoint(
    checkpoint: Annotated[Path, Argument(metavar="CHECKPOINT", help="The .ckpt file of the published code.")],
    classes: Annotated[
        Path,
        Option(
            metavar="PATH", help="Class names in the order of the run: a text file of one a line, or class folders."
        ),
    ],
    out: Annotated[Path, Option(help="Model file to write.")],
    backbone: Annotated[str, Option(help="The backbone of the run.")] = CLIP,
    pretrained: Annotated[str, Option(help="Tag or file of its weights.")] = "auto",
    top_k: Annotated[int, Option("--top-k", min=1, help="The largest --topk of the run.")] = 10,
    template: Annotated[str, Option(help="The template of the run.")] = "A photo of a {}",
    force: options.Force = False,
    json_file: options.JsonFile = None,
) -> None:
    """Make a model file of a checkpoint of the published SOT-GLP code, to evaluate it here.

    Only tensors are read, and no code in the file runs. The checkpoint doesn't name its classes, so --classes must.

    [bold]Example[/bold]: sotglp import-checkpoint hierlop_dtd_vit_b16_seed1.ckpt --classes names.txt --out
    dtd.safetensors
    """
    check_outputs({"--json": json_file}, {"--out": out}, force=force)
    names = _class_names(classes)
    note_loading()
    from sotglp.backbone import Backbone
    from sotglp.model_file.published import load_published
    from sotglp.model_file.save import save_model

    model = load_published(checkpoint, Backbone.load(backbone, pretrained), names, top_k=top_k, template=template)
    save_model(out, model, force=force)
    config = model.config
    prompts = f"{counted(config.n_global_prompts, 'global prompt')} and {config.n_local_prompts} local ones per class"
    result: dict[str, Any] = {"out": str(out), "classes": names, "settings": config.model_dump()}
    emit([f"{out}: {counted(len(names), 'class', 'classes')}, {prompts}"], result, json_file)


def _class_names(path: Path) -> list[str]:
    if os.path.isdir(path):
        return list(ImageSet.from_path(path).classes)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SotglpError(
            f"the class names {path} can't be read ({error}): give a text file of one name a line"
        ) from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise SotglpError(f"{path} holds no class names: write one a line")
    return names
