from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from sotglp import Backbone
from sotglp.cli import main
from sotglp.model_file.load import load_model
from support.published import write_checkpoint


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["sotglp", "import-checkpoint", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code


def test_a_checkpoint_becomes_a_model_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    width = Backbone.load("tiny").text.width
    numbers = {"global_prompt": torch.randn(2, 4, width), "local_prompts": torch.randn(3, 5, 4, width)}
    checkpoint = write_checkpoint(tmp_path / "run.ckpt", numbers)
    (tmp_path / "names.txt").write_text("\ufeffwhite cat\nblack cat\n\ndog\n", encoding="utf-8")
    out = tmp_path / "m.safetensors"
    command = (checkpoint, "--backbone", "tiny", "--out", out, "--classes", tmp_path / "names.txt")
    assert run(monkeypatch, *command, "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["classes"] == ["white cat", "black cat", "dog"]
    loaded = load_model(out)
    assert loaded.record.classes == ["white cat", "black cat", "dog"]
    assert torch.equal(loaded.model.get_parameter("local_prompts"), numbers["local_prompts"])
    assert run(monkeypatch, *command) == 2
    assert run(monkeypatch, *command, "--force", "--top-k", "1000") == 2
    (tmp_path / "names.txt").write_text("\n")
    assert run(monkeypatch, *command, "--force") == 2
    assert run(monkeypatch, *command[:-1], tmp_path / "absent.txt", "--force") == 2
