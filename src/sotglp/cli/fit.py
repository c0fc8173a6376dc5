"""``sotglp fit``: fit a model to a folder of labelled images."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import yaml
from typer import Argument, Option

from sotglp.backbone_defaults import AUTO, FOLDER, choose_backbone, default_method, default_ood_method, preset_for
from sotglp.cli import options
from sotglp.cli.inputs import cache_folder
from sotglp.cli.launch import is_launched, launch
from sotglp.console.output import check_outputs
from sotglp.console.progress import note_loading
from sotglp.errors import SotglpError, SotglpWarning, UnknownNameError
from sotglp.files.packaged import parse_yaml
from sotglp.images.columns import Columns
from sotglp.images.image_set import ImageSet
from sotglp.images.manifest import ANY_COLUMNS, MANIFEST_SUFFIXES
from sotglp.methods.method import candidates_on, find_method
from sotglp.scoring.rejection import CONFIDENCE
from sotglp.settings import SHOT_SCORES, Calibrator, Settings, TrainConfig, load_preset
from sotglp.training.trackers import tracker_of

CHECKPOINT_SUFFIX = ".checkpoint"


def fit(
    train: Annotated[Path, Argument(metavar="TRAIN", help="Folder of class folders, or manifest.")],
    out: Annotated[Path, Option(help="Model file to write.")],
    backbone: Annotated[
        str,
        Option(
            help="Name of a backbone (`sotglp info --backbones`), or auto: ViT-B-16 if its weights are in the local "
            "cache, else photo, which ships with the package."
        ),
    ] = AUTO,
    pretrained: Annotated[
        str, Option(help="Tag or file of weights, none for random ones, auto for OpenAI's or the package's own.")
    ] = "auto",
    image_size: Annotated[int | None, Option(help="Side of the input in pixels.")] = None,
    preset: Annotated[
        str, Option(help="Settings to start from: a name (`sotglp info --presets`) or a YAML file.")
    ] = FOLDER,
    method: Annotated[
        str | None,
        Option(
            help="sot-glp as published, another method (`sotglp info --methods`), or auto: chosen on held-out shots, "
            "in three to four times the steps of a trained fit; default: the backbone's, sot-glp-gda for photo."
        ),
    ] = None,
    shots: Annotated[int | None, Option(help="Training images per class; default 16.")] = None,
    epochs: Annotated[int | None, Option(help="Passes over them; default about 100 steps, or the backbone's.")] = None,
    learning_rate: Annotated[
        str | None,
        Option(
            "--lr",
            "--learning-rate",
            help="First step size; default 0.005, or the backbone's. auto chooses among a quarter of it, itself and "
            "four times it on held-out shots, in three more fits' time.",
        ),
    ] = None,
    template: Annotated[
        str | None,
        Option(help="Text that prompts start from, such as 'a satellite photo of {}'; default 'A photo of a {}'."),
    ] = None,
    views: Annotated[
        int | None,
        Option(min=0, help="Augmented views of an image, encoded once; 0 encodes a new one each epoch; default 2."),
    ] = None,
    seed: Annotated[int | None, Option(help="Seed of every random draw; default 1.")] = None,
    setting: Annotated[
        list[str] | None,
        Option(
            "--set",
            metavar="NAME=VALUE",
            help="Any other setting, such as --set top_k=20; `sotglp info MODEL` lists them (repeat).",
        ),
    ] = None,
    calibrate: Annotated[
        bool,
        Option(
            "--calibrate",
            help="Calibrate the rejection of unknown images on the shots, by up to five models that train on parts of "
            "them, in half a fit's steps.",
        ),
    ] = False,
    calibrate_on: Annotated[
        Path | None,
        Option(metavar="DIR", help="Calibrate on these labelled held-out images instead."),
    ] = None,
    tpr: Annotated[float | None, Option(help="Fraction of images of the classes to accept; default 0.95.")] = None,
    max_error: Annotated[
        float | None,
        Option(help="Bound the fraction of wrong labels among accepted images by this instead of --tpr, such as 0.05."),
    ] = None,
    confidence: Annotated[
        float | None, Option(help="Probability of keeping to --max-error over calibration images; default 0.9.")
    ] = None,
    calibrator: Annotated[
        str | None,
        Option(help="How probabilities are calibrated: temperature (default), platt or isotonic."),
    ] = None,
    ood_method: Annotated[
        str | None,
        Option(
            help="Score to calibrate, such as gl-mcm or knn, or auto: the best at telling classes that are left out in "
            "turn; default: the backbone's."
        ),
    ] = None,
    device: options.Device = "auto",
    resume: Annotated[bool, Option("--resume", help="Resume an interrupted run.")] = False,
    force: Annotated[bool, Option("--force", help="Replace OUT, and discard an interrupted run.")] = False,
    include_backbone: Annotated[
        bool, Option("--include-backbone", help="Store the backbone's weights in OUT too.")
    ] = False,
    cache_dir: options.CacheDir = None,
    no_cache: options.NoCache = False,
    track: Annotated[
        list[str] | None,
        Option(
            metavar="NAME[:PLACE]",
            help="Record each epoch: tensorboard:FOLDER, mlflow:EXPERIMENT or wandb:PROJECT (repeat).",
        ),
    ] = None,
    num_processes: Annotated[int, Option(min=1, help="Processes that share the work, such as one per GPU.")] = 1,
    skip_unreadable: options.SkipUnreadable = False,
    split: options.Split = None,
    path_column: options.PathColumn = None,
    label_column: options.LabelColumn = None,
    json_file: options.JsonFile = None,
) -> None:
    """Fit a model to a few labelled images of each class.

    [bold]Example[/bold]: sotglp fit photos/train --out birds.safetensors --shots 16

    TRAIN is a folder with one folder of images per class, or a CSV or Parquet file with the columns path and label. To
    resume an interrupted run, repeat the command with --resume.
    """
    if calibrate and calibrate_on:
        raise SotglpError("--calibrate uses the shots and --calibrate-on other images: give one of them")
    if not (calibrate or calibrate_on):
        only_calibrated = {
            "--tpr": tpr,
            "--max-error": max_error,
            "--confidence": confidence,
            "--calibrator": calibrator,
            "--ood-method": ood_method,
        }
        for option, value in only_calibrated.items():
            if value is not None:
                raise SotglpError(f"{option} is for calibration: give --calibrate or --calibrate-on too")
    if calibrator not in (None, *get_args(Calibrator)):
        raise UnknownNameError("calibrator", str(calibrator), get_args(Calibrator))
    if max_error is not None and tpr is not None:
        raise SotglpError("--tpr and --max-error both choose the threshold: give one of them")
    if max_error is None and confidence is not None:
        raise SotglpError("--confidence is that of --max-error: give --max-error too")
    backbone = choose_backbone(backbone, pretrained)
    will_launch = num_processes > 1 and not is_launched()
    if will_launch:
        # What follows is repeated, and warned of, in the processes of the run.
        warnings.simplefilter("ignore", SotglpWarning)
    common = {
        "shots": shots,
        "epochs": epochs,
        "learning_rate": None if learning_rate == AUTO else _rate(learning_rate),
        "template": template,
        "views": views,
        "seed": seed,
    }
    candidates = settings_of_candidates(
        backbone, method or default_method(backbone, preset), preset, common, setting or []
    )
    model_config, training = next(iter(candidates.values()))
    score = default_ood_method(backbone, has_shots=training.remember) if ood_method in (None, AUTO) else ood_method
    inference = training.inference_config().with_score(score)
    if inference.ood_method in SHOT_SCORES and not training.remember:
        raise SotglpError(
            f"the score {inference.ood_method} compares images with the shots, which remember=false doesn't keep: "
            "leave one of them out"
        )
    trackers = [tracker_of(text) for text in track or []]
    features_dir = cache_folder(cache_dir, no_cache)
    checkpoint = out.with_name(out.name + CHECKPOINT_SUFFIX)
    check_outputs({"--json": json_file}, {"--out": out}, force=force)
    check_outputs({"--json": json_file}, {"the checkpoint": checkpoint}, force=True)
    if os.path.exists(checkpoint) and not (resume or force):
        raise SotglpError(
            f"{checkpoint} holds an interrupted run: continue it with --resume, or discard it with --force"
        )
    images = ImageSet.from_path(train, Columns(split, path_column, label_column))
    held_out = None
    if calibrate_on:
        is_table = calibrate_on.suffix.lower() in MANIFEST_SUFFIXES
        held_out = ImageSet.from_path(
            calibrate_on, Columns(None, path_column, label_column) if is_table else ANY_COLUMNS
        )
    note_loading()
    from sotglp.cli.fit_model import FitRun

    run = FitRun(
        out=out,
        images=images,
        model_config=model_config,
        training=training,
        candidates=candidates,
        rate_is_open=learning_rate == AUTO,
        score_is_open=ood_method == AUTO,
        score_is_default=ood_method is None,
        inference=inference,
        features_dir=features_dir,
        checkpoint=checkpoint,
        calibrate=calibrate,
        held_out=held_out,
        tpr=0.95 if tpr is None else tpr,
        max_error=max_error,
        calibrator=cast(Calibrator, calibrator or "temperature"),
        confidence=CONFIDENCE if confidence is None else confidence,
        resume=resume,
        force=force,
        include_backbone=include_backbone,
        skip_unreadable=skip_unreadable,
        json_file=json_file,
        trackers=trackers,
    )
    run.check()
    if will_launch:
        launch(num_processes, "--backbone", backbone)
    else:
        run.run(backbone, pretrained, image_size, device)


def settings_of_candidates(
    backbone: str, method: str, preset: str, common: dict[str, Any], changes: list[str]
) -> dict[str, tuple[Settings, TrainConfig]]:
    """Return settings by method, the preferred one first: of one method, or of several if it is ``auto``.

    They are those on a preset and a backbone, changed by options and by texts ``NAME=VALUE``.
    """
    values = {name: value for name, value in common.items() if value is not None}
    values |= dict(_change(text) for text in changes)
    completed = preset_for(backbone, load_preset(preset))
    if method == AUTO:
        return candidates_on(backbone, completed, values)
    chosen = find_method(method)
    chosen.check_backbone(backbone)
    return {method: chosen.settings_on(completed, values)}


def _rate(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError as error:
        raise SotglpError(f"--lr {text!r} is no number: give one, such as 0.01, or auto") from error


def _change(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise SotglpError(f"--set {text!r} has no value: write --set NAME=VALUE")
    try:
        return name.strip(), parse_yaml(value)
    except yaml.YAMLError as error:
        raise SotglpError(
            f"--set {text!r} has a value that can't be read: write it as YAML, such as 10, true or 'text'"
        ) from error
