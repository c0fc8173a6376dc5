"""The command line: thin commands over the library."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import warnings
from importlib.util import find_spec

from sotglp.console.progress import show_warning
from sotglp.console.streams import complain, flush_output, prepare_streams, stream_error
from sotglp.errors import SotglpError

INTERRUPTED, TERMINATED = (128 + number for number in (signal.SIGINT, signal.SIGTERM))
"""Exit codes by the convention of shells."""
UNREAD = 1
"""Exit code, as of click, if whoever reads standard output is gone."""


def main() -> None:
    """Run the command line; a user's mistake ends with one sentence and exit code 2."""
    # Threads that spin while waiting make torch several times slower on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    debug = "--debug" in sys.argv
    logging.basicConfig(level=logging.INFO if debug else logging.ERROR)
    if not debug:
        warnings.showwarning = show_warning
    signal.signal(signal.SIGTERM, _terminate)
    prepare_streams()
    try:
        try:
            _run()
        finally:
            flush_output()
    except SotglpError as error:
        if debug:
            raise
        complain(f"error: {error}")
        sys.exit(2)
    except OSError as error:
        failure = stream_error(error)
        if debug or failure is None:
            raise
        if str(failure):
            complain(f"error: {failure}")
        sys.exit(2 if str(failure) else UNREAD)
    except SystemExit as end:
        # Typer turns an interrupt into the first of these codes.
        if end.code in (INTERRUPTED, TERMINATED):
            # A single write isn't interleaved with those of other processes of the run.
            complain("interrupted; resume `fit` with --resume, `benchmark` with the same command")
        raise
    finally:
        # Nothing is left to clean up: a signal while the interpreter shuts down ends it without a traceback.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        # Later, since whoever called this function in a process of their own keeps their Ctrl-C.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_DFL)


def _run() -> None:
    if find_spec("typer") is None:
        from sotglp.cli.bare import run

        run(sys.argv[1:])
    else:
        from sotglp.cli.commands import app

        app(prog_name="sotglp")


def _terminate(*_: object) -> None:
    # A launcher may send the signal more than once; a second one must not interrupt the cleaning up.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # An exception, unlike the signal's default, removes temporary files.
    sys.exit(TERMINATED)
