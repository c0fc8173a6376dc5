"""``sotglp fit``: learn a model from a folder of labelled images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sotglp.cli.launch import is_launched, launch
from sotglp.cli.options import CacheDir, Debug, Device, Json, NoCache, SkipUnreadable, cache_folder
from sotglp.console.output import check_result_file, list_unreadable, say, write_json
from sotglp.errors import SotglpError

if TYPE_CHECKING:
    from sotglp.errors import UnreadableImageError
    from sotglp.images.image_set import ImageSet
    from sotglp.settings import Settings, TrainConfig


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
    calibrate: Annotated[
        bool,
        typer.Option("--calibrate", help="Learn when to say `unknown`, from the shots: five more fits, or fewer."),
    ] = False,
    calibrate_on: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Learn it from these labelled images instead, which are not trained on."),
    ] = None,
    tpr: Annotated[
        float | None, typer.Option(help="Share of images of the classes that should pass; 0.95 if not given.")
    ] = None,
    ood_method: Annotated[
        str | None,
        typer.Option(
            help="Score to calibrate, such as gl-mcm, knn or transport; see docs/trust.md. gl-mcm if not given."
        ),
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
    from sotglp.backbone import Backbone
    from sotglp.backbone.precision import choose_device
    from sotglp.features.distributed import Processes
    from sotglp.files.atomic import check_output
    from sotglp.images.image_set import ImageSet
    from sotglp.model_file.save import calibration_record, save_model
    from sotglp.scoring.calibration import calibrate_crossed, calibrate_held_out
    from sotglp.scoring.cross_fit import cross_fit, folds_of, remove_checkpoints, remove_fold_checkpoints
    from sotglp.scoring.rejection import check_tpr
    from sotglp.settings import SHOT_SCORES, InferenceConfig, checked
    from sotglp.training.checkpoint import checkpoint_path
    from sotglp.training.fit import adapt, drawn_shots

    if calibrate and calibrate_on:
        raise SotglpError("--calibrate takes the shots and --calibrate-on other images: give one of them")
    if not (calibrate or calibrate_on):
        for option, value in (("--tpr", tpr), ("--ood-method", ood_method)):
            if value is not None:
                raise SotglpError(f"{option} is for a calibration: give --calibrate or --calibrate-on too")
    asked_tpr = 0.95 if tpr is None else tpr
    check_tpr(asked_tpr)
    common = {"shots": shots, "epochs": epochs, "seed": seed}
    model_settings, training = _settings(method, preset, common, setting or [])
    inference = checked(
        InferenceConfig, training.inference_config().model_dump() | {"ood_method": ood_method or "gl-mcm"}
    )
    if inference.ood_method in SHOT_SCORES and not training.remember:
        raise SotglpError(
            f"the score {inference.ood_method} compares images with the shots, which remember=false does not keep: "
            "leave one of them out"
        )
    views_dir = cache_folder(cache_dir, no_cache)
    check_output(out, force=force)
    check_result_file(json_file)
    checkpoint = checkpoint_path(out)
    if os.path.exists(checkpoint) and not (resume or force):
        raise SotglpError(f"{checkpoint} holds a stopped run: go on with --resume, or begin anew with --force")
    images = ImageSet.from_path(train)
    held_out = ImageSet.from_path(calibrate_on) if calibrate_on else None
    if held_out or calibrate:
        shots_drawn = drawn_shots(images, training)
        if held_out:
            _check_held_out(held_out, images.classes, shots_drawn)
        else:
            folds_of(shots_drawn)
    if force and not resume:
        remove_fold_checkpoints(checkpoint)
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
    is_first = Processes(chosen_device).is_first
    inference = inference.model_copy(update={"show_progress": is_first})
    calibration = None
    if calibrate:
        crossed = cross_fit(
            fitted.model, fitted.images, training, inference, cache_dir=views_dir, checkpoint=checkpoint, resume=resume
        )
        calibration = calibrate_crossed(crossed, fitted.images, inference, asked_tpr)
    if not is_first:
        return
    if held_out:
        calibration = calibrate_held_out(fitted.model, held_out, inference, asked_tpr, unreadable=unreadable)
    save_model(
        out,
        fitted.model,
        training=training,
        history=fitted.history,
        calibration=calibration,
        include_backbone=include_backbone,
        force=force,
    )
    remove_checkpoints(checkpoint)
    list_unreadable(unreadable or [])
    summary = f"{out}: {len(fitted.model.class_names)} classes from {len(fitted.images)} images"
    if fitted.history:
        last = fitted.history[-1]
        loss, accuracy = last["loss"], last["accuracy"]
        summary += f", {len(fitted.history)} epochs; loss {loss:.3f}, training accuracy {accuracy:.3f}"
    if calibration:
        low, high = calibration.rejection.interval
        summary += f"; calibrated: {calibration.rejection.expected_tpr:.1%} pass ({low:.1%} to {high:.1%})"
    say(summary, json_target=json_file)
    if json_file:
        write_json(
            json_file,
            {
                "classes": fitted.model.class_names,
                "n_images": len(fitted.images),
                "settings": {"model": model_settings.model_dump(), "training": training.model_dump()},
                "history": fitted.history,
                "calibration": calibration_record(calibration),
                "unreadable": [str(error.source) for error in unreadable or []],
            },
        )


def _check_held_out(held_out: ImageSet, classes: tuple[str, ...], shots: ImageSet) -> None:
    """Refuse, before a fit, images for calibration that have other labels or are trained on."""
    try:
        held_out.targets(classes)
    except SotglpError as error:
        raise SotglpError(f"the images for calibration can't be used: {error}") from error
    trained_on = {Path(shots.name(index)).resolve() for index in range(len(shots))}
    for index in range(len(held_out)):
        if Path(held_out.name(index)).resolve() in trained_on:
            raise SotglpError(
                f"{held_out.name(index)} is for calibration and is trained on too: keep them apart, or let --calibrate "
                "make the best of the shots"
            )


def _settings(method: str, preset: str, common: dict[str, Any], changes: list[str]) -> tuple[Settings, TrainConfig]:
    """Settings of a method on a preset with what the command line says over them."""
    from sotglp.methods.method import find_method
    from sotglp.settings import load_preset

    values = {name: value for name, value in common.items() if value is not None}
    return find_method(method).settings_on(load_preset(preset), values | dict(_change(text) for text in changes))


def _change(text: str) -> tuple[str, Any]:
    import yaml

    from sotglp.files.packaged import parse_yaml

    name, equals, value = text.partition("=")
    if not equals:
        raise SotglpError(f"--set {text!r} has no value: write --set NAME=VALUE")
    try:
        return name.strip(), parse_yaml(value)
    except yaml.YAMLError as error:
        raise SotglpError(
            f"--set {text!r} has a value that can't be read: write it as YAML, such as 10, true or 'text'"
        ) from error
