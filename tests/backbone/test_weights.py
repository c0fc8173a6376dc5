from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import pytest
import safetensors.torch
import torch
from torch import nn

from sotglp import Backbone, SotglpError
from sotglp.backbone.weights import fingerprint
from sotglp.errors import SotglpWarning
from support.samples import tiny_clip

SMALL = "ViT-S-32-alt"


@pytest.fixture(scope="module")
def small() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return open_clip.create_model(SMALL)


def test_a_weight_file_for_the_embedded_model(tmp_path: Path) -> None:
    random = Backbone.load("tiny", "none", seed=3)
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(random.clip.state_dict(), path)
    backbone = Backbone.load("tiny", path)
    assert (backbone.fingerprint, backbone.pretrained) == (random.fingerprint, str(path))


def test_images_for_a_weight_file_are_normalised_as_for_the_tags_of_its_architecture(
    tmp_path: Path, small: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(small.state_dict(), path)
    published = {"webli": {"mean": (0.5,) * 3, "std": (0.5,) * 3, "resize_mode": "squash"}}
    monkeypatch.setattr(open_clip, "list_pretrained_tags_by_model", lambda name: list(published))
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda name, tag: published[tag])
    backbone = Backbone.load(SMALL, path)
    assert backbone.normalisation == ((0.5,) * 3, (0.5,) * 3)
    assert backbone.preprocess_settings is not None
    assert backbone.preprocess_settings["resize_mode"] == "squash"
    published["other"] = {"mean": (0.0,) * 3}
    with pytest.warns(SotglpWarning, match="in 2 ways"):
        assert Backbone.load(SMALL, path).normalisation[0] != (0.5,) * 3


def test_random_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = Backbone.load(SMALL, "none", seed=3)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(2)
    assert Backbone.load(SMALL, seed=3).fingerprint == first.fingerprint
    assert Backbone.load(SMALL, seed=4).fingerprint != first.fingerprint
    assert (first.pretrained, first.seed) == (None, 3)


@pytest.mark.parametrize("form", ["safetensors", "pt", "wrapped"])
def test_local_weight_files(form: str, tmp_path: Path, small: nn.Module) -> None:
    state = small.state_dict()
    if form == "safetensors":
        path = tmp_path / "weights.safetensors"
        safetensors.torch.save_file(state, path)
    else:
        path = tmp_path / "weights.pt"
        wrapped = {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}
        torch.save(state if form == "pt" else wrapped, path)
    backbone = Backbone.load(SMALL, path)
    assert backbone.fingerprint == fingerprint(small)
    assert backbone.pretrained == str(path)


def test_position_embeddings_are_resized(tmp_path: Path, small: nn.Module) -> None:
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(small.state_dict(), path)
    backbone = Backbone.load(SMALL, path, image_size=96)
    assert backbone.patch_grid == (3, 3)
    assert backbone.encode_image(torch.randn(1, 3, 96, 96))[1].shape[1] == 9


def test_weight_files_that_are_refused(tmp_path: Path) -> None:
    tiny = tmp_path / "tiny.safetensors"
    safetensors.torch.save_file(tiny_clip().state_dict(), tiny)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(tiny.read_bytes()[:1000])
    zipped = tmp_path / "cut.pt"
    zipped.write_bytes(b"PK\x03\x04 not much of an archive")
    text = tmp_path / "weights.txt"
    text.write_text("weights")
    expected = {
        tiny: "doesn't fit ViT-S-32-alt",
        cut: "can't be read",
        zipped: "can't be read .*ends too early",
        text: "must end in",
        tmp_path / "absent.pt": "neither a weight file nor a tag",
    }
    for path, words in expected.items():
        with pytest.raises(SotglpError, match=words):
            Backbone.load(SMALL, path)


@pytest.mark.parametrize(
    ("name", "tag", "words"),
    [
        ("ViT-B-32", "openia", r"did you mean openai.*its tags are"),
        ("tiny", "embeded", "did you mean embedded"),
        ("tiny", "openai", "its tags are embedded$"),
    ],
)
def test_unknown_tags_are_refused_with_near_ones(name: str, tag: str, words: str) -> None:
    with pytest.raises(SotglpError, match=words):
        Backbone.load(name, tag)


def test_weights_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr(open_clip.factory, "download_pretrained", refuse)
    with pytest.raises(SotglpError, match=r"'openai' of ViT-B-32 could not be downloaded.*--pretrained PATH"):
        Backbone.load("ViT-B-32", "openai")


@pytest.mark.parametrize(("tag", "quick"), [("openai", True), ("laion2b_s34b_b79k", False)])
def test_activation_is_the_one_that_weights_were_trained_with(
    tag: str, quick: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def create(name: str, **how: Any) -> nn.Module:
        asked.update(how)
        return tiny_clip()

    monkeypatch.setattr(open_clip, "create_model", create)
    Backbone.load("ViT-B-32", tag)
    assert asked["pretrained"] == tag
    assert asked["force_quick_gelu"] is quick


def test_fingerprint_sees_every_bit() -> None:
    clip = tiny_clip()
    before = fingerprint(clip)
    assert before == fingerprint(tiny_clip())
    with torch.no_grad():
        clip.ln_final.bias[3] = 1e-30
    assert fingerprint(clip) != before
