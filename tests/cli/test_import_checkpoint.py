from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sotglp import Backbone
from sotglp.model_file.load import load_model
from support.command import run_here
from support.published import write_checkpoint


def test_a_checkpoint_becomes_a_model_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    width = Backbone.load("tiny").text.width
    numbers = {"global_prompt": torch.randn(2, 4, width), "local_prompts": torch.randn(3, 5, 4, width)}
    checkpoint = write_checkpoint(tmp_path / "run.ckpt", numbers)
    (tmp_path / "names.txt").write_text("\ufeffwhite cat\nblack cat\n\ndog\n", encoding="utf-8")
    out = tmp_path / "m.safetensors"
    command = (checkpoint, "--backbone", "tiny", "--out", out, "--classes", tmp_path / "names.txt")
    printed, _ = run_here(capsys, monkeypatch, "import-checkpoint", *command, "--json", "-")
    assert json.loads(printed)["classes"] == ["white cat", "black cat", "dog"]
    loaded = load_model(out)
    assert loaded.record.classes == ["white cat", "black cat", "dog"]
    assert torch.equal(loaded.model.get_parameter("local_prompts"), numbers["local_prompts"])
    run_here(capsys, monkeypatch, "import-checkpoint", *command, code=2)
    run_here(capsys, monkeypatch, "import-checkpoint", *command, "--force", "--top-k", "1000", code=2)
    (tmp_path / "names.txt").write_text("\n")
    run_here(capsys, monkeypatch, "import-checkpoint", *command, "--force", code=2)
    run_here(capsys, monkeypatch, "import-checkpoint", *command[:-1], tmp_path / "absent.txt", "--force", code=2)
