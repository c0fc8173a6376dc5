"""The command line: thin commands over the library."""

from __future__ import annotations

import logging
import sys
import warnings
from importlib.util import find_spec

from sotglp.cli.signals import is_ending, signals_end_command
from sotglp.console.progress import show_warning
from sotglp.console.streams import complain, flush_output, prepare_streams, stream_error
from sotglp.errors import SotglpError

UNREAD = 1
"""Exit code, as of click, if whoever reads standard output is gone."""


def main() -> None:
    """Run the command line; a user's mistake ends with one sentence and exit code 2."""
    with signals_end_command():
        debug = "--debug" in sys.argv
        logging.basicConfig(level=logging.INFO if debug else logging.ERROR)
        if not debug:
            warnings.showwarning = show_warning
        prepare_streams()
        try:
            try:
                _run()
            finally:
                flush_output()
        except SotglpError as error:
            if debug or is_ending():
                raise
            complain(f"error: {error}")
            sys.exit(2)
        except OSError as error:
            failure = stream_error(error)
            if debug or failure is None or is_ending():
                raise
            if str(failure):
                complain(f"error: {failure}")
            sys.exit(2 if str(failure) else UNREAD)


def _run() -> None:
    if find_spec("typer") is None:
        from sotglp.cli.bare import run

        run(sys.argv[1:])
    else:
        from sotglp.cli.commands import app

        app(prog_name="sotglp")
