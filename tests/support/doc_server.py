"""`sotglp serve` as a page of docs starts it, for the commands that ask it."""

from __future__ import annotations

import contextlib
import shlex
import socket
import subprocess
import sys
import time
import urllib.request

SERVED_AT = "127.0.0.1:8000"
"""Where pages say that it answers."""


class Server:
    """A server on a free port, until the page ends."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._address = SERVED_AT

    def start(self, command: str) -> None:
        """Start it as the page does, and wait until it answers."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._address = f"127.0.0.1:{free.getsockname()[1]}"
        words = shlex.split(command, comments=True)[1:]
        port = self._address.split(":")[1]
        self._process = subprocess.Popen([sys.executable, "-m", "sotglp", *words, "--port", port])
        for _ in range(600):
            assert self._process.poll() is None, f"{command}: exit code {self._process.returncode}"
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{self._address}/model"):
                return
            time.sleep(0.2)
        raise AssertionError(f"{command}: no answer within two minutes")

    def asked(self, command: str) -> str:
        """The command with the port that it really has; curl ends with a code other than 0 at an error."""
        asked = command.split(" #")[0].replace(SERVED_AT, self._address)
        return f"{asked} -sS --fail-with-body" if asked.startswith("curl ") else command

    def stop(self) -> None:
        """End it, if it was started."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=60)
