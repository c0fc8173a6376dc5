from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from sotglp import SOTGLP, Backbone, SotglpError
from sotglp.model_file.load import load_model
from sotglp.model_file.record import read_record
from sotglp.model_file.save import save_model
from support.samples import tiny_clip

NAMES = ["cat", "golden_retriever"]


@pytest.fixture
def model(tiny_backbone: Backbone) -> SOTGLP:
    return SOTGLP(tiny_backbone, NAMES, n_local_prompts=2, top_k=5)


def test_the_file_is_small_plain_safetensors_and_the_same_each_time(model: SOTGLP, tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_model(tmp_path / name, model)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with safe_open(tmp_path / "a", framework="pt") as file:
        assert set(file.keys()) == {"global_prompts", "local_prompts", "local_projection"}
        assert json.loads(file.metadata()["sotglp"])["format_version"] == 2


def test_a_backbone_given_by_hand_is_not_put_in(model: SOTGLP, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    with pytest.raises(SotglpError, match=r"the backbone CLIP can't be stored in.*leave include_backbone off"):
        save_model(path, model, include_backbone=True)
    assert not path.exists()
    save_model(path, model)
    with pytest.raises(SotglpError, match=r"trained on the backbone CLIP, which.*give it with backbone="):
        load_model(path)
    # Nor is a preprocessing of one's own.
    backbone = Backbone.from_open_clip(tiny_clip(), preprocess=lambda _: torch.ones(3, 32, 32))
    save_model(tmp_path / "own", SOTGLP(backbone, NAMES, top_k=5))
    assert read_record(tmp_path / "own").backbone["preprocess"] is None


def test_existing_file_is_kept(model: SOTGLP, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_text("precious")
    with pytest.raises(SotglpError, match="exists"):
        save_model(path, model)
    assert path.read_text() == "precious"
    save_model(path, model, force=True)
    assert read_record(path).classes == NAMES
