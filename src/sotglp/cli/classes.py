"""``sotglp classes``: list, add, remove and rename the classes of a model file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from sotglp.cli import options
from sotglp.cli.inputs import cache_folder, command_group, images_of
from sotglp.console.output import check_outputs, emit
from sotglp.console.progress import note_loading
from sotglp.images.image_set import ImageSet
from sotglp.model_file.record import read_record
from sotglp.settings import TrainConfig, checked

classes = command_group(
    "classes", "List, add, remove and rename the classes of a model, without training the other classes again."
)

Out = Annotated[Path, Option(help="Model file to write; it may be MODEL itself with --force.")]


@classes.command("list")
def list_classes(model_file: options.ModelFile, json_file: options.JsonFile = None) -> None:
    """List the classes of a model, in its order.

    [bold]Example[/bold]: sotglp classes list birds.safetensors
    """
    check_outputs({"--json": json_file})
    record = read_record(model_file)
    emit(map(str, record.classes), {"classes": record.classes}, json_file)


@classes.command("add")
def add_class(
    model_file: options.ModelFile,
    name: Annotated[str, Argument(metavar="NAME", help="Name of the new class.")],
    images: Annotated[list[Path], Argument(metavar="IMAGES...", help="Images of it, or folders of images.")],
    out: Out,
    others: Annotated[
        Path | None,
        Option(metavar="DIR", help="Labelled images of the old classes, in place of the stored shots."),
    ] = None,
    epochs: Annotated[int | None, Option(help="Passes over the images; by default those of the fit.")] = None,
    pretrained: options.Pretrained = None,
    device: options.Device = "auto",
    cache_dir: options.CacheDir = None,
    no_cache: options.NoCache = False,
    skip_unreadable: options.SkipUnreadable = False,
    force: options.Force = False,
    json_file: options.JsonFile = None,
) -> None:
    """Add a class: fit the model again on its images and on the shots of the others, which the model file stores.

    [bold]Example[/bold]: sotglp classes add birds.safetensors wren wrens/ --out more.safetensors

    A calibration is repeated on these images by cross-fits.
    """
    check_outputs({"--json": json_file}, {"--out": out}, force=force)
    record = read_record(model_file)
    checked(TrainConfig, {"epochs": epochs})
    image_set, other_set = images_of(images), None if others is None else ImageSet.from_path(others)
    note_loading()
    from sotglp.cli.edit_classes import ModelEdit

    edit = ModelEdit(model_file, record, out, pretrained, device, force)
    edit.add(name, image_set, epochs, other_set, cache_folder(cache_dir, no_cache), skip_unreadable, json_file)


@classes.command("remove")
def remove_class(
    model_file: options.ModelFile,
    name: Annotated[str, Argument(metavar="NAME", help="The class to remove.")],
    out: Out,
    pretrained: options.Pretrained = None,
    device: options.Device = "auto",
    force: options.Force = False,
    json_file: options.JsonFile = None,
) -> None:
    """Remove a class; the other classes don't change.

    [bold]Example[/bold]: sotglp classes remove birds.safetensors wren --out fewer.safetensors
    """
    check_outputs({"--json": json_file}, {"--out": out}, force=force)
    record = read_record(model_file)
    note_loading()
    from sotglp.cli.edit_classes import ModelEdit

    ModelEdit(model_file, record, out, pretrained, device, force).remove(name, json_file)


@classes.command("rename")
def rename_class(
    model_file: options.ModelFile,
    old: Annotated[str, Argument(metavar="OLD", help="The class.")],
    new: Annotated[str, Argument(metavar="NEW", help="Its new name.")],
    out: Out,
    pretrained: options.Pretrained = None,
    device: options.Device = "auto",
    force: options.Force = False,
    json_file: options.JsonFile = None,
) -> None:
    """Rename a class; what was learned is kept, and its prompts contain the new name.

    [bold]Example[/bold]: sotglp classes rename birds.safetensors wren "winter wren" --out renamed.safetensors
    """
    check_outputs({"--json": json_file}, {"--out": out}, force=force)
    record = read_record(model_file)
    note_loading()
    from sotglp.cli.edit_classes import ModelEdit

    ModelEdit(model_file, record, out, pretrained, device, force).rename(old, new, json_file)
