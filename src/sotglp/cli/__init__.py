"""The command line: thin commands over the library, with errors for people."""

from __future__ import annotations

import logging
import os
import signal
import sys
import warnings

import typer

from sotglp.cli.benchmark import benchmark
from sotglp.cli.cache import cache
from sotglp.cli.classes import classes
from sotglp.cli.data import data
from sotglp.cli.demo import demo
from sotglp.cli.evaluate import evaluate
from sotglp.cli.explain import explain
from sotglp.cli.export import export
from sotglp.cli.fit import fit
from sotglp.cli.info import info
from sotglp.cli.predict import predict
from sotglp.cli.report import report
from sotglp.cli.serve import serve
from sotglp.console.progress import show_warning
from sotglp.console.text import printable
from sotglp.errors import SotglpError

STOPPED, TERMINATED = (128 + number for number in (signal.SIGINT, signal.SIGTERM))
"""Exit codes, as shells count them."""

app = typer.Typer(
    name="sotglp",
    help="Adapt a CLIP-like model to your own image classes from a few photos each, and know what it does not know.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
)
for command in (demo, fit, evaluate, predict, explain, export, serve, benchmark, report, info):
    app.command()(command)
app.add_typer(data)
app.add_typer(classes)
app.add_typer(cache)


def main() -> None:
    """Run the command line; a user's mistake ends in one sentence and exit code 2."""
    # Threads that wait by spinning make torch several times slower wherever another program wants the processor too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    debug = "--debug" in sys.argv
    logging.basicConfig(level=logging.INFO if debug else logging.ERROR)
    if not debug:
        warnings.showwarning = show_warning
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app()
    except SotglpError as error:
        if debug:
            raise
        print(f"sotglp: error: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as end:
        # Typer makes the first of an interrupt.
        if end.code in (STOPPED, TERMINATED):
            # One write, which no other process of the run comes between.
            sys.stderr.write("sotglp: stopped; `fit` goes on with --resume, `benchmark` with the same command\n")
        raise


def _terminate(*_: object) -> None:
    """End by an exception, so that no half-written file is left."""
    sys.exit(TERMINATED)
