from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sotglp import SOTGLP, Backbone, SotglpError
from sotglp.backbone.sources import CONFIG_FILE, canonical_name, source_weights
from sotglp.model_file.load import load_model
from sotglp.model_file.save import save_model
from support.hub_cache import cached_file

CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 64, "layers": 1, "head_width": 32},
        "text_cfg": {"width": 32, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "resize_mode": "squash"},
}


def write_folder(folder: Path) -> Path:
    """A folder as open_clip saves a model, with random weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).write_text(json.dumps(CONFIG))
    random = Backbone.load(str(folder), "none", seed=5)
    save_file(
        {key: value.contiguous() for key, value in random.clip.state_dict().items()}, folder / "model.safetensors"
    )
    return folder


def test_a_folder_is_a_backbone_by_path_and_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_folder(tmp_path / "some" / "model")
    expected = Backbone.load(str(folder), "none", seed=5).fingerprint
    monkeypatch.chdir(tmp_path)
    for name in (str(folder), f"local-dir:{folder}", "some/model", "local-dir:some/model"):
        backbone = Backbone.load(name)
        assert (backbone.name, backbone.pretrained) == (f"local-dir:{folder}", "folder")
        assert backbone.fingerprint == expected
    assert backbone.normalisation == ((0.5,) * 3, (0.25,) * 3)
    assert Backbone.load(str(folder), "none", seed=6).fingerprint != expected
    assert Backbone.load(str(folder), folder / "model.safetensors").fingerprint == expected
    assert Backbone.load(str(folder), image_size=48).patch_grid == (3, 3)


def test_a_repository_in_the_cache_is_a_backbone_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder = write_folder(tmp_path / "model")
    for file in (CONFIG_FILE, "model.safetensors"):
        cached_file(tmp_path / "hub", "owner/name", file, (folder / file).read_bytes())
    backbone = Backbone.load("hf-hub:owner/name")
    assert (backbone.name, backbone.pretrained) == ("hf-hub:owner/name", "folder")
    assert backbone.fingerprint == Backbone.load(str(folder)).fingerprint
    with pytest.raises(SotglpError, match=r"owner/other isn't in .*hf download owner/other"):
        Backbone.load("hf-hub:owner/other")
    with pytest.raises(SotglpError, match="no name of a repository"):
        Backbone.load("hf-hub:a/b/c")


def test_a_model_file_finds_its_folder_again(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model")
    model = SOTGLP(Backbone.load(str(folder)), ["cat", "dog"], top_k=2)
    save_model(tmp_path / "m.safetensors", model)
    save_model(tmp_path / "whole.safetensors", model, include_backbone=True)
    images = torch.zeros(1, 3, 32, 32)
    expected = model.eval().predict_proba(images)
    for file in ("m.safetensors", "whole.safetensors"):
        assert torch.equal(load_model(tmp_path / file).model.predict_proba(images), expected)
    folder.rename(tmp_path / "moved")
    with pytest.raises(SotglpError, match=r"m.safetensors names the backbone local-dir:.*--pretrained DIR"):
        load_model(tmp_path / "m.safetensors")
    moved = load_model(tmp_path / "m.safetensors", pretrained=str(tmp_path / "moved"))
    assert torch.equal(moved.model.predict_proba(images), expected)


def test_a_text_encoder_with_code_of_its_own_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setattr("builtins.input", lambda _: "y")  # what transformers asks before it runs code
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: ...\n")
    own = {"model_type": "own", "auto_map": {"AutoConfig": "code.Config"}}
    (tmp_path / "encoder" / "config.json").write_text(json.dumps(own))
    text = {"hf_model_name": str(tmp_path / "encoder"), "hf_tokenizer_name": "none"}
    model = {**CONFIG["model_cfg"], "text_cfg": text}
    (tmp_path / CONFIG_FILE).write_text(json.dumps({**CONFIG, "model_cfg": model}))
    with pytest.raises(SotglpError, match="code of its own, which isn't run"):
        Backbone.load(str(tmp_path), "none")
    assert not (tmp_path / "ran").exists()


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(SotglpError, match=f"has no {CONFIG_FILE}"):
        Backbone.load(f"local-dir:{tmp_path}")
    (tmp_path / CONFIG_FILE).write_text("{}")
    with pytest.raises(SotglpError, match="can't be read as a configuration"):
        Backbone.load(str(tmp_path))
    (tmp_path / CONFIG_FILE).write_text(json.dumps(CONFIG))
    with pytest.raises(SotglpError, match="no weight file"):
        Backbone.load(str(tmp_path))
    for file in ("a.pt", "b.pt"):
        (tmp_path / file).touch()
    with pytest.raises(SotglpError, match=r"several weight files \(a.pt, b.pt\)"):
        source_weights(f"local-dir:{tmp_path}")
    assert canonical_name("ViT-B/16") == "ViT-B-16"
