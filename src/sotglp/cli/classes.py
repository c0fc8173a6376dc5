"""``sotglp classes``: classes of a model file that are listed, added, removed and renamed."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sotglp.cli import options
from sotglp.console.output import check_result_file, list_unreadable, say, write_json
from sotglp.errors import SotglpWarning

if TYPE_CHECKING:
    from sotglp.errors import UnreadableImageError
    from sotglp.methods.base import AdaptedModel
    from sotglp.model_file.record import ModelRecord

classes = typer.Typer(
    name="classes",
    help="List, add, remove and rename the classes of a model, without training the others anew.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Out = Annotated[Path, typer.Option(help="Model file to write; MODEL itself takes --force.")]
Force = Annotated[bool, typer.Option("--force", help="Replace OUT.")]


@classes.command("list")
def list_classes(model_file: options.ModelFile, json_file: options.Json = None, debug: options.Debug = False) -> None:
    """List the classes of a model, in its order.

    [bold]Example[/bold]: sotglp classes list birds.safetensors
    """
    from sotglp.model_file.record import read_record

    check_result_file(json_file)
    record = read_record(model_file)
    for label in record.classes:
        say(str(label), json_target=json_file)
    if json_file:
        write_json(json_file, {"classes": record.classes})


@classes.command("add")
def add_class(
    model_file: options.ModelFile,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new class.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES...", help="Images of it, or folders of images.")],
    out: Out,
    others: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Labelled images of old classes, which keep the new one from taking theirs."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the images; few if not given and there are no others.")
    ] = None,
    pretrained: options.Pretrained = None,
    device: options.Device = "auto",
    cache_dir: options.CacheDir = None,
    no_cache: options.NoCache = False,
    skip_unreadable: options.SkipUnreadable = False,
    force: Force = False,
    json_file: options.Json = None,
    debug: options.Debug = False,
) -> None:
    """Learn one class more; what the model learned for the others stays as it is.

    [bold]Example[/bold]: sotglp classes add birds.safetensors wren wrens/ --others photos/train --out more.safetensors

    Give --others wherever you have images of the old classes: without them the new class takes some of theirs.
    """
    from sotglp.images.image_set import ImageSet
    from sotglp.settings import TrainConfig, checked
    from sotglp.training.class_changes import with_class

    model, record = _loaded(model_file, out, force, json_file, pretrained, device)
    known = (record.training or TrainConfig()).model_dump()
    unreadable: list[UnreadableImageError] | None = [] if skip_unreadable else None
    label = record.label_of(name)
    grown = with_class(
        model,
        str(label),
        options.images_of(images),
        checked(TrainConfig, known | {"epochs": epochs}),
        others=None if others is None else ImageSet.from_path(others),
        cache_dir=options.cache_folder(cache_dir, no_cache),
        unreadable=unreadable,
        show_progress=True,
    )
    list_unreadable(unreadable or [])
    _write(out, model_file, grown, record, [*record.classes, label], force)
    about = {"added": label, "unreadable": [str(error.source) for error in unreadable or []]}
    _tell(f"{out}: {label} is class {len(grown.class_names)}", [*record.classes, label], about, json_file)


@classes.command("remove")
def remove_class(
    model_file: options.ModelFile,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The class to forget.")],
    out: Out,
    pretrained: options.Pretrained = None,
    device: options.Device = "auto",
    force: Force = False,
    json_file: options.Json = None,
    debug: options.Debug = False,
) -> None:
    """Forget a class; the others stay as they are.

    [bold]Example[/bold]: sotglp classes remove birds.safetensors wren --out fewer.safetensors
    """
    from sotglp.training.class_changes import without_class

    model, record = _loaded(model_file, out, force, json_file, pretrained, device)
    left = without_class(model, name)
    labels = [label for label, text in zip(record.classes, model.class_names, strict=True) if text != name]
    _write(out, model_file, left, record, labels, force)
    _tell(f"{out}: {len(labels)} classes without {name}", labels, {"removed": name}, json_file)


@classes.command("rename")
def rename_class(
    model_file: options.ModelFile,
    old: Annotated[str, typer.Argument(metavar="OLD", help="The class.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Its new name.")],
    out: Out,
    pretrained: options.Pretrained = None,
    device: options.Device = "auto",
    force: Force = False,
    json_file: options.Json = None,
    debug: options.Debug = False,
) -> None:
    """Call a class otherwise; what was learned stays, and the new name stands in its prompts.

    [bold]Example[/bold]: sotglp classes rename birds.safetensors wren "winter wren" --out renamed.safetensors
    """
    from sotglp.training.class_changes import renamed

    model, record = _loaded(model_file, out, force, json_file, pretrained, device)
    label = record.label_of(new)
    changed = renamed(model, old, str(label))
    labels = [label if text == old else own for own, text in zip(record.classes, model.class_names, strict=True)]
    _write(out, model_file, changed, record, labels, force)
    _tell(f"{out}: {old} is now {label}", labels, {"renamed": old, "name": label}, json_file)


def _loaded(
    model_file: Path, out: Path, force: bool, json_file: str | None, pretrained: str | None, device: str
) -> tuple[AdaptedModel, ModelRecord]:
    """The model, once it is known that a result can be written."""
    from sotglp.backbone.precision import choose_device
    from sotglp.files.atomic import check_output
    from sotglp.model_file.load import load_model

    check_output(out, force=force)
    check_result_file(json_file)
    model, record, _ = load_model(model_file, pretrained=pretrained, device=choose_device(device))
    return model, record


def _write(
    out: Path, model_file: Path, model: AdaptedModel, record: ModelRecord, labels: list[Any], force: bool
) -> None:
    """Write the changed model; its backbone's weights go in where they were in before."""
    from sotglp.model_file.load import carries_backbone
    from sotglp.model_file.save import save_model

    if record.calibration is not None:
        message = f"the calibration of {model_file} is not in {out}, since classes changed: calibrate again"
        warnings.warn(message, SotglpWarning, stacklevel=2)
    save_model(
        out,
        model,
        classes=labels,
        training=record.training,
        history=record.history,
        include_backbone=carries_backbone(model_file),
        force=force,
    )


def _tell(text: str, labels: list[Any], about: dict[str, Any], json_file: str | None) -> None:
    say(text, json_target=json_file)
    if json_file:
        write_json(json_file, {"classes": labels, **about})
