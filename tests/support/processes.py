"""Commands as processes that receive signals, and the processes that they leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_MARK = "SOTGLP_TEST_RUN"

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/cmdline").exists(), reason="there is no /proc to find processes in"
)


class Started:
    """A process, and all that it has started, which are found by a variable of their environment."""

    def __init__(self, process: subprocess.Popen[str], mark: str) -> None:
        self.process = process
        self._mark = f"{_MARK}={mark}".encode()

    def alive(self) -> list[int]:
        """Ids of the processes that have not ended."""
        found = []
        for about in Path("/proc").glob("[0-9]*"):
            try:
                is_own = self._mark in about.joinpath("environ").read_bytes().split(b"\0")
                state = about.joinpath("stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if is_own and state != "Z":
                found.append(int(about.name))
        return found

    def all_end(self) -> bool:
        """Whether all processes end by themselves."""
        deadline = time.monotonic() + 60
        while self.alive() and time.monotonic() < deadline:
            time.sleep(0.1)
        return not self.alive()


@contextmanager
def started(*arguments: object, mark: object) -> Iterator[Started]:
    """Start Python with some arguments, which ``mark`` distinguishes from others; end what is left of it at exit."""
    process = subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, _MARK: str(mark)},
        preexec_fn=hear_interrupts,
    )
    own = Started(process, str(mark))
    try:
        yield own
    finally:
        for left in own.alive():
            os.kill(left, signal.SIGKILL)
        process.communicate()


def hear_interrupts() -> None:
    """Undo what a shell does to commands in the background, where these tests may run: they ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.01)
