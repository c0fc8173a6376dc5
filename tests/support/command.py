"""The command line, as a process and in this process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sotglp.cli import main


def sotglp(*arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sotglp", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if check:
        assert done.returncode == 0, done.stderr
    return done


def fails(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> str:
    """Run in this process; a user's mistake is one line on standard error, code 2, and nothing on standard output."""
    monkeypatch.setattr(sys, "argv", ["sotglp", *map(str, arguments)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main()
    printed = capsys.readouterr()
    assert stop.value.code == 2, printed.err
    assert printed.out == ""
    lines = [line for line in printed.err.splitlines() if not line.startswith("sotglp: warning: ")]
    assert len(lines) == 1
    assert lines[0].startswith("sotglp: error: ")
    return lines[0]
