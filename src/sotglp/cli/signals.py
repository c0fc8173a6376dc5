"""Ctrl-C and SIGTERM end a command with one line and the exit code by the convention of shells."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from sotglp.console.parent import exit_with_parent
from sotglp.console.streams import complain

INTERRUPTED, TERMINATED = (128 + number for number in (signal.SIGINT, signal.SIGTERM))
"""Exit codes."""

LAUNCHER = "SOTGLP_LAUNCHER"
"""Environment variable with the id of the process that started this one for a share of its work."""

_CONTINUED_BY = {"fit": "repeat the command with --resume to continue", "benchmark": "repeat the command to continue"}
"""How commands that keep what they have done are continued."""


class _Received:
    """The last signal that asked this process to end, if any."""

    number: signal.Signals | None = None


@contextmanager
def signals_end_command() -> Iterator[None]:
    """End a command that receives SIGINT or SIGTERM by its line and exit code, whatever exception arises from it."""
    _Received.number = None
    parent = os.environ.get(LAUNCHER)
    if parent:
        exit_with_parent(int(parent))
    signal.signal(signal.SIGTERM, _terminate)
    # Programs in the background of a shell ignore it, and keep doing so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    except BaseException as error:
        # Libraries turn an interrupt of their import into other errors; torch's launcher handles signals itself.
        code = error.code if isinstance(error, SystemExit) else 1
        if _Received.number is not None:
            # Nothing is left to clean up: one more signal ends the process at once.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            code = code and 128 + _Received.number
        if code not in (INTERRUPTED, TERMINATED):
            raise
        # The processes of a run leave the line to the one that started them.
        if not parent:
            complain(_line(sys.argv[1:]))
        raise SystemExit(code) from None
    finally:
        # A signal while the interpreter shuts down ends it without a traceback.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        # Later, since whoever called this function in a process of their own keeps their Ctrl-C.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_DFL)


def is_ending() -> bool:
    """Whether a signal has asked this process to end, so that errors are probably its consequences."""
    return _Received.number is not None


def _line(arguments: list[str]) -> str:
    command = next((argument for argument in arguments if not argument.startswith("-")), "")
    continued = _CONTINUED_BY.get(command)
    if command == "predict" and any(argument.partition("=")[0] == "--out" for argument in arguments):
        continued = _CONTINUED_BY["benchmark"]
    return "; ".join(["interrupted", *filter(None, [continued])])


def _interrupt(number: int, frame: FrameType | None) -> None:
    _Received.number = signal.SIGINT
    raise KeyboardInterrupt


def _terminate(*_: object) -> None:
    # A launcher may send the signal more than once; a second one must not interrupt the cleaning up.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _Received.number = signal.SIGTERM
    # An exception, unlike the signal's default, removes temporary files.
    sys.exit(TERMINATED)
