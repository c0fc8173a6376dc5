from __future__ import annotations

import sys

import pytest

from sotglp.console.progress import listening, note_loading, progress_bar


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


def test_a_listener_hears_bars_that_are_not_shown_and_can_stop_the_work() -> None:
    heard: list[tuple[str, int, int]] = []

    def listen(title: str, done: int, total: int) -> None:
        heard.append((title, done, total))
        if done > 2:
            raise KeyError("stopped")

    with listening(listen), progress_bar("training", 5, "steps", show=False) as advance:
        advance(2, "loss 1")
        with pytest.raises(KeyError, match="stopped"):
            advance(1, "")
    with progress_bar("training", 5, "steps", show=False) as advance:
        advance(1, "")
    assert heard == [("training", 0, 5), ("training", 2, 5), ("training", 3, 5)]
