"""``sotglp fit``: learn a model from a folder of labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sotglp.cli.launch import is_launched, launch
from sotglp.cli.options import CacheDir, Debug, Device, Json, NoCache, SkipUnreadable, cache_folder
from sotglp.cli.output import check_result_file, list_unreadable, say, write_json
from sotglp.errors import SotglpError

if TYPE_CHECKING:
    from sotglp.config import Settings, TrainConfig
    from sotglp.images import UnreadableImageError


def fit(
    train: Annotated[Path, typer.Argument(metavar="TRAIN", help="Folder of class folders, or manifest.")],
    out: Annotated[Path, typer.Option(help="Model file to write.")],
    backbone: Annotated[
        str, typer.Option(help="open_clip architecture; `sotglp info --backbones` lists them.")
    ] = "ViT-B-16",
    pretrained: Annotated[
        str, typer.Option(help="Tag, weight file, none for random weights, auto for OpenAI's or the package's own.")
    ] = "auto",
    image_size: Annotated[int | None, typer.Option(help="Side of the input in pixels.")] = None,
    preset: Annotated[
        str, typer.Option(help="Settings to start from: a name (`sotglp info --presets`) or a YAML file.")
    ] = "folder",
    method: Annotated[
        str, typer.Option(help="How the backbone is adapted: sot-glp, or a peer (`sotglp info --methods`).")
    ] = "sot-glp",
    shots: Annotated[int | None, typer.Option(help="Images of each class to learn from; 16 if not given.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over them; about 100 steps if not given.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every random draw; 1 if not given.")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any other setting, such as --set top_k=20 (repeat)."),
    ] = None,
    device: Device = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a stopped run was.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT, and forget a stopped run.")] = False,
    include_backbone: Annotated[
        bool, typer.Option("--include-backbone", help="Put the backbone's weights into OUT too.")
    ] = False,
    cache_dir: CacheDir = None,
    no_cache: NoCache = False,
    num_processes: Annotated[
        int, typer.Option(min=1, help="Processes that share the work; several GPUs need as many.")
    ] = 1,
    skip_unreadable: SkipUnreadable = False,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Learn a model from a few labelled images of each class.

    [bold]Example[/bold]: sotglp fit photos/train --out birds.safetensors --shots 16

    TRAIN holds a folder of images for each class, named as the class; or it is a CSV or Parquet file with the columns
    path and label. A run that was stopped goes on with the same command and --resume.
    """
    from sotglp.arithmetic import choose_device
    from sotglp.backbone import Backbone
    from sotglp.checkpoint import checkpoint_path
    from sotglp.dataset import ImageSet
    from sotglp.files import check_output
    from sotglp.modelfile import save_model
    from sotglp.processes import Processes
    from sotglp.training import adapt

    common = {"shots": shots, "epochs": epochs, "seed": seed}
    model_settings, training = _settings(method, preset, common, setting or [])
    views_dir = cache_folder(cache_dir, no_cache)
    check_output(out, force=force)
    check_result_file(json_file)
    checkpoint = checkpoint_path(out)
    if checkpoint.exists() and not (resume or force):
        raise SotglpError(f"{checkpoint} holds a stopped run: go on with --resume, or begin anew with --force")
    images = ImageSet.from_path(train)
    if num_processes > 1 and not is_launched():
        launch(num_processes)
        return
    unreadable: list[UnreadableImageError] | None = [] if skip_unreadable else None
    chosen_device = choose_device(device)
    fitted = adapt(
        Backbone.load(backbone, pretrained, image_size=image_size, device=chosen_device),
        images,
        model_settings,
        training,
        checkpoint=checkpoint,
        resume=resume,
        cache_dir=views_dir,
        unreadable=unreadable,
        show_progress=True,
    )
    if not Processes(chosen_device).is_first:
        return
    save_model(
        out,
        fitted.model,
        training=training,
        history=fitted.history,
        include_backbone=include_backbone,
        force=force,
    )
    checkpoint.unlink(missing_ok=True)
    list_unreadable(unreadable or [])
    summary = f"{out}: {len(fitted.model.class_names)} classes from {len(fitted.images)} images"
    if fitted.history:
        last = fitted.history[-1]
        loss, accuracy = last["loss"], last["accuracy"]
        summary += f", {len(fitted.history)} epochs; loss {loss:.3f}, training accuracy {accuracy:.3f}"
    say(summary, json_target=json_file)
    if json_file:
        write_json(
            json_file,
            {
                "classes": fitted.model.class_names,
                "n_images": len(fitted.images),
                "settings": {"model": model_settings.model_dump(), "training": training.model_dump()},
                "history": fitted.history,
                "unreadable": [str(error.source) for error in unreadable or []],
            },
        )


def _settings(method: str, preset: str, common: dict[str, Any], changes: list[str]) -> tuple[Settings, TrainConfig]:
    """Settings of a method on a preset with what the command line says over them."""
    from sotglp.config import load_preset
    from sotglp.methods import find_method

    values = {name: value for name, value in common.items() if value is not None}
    return find_method(method).settings_on(load_preset(preset), values | dict(_change(text) for text in changes))


def _change(text: str) -> tuple[str, Any]:
    import yaml

    name, equals, value = text.partition("=")
    if not equals:
        raise SotglpError(f"--set {text!r} has no value: write --set NAME=VALUE")
    try:
        return name.strip(), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise SotglpError(
            f"--set {text!r} has a value that can't be read: write it as YAML, such as 10, true or 'text'"
        ) from error
