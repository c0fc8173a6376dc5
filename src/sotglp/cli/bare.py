"""The command line of an installation without typer: ``sotglp predict`` with exported models, by argparse.

The arguments, options and help texts are those that :func:`sotglp.cli.predict.predict` declares.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Sequence
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from sotglp.cli import options
from sotglp.cli.predict import predict
from sotglp.errors import SotglpError

OPTION = "--"


def run(arguments: Sequence[str]) -> None:
    """Run ``sotglp predict``; every other command needs the full installation."""
    if arguments and arguments[0] != "predict" and not arguments[0].startswith("-"):
        raise SotglpError(
            f"`sotglp {arguments[0]}` needs the full installation, and this one only predicts with exported models: "
            "pip install sotglp"
        )
    program = argparse.ArgumentParser("sotglp", description="Predict with exported models.")
    commands = program.add_subparsers(title="commands", required=True, metavar="COMMAND")
    summary, _, rest = (
        inspect.cleandoc(predict.__doc__ or "").replace("[bold]", "").replace("[/bold]", "").partition("\n")
    )
    _declare(commands.add_parser("predict", help=summary, description=summary, epilog=rest), predict)
    given = vars(program.parse_args(arguments))
    del given["debug"]  # read by `main`
    predict(**given)


def _declare(parser: argparse.ArgumentParser, command: Callable[..., None]) -> None:
    """Add the parameters of a command that is annotated for typer."""
    defaults = inspect.signature(command).parameters
    hints = get_type_hints(command, include_extras=True)
    del hints["return"]
    for name, hint in hints.items():
        kind, declared = get_args(hint)
        kind = next((one for one in get_args(kind) if one is not NoneType), kind)  # of a list or an optional value
        settings: dict[str, Any] = {"help": declared.help.replace("%", "%%")}
        if kind is bool:
            is_pair = "/" in "".join(declared.names)  # --unknown/--no-unknown
            settings |= {"action": argparse.BooleanOptionalAction} if is_pair else {"action": "store_true"}
        else:
            settings |= {"type": _parser_of(kind, declared.min), "metavar": declared.metavar}
        if declared.is_option:
            flags = [flag.partition("/")[0] for flag in declared.names] or [OPTION + name.replace("_", "-")]
            parser.add_argument(*flags, dest=name, default=defaults[name].default, **settings)
        else:
            several = get_origin(get_args(hint)[0]) is list
            parser.add_argument(name, nargs="+" if several else None, **settings)
    parser.add_argument("--debug", action="store_true", help=get_args(options.Debug)[1].help)


def _parser_of(kind: type, least: int | None) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        value = kind(text)
        if least is not None and value < least:
            raise ValueError(text)
        return value

    parse.__name__ = kind.__name__  # argparse names it in messages
    return parse
