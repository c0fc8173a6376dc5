"""The table of commands; each command's module is imported when the command runs."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from sotglp import __version__
from sotglp.cli import options

COMMANDS = {
    "demo": "Compare methods on photos that ship with the package, without any download.",
    "fit": "Fit a model to a few labelled images of each class.",
    "evaluate": "Evaluate a model on labelled images and on images of unknown classes.",
    "predict": "Predict the class of each image, with its probability and an in-distribution score.",
    "explain": "Show which patches of an image each local prompt of a class used.",
    "export": "Export a model to ONNX, so that `sotglp predict` runs without PyTorch.",
    "push": "Upload a model with a model card to the Hugging Face Hub.",
    "serve": "Serve a model as a web page and a JSON API.",
    "benchmark": "Compare methods on datasets, cell by cell.",
    "report": "Write a report on a model, or tables and figures of a benchmark.",
    "convert-weights": "Convert a weight file that could hold code to safetensors, without running it.",
    "import-checkpoint": "Make a model file of a checkpoint of the published SOT-GLP code.",
    "info": "Describe a model file or this installation.",
    "data": "List, check and download datasets; check your own images.",
    "classes": "List, add, remove and rename the classes of a model.",
    "cache": "List and prune the cache of image features.",
}
"""Summary of each command, as ``sotglp --help`` lists it; the module of a command has its name."""


PANELS = {
    "Train and predict": ("fit", "predict", "evaluate", "explain", "report"),
    "Use elsewhere": ("serve", "export", "push"),
    "Data and classes": ("data", "classes"),
    "Compare methods": ("demo", "benchmark"),
}
"""Groups of ``sotglp --help``; other commands follow them."""


class _LazyGroup(TyperGroup):
    """Lists all commands by their summaries, and imports the module of the one that runs."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        panels = {name: panel for panel, names in PANELS.items() for name in names}
        ordered = sorted(COMMANDS, key=lambda name: list(panels).index(name) if name in panels else len(panels))
        self.commands = {
            name: TyperGroup(name=name, help=COMMANDS[name], rich_help_panel=panels.get(name, "Other"))
            for name in ordered
        }

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and load_command(str(name)), rest


app = typer.Typer(
    name="sotglp",
    cls=_LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"sotglp {__version__}")
        raise typer.Exit


@app.callback()
def sotglp(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Adapt a CLIP-like model to your own image classes from a few photos each, with calibrated confidence.

    [bold]Example[/bold]: sotglp fit photos/train --out birds.safetensors
    """


def load_command(name: str) -> Any:
    """Import the module of a command and build its parser: a command, or a group of commands."""
    module = name.replace("-", "_")
    found = getattr(import_module(f"sotglp.cli.{module}"), module)
    if not isinstance(found, typer.Typer):
        single = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
        single.command(name)(found)
        found = single
    command: Any = typer.main.get_command(found)
    for one in getattr(command, "commands", {name: command}).values():
        one.params.append(_debug_option())
        for option in one.params:
            if option.param_type_name == "option":
                option.rich_help_panel = options.PANEL_OF.get(option.name)
    return command


def _debug_option() -> Any:
    """Return the option of every command that :func:`sotglp.cli.main` reads from the command line itself."""
    only = typer.Typer(add_completion=False)

    @only.command()
    def _command(debug: options.Debug = False) -> None: ...

    option = typer.main.get_command(only).params[0]
    option.expose_value = False
    return option
