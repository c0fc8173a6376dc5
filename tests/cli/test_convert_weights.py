from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sotglp import Backbone
from sotglp.cli import main
from support.weight_files import write_torchscript


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["sotglp", "convert-weights", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code


def test_an_archive_is_converted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    random = Backbone.load("tiny", "none", seed=3)
    write_torchscript(random.clip.state_dict(), tmp_path / "in.pt")
    out = tmp_path / "out.safetensors"
    assert run(monkeypatch, tmp_path / "in.pt", out) == 0
    assert "float32" in capsys.readouterr().out
    assert Backbone.load("tiny", out).fingerprint == random.fingerprint
    assert run(monkeypatch, tmp_path / "in.pt", out) == 2
    assert run(monkeypatch, tmp_path / "in.pt", out, "--force") == 0
    assert run(monkeypatch, tmp_path / "absent.pt", tmp_path / "o.safetensors") == 2
    assert run(monkeypatch, tmp_path / "in.pt", tmp_path / "o.pt") == 2
