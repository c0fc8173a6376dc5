"""The command line, as a process and in this process."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from sotglp.cli import main

Run: TypeAlias = Callable[..., str]

QUICK_FIT = [
    *("--backbone", "tiny", "--shots", "2", "--epochs", "1", "--no-cache"),
    *("--set", "augment=false", "--set", "top_k=3"),
]


def sotglp(*arguments: object, check: bool = True, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sotglp", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=300, cwd=cwd)
    assert "--debug" in command or "Traceback" not in done.stderr
    if check:
        assert done.returncode == 0, done.stderr
    return done


def kill_when(is_ready: Callable[[], bool], *arguments: object) -> int:
    """Start a command in a session of its own, kill its first process once it is ready, and return the session."""
    command = [sys.executable, "-m", "sotglp", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 300
    while not is_ready():
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    return process.pid


def fails(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> str:
    """Run in this process; a user's mistake is one line on standard error, code 2, and nothing on standard output."""
    out, err = run_here(capsys, monkeypatch, *arguments, code=2)
    assert out == ""
    return error_line(err)


def error_line(error: str) -> str:
    """The one line on standard error that comes with exit code 2, beside warnings."""
    lines = [line for line in error.splitlines() if not line.startswith("sotglp: warning: ")]
    assert len(lines) == 1, error
    assert lines[0].startswith("sotglp: error: ")
    return lines[0]


def run_here(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object, code: int = 0
) -> tuple[str, str]:
    """Run a command in this process, without the imports of a new one; return its standard output and error."""
    monkeypatch.setattr(sys, "argv", ["sotglp", *map(str, arguments)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main()
    out, err = capsys.readouterr()
    assert (stop.value.code or 0) == code, err
    return out, err
