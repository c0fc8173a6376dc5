from __future__ import annotations

import sys

import pytest

from sotglp.console.progress import note_loading


def test_a_terminal_shows_what_is_loaded(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    note_loading("absent", "Absent")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    note_loading("absent", "Absent")
    assert capsys.readouterr().err == "sotglp: loading Absent\n"
    note_loading("sys", "loaded already")
    monkeypatch.setenv("RANK", "1")
    note_loading("absent", "Absent")
    assert capsys.readouterr().err == ""
