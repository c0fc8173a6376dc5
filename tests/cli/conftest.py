"""Commands that run in this process."""

from __future__ import annotations

from functools import partial

import pytest

from support.command import Run, fails, run_here


@pytest.fixture
def error_of(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command with a mistake, and return its line on standard error."""
    return partial(fails, capsys, monkeypatch)


@pytest.fixture
def output_of(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command that exits with ``code``, and return its standard output."""

    def run(*arguments: object, code: int = 0) -> str:
        return run_here(capsys, monkeypatch, *arguments, code=code)[0]

    return run
