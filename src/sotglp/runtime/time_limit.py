"""Calls of a native library that Ctrl-C and a time limit end for the caller, although the library can't be stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

_GRACE_SECONDS = 1.0

ResultT = TypeVar("ResultT")


class TookTooLongError(Exception):
    """A call did not end in time."""


def call_within(seconds: float, call: Callable[[], ResultT], stop: Callable[[], object] | None = None) -> ResultT:
    """Return what a call returns, or raise what it raises; it runs in another thread.

    If it takes more than ``seconds``, or the waiting is interrupted, ``stop`` asks it to end; whether it does or not, a
    TookTooLongError or the KeyboardInterrupt is raised soon.
    """
    results: list[ResultT] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    # A daemon, so that the interpreter doesn't wait for it at its end.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        thread.join(seconds)
        if thread.is_alive():
            raise TookTooLongError
    except BaseException:
        if stop is not None:
            stop()
        thread.join(_GRACE_SECONDS)
        raise
    if errors:
        raise errors[0]
    return results[0]
