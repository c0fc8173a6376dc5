"""Commands that run in this process."""

from __future__ import annotations

import sys
from functools import partial

import pytest

from sotglp.cli import main
from support.command import Run, fails


@pytest.fixture
def error_of(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command with a mistake, and return its line on standard error."""
    return partial(fails, capsys, monkeypatch)


@pytest.fixture
def output_of(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command that exits with ``code``, and return its standard output."""

    def run(*arguments: object, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["sotglp", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        assert (stop.value.code or 0) == code, err
        return out

    return run
