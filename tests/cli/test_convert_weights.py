from __future__ import annotations

from pathlib import Path

import pytest

from sotglp import Backbone
from support.command import run_here
from support.weight_files import write_torchscript


def test_an_archive_is_converted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    random = Backbone.load("tiny", "none", seed=3)
    write_torchscript(random.clip.state_dict(), tmp_path / "in.pt")
    out = tmp_path / "out.safetensors"
    printed, _ = run_here(capsys, monkeypatch, "convert-weights", tmp_path / "in.pt", out)
    assert "float32" in printed
    assert Backbone.load("tiny", out).fingerprint == random.fingerprint
    run_here(capsys, monkeypatch, "convert-weights", tmp_path / "in.pt", out, code=2)
    run_here(capsys, monkeypatch, "convert-weights", tmp_path / "in.pt", out, "--force")
    run_here(capsys, monkeypatch, "convert-weights", tmp_path / "absent.pt", tmp_path / "o.safetensors", code=2)
    run_here(capsys, monkeypatch, "convert-weights", tmp_path / "in.pt", tmp_path / "o.pt", code=2)
