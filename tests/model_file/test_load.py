from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import safetensors.torch
import torch
from PIL import Image
from safetensors import safe_open

from sotglp import SOTGLP, Backbone, SotglpError
from sotglp.methods.base import Outputs
from sotglp.methods.method import METHODS
from sotglp.methods.registry import build_model
from sotglp.model_file.load import load_model
from sotglp.model_file.record import read_record
from sotglp.model_file.save import save_model
from sotglp.settings import Preset, TrainConfig
from support.model_files import rewrite, with_entries
from support.prompt_models import stir
from support.samples import tiny_clip

NAMES = ["cat", "golden_retriever"]
SMALL = "ViT-S-32-alt"


def assert_same_outputs(found: Outputs, expected: Outputs) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours is None) == (theirs is None)
        assert ours is None or torch.equal(ours, theirs)


@pytest.fixture
def model(tiny_backbone: Backbone) -> SOTGLP:
    model = SOTGLP(tiny_backbone, NAMES, n_local_prompts=2, top_k=5)
    stir(model.global_prompts, model.local_prompts, model.local_projection, by=0.01)
    return model


def test_a_model_comes_back(tiny_backbone: Backbone, tmp_path: Path) -> None:
    model = SOTGLP(tiny_backbone, ["3", "7"], n_local_prompts=2, top_k=5, seed=9)
    path = tmp_path / "m.safetensors"
    history = [{"epoch": 1, "loss": 0.5, "accuracy": 0.25, "learning_rate": 0.1}]
    save_model(path, model, classes=[3, 7], training=TrainConfig(epochs=1), history=history)
    loaded, record, _ = load_model(path, backbone=model.backbone)
    images = torch.randn(3, 3, 32, 32)
    assert torch.equal(loaded(images).local_logits, model(images).local_logits)
    assert loaded.config == model.config
    assert (record.classes, record.training, record.history) == ([3, 7], TrainConfig(epochs=1), history)
    assert loaded.class_names == ("3", "7")
    assert record.versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert read_record(path) == record
    with pytest.raises(SotglpError, match="was trained on other weights of CLIP"):
        load_model(path, backbone=Backbone.from_open_clip(tiny_clip(seed=1)))
    three = with_entries(path, tmp_path / "three", classes=["a", "b", "c"])
    with pytest.raises(SotglpError, match="local_prompts is missing or has another shape"):
        load_model(three, backbone=tiny_backbone)


@pytest.mark.parametrize("pretrained", ["none", "auto"])
def test_backbone_inside(tmp_path: Path, pretrained: str) -> None:
    backbone = Backbone.load("tiny", pretrained)
    model = SOTGLP(backbone, NAMES, top_k=2)
    with torch.no_grad():
        backbone.clip.ln_final.bias += 1  # type: ignore[union-attr, operator]
    save_model(tmp_path / "whole", model, include_backbone=True)
    save_model(tmp_path / "lean", model)
    loaded = load_model(tmp_path / "whole").model
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(loaded(images).global_logits, model(images).global_logits)
    with pytest.raises(SotglpError, match="other weights of tiny"):
        load_model(tmp_path / "lean")


@pytest.mark.parametrize("include_backbone", [False, True])
@pytest.mark.parametrize(
    ("how", "known"),
    [
        ({}, ("embedded", None)),
        ({"pretrained": "none", "seed": 5}, (None, 5)),
        ({"pretrained": "none", "seed": 5, "quick_gelu": True}, (None, 5)),
        ({"pretrained": "none", "seed": 5, "patch_attention": "ordinary"}, (None, 5)),
        ({"image_size": 96}, ("embedded", None)),
    ],
    ids=str,
)
def test_the_embedded_model_is_found_again(
    tmp_path: Path, how: dict[str, Any], known: tuple[str | None, int | None], include_backbone: bool
) -> None:
    backbone = Backbone.load("tiny", **how)
    model = SOTGLP(backbone, NAMES, n_local_prompts=2, top_k=5, seed=9)
    path = tmp_path / "m.safetensors"
    save_model(path, model, include_backbone=include_backbone)
    loaded, record, _ = load_model(path)
    assert record.backbone["name"] == loaded.backbone.name == "tiny"
    assert (record.backbone["pretrained"], record.backbone["seed"]) == known
    assert (loaded.backbone.pretrained, loaded.backbone.seed) == known
    assert loaded.backbone.fingerprint == backbone.fingerprint
    assert record.backbone["patch_attention"] == loaded.backbone.patch_attention == backbone.patch_attention
    images = torch.randn(3, 3, *backbone.image_size)
    assert_same_outputs(loaded(images), model(images))
    assert torch.equal(loaded.predict_proba(images), model.predict_proba(images))


@pytest.fixture
def quick_tag(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A tag of ViT-S-32-alt whose weights were trained with QuickGELU and preprocessing of its own."""
    weights = tmp_path / "downloaded.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        safetensors.torch.save_file(open_clip.create_model(SMALL).state_dict(), weights)
    trained_with = {
        "url": "https://example.org/downloaded.safetensors",
        "quick_gelu": True,
        "mean": (0.5, 0.25, 0.125),
        "std": (0.5, 0.4, 0.3),
        "interpolation": "bilinear",
        "resize_mode": "squash",
    }
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, SMALL, {"quick": trained_with})
    monkeypatch.setattr(open_clip.factory, "download_pretrained", lambda *_, **__: str(weights))
    return "quick"


def test_activation_and_preprocessing_come_back(quick_tag: str, tmp_path: Path) -> None:
    backbone = Backbone.load(SMALL, quick_tag, image_size=64)
    model = SOTGLP(backbone, NAMES, top_k=2)
    save_model(tmp_path / "whole", model, include_backbone=True)
    loaded = load_model(tmp_path / "whole").model
    images = torch.randn(2, 3, 64, 64)
    for found, expected in zip(loaded.backbone.encode_image(images), backbone.encode_image(images), strict=True):
        assert torch.equal(found, expected)
    assert torch.equal(loaded(images).global_logits, model(images).global_logits)
    picture = Image.effect_noise((90, 70), 60).convert("RGB")
    assert torch.equal(loaded.backbone.preprocess(picture), backbone.preprocess(picture))
    assert loaded.backbone.normalisation == ((0.5, 0.25, 0.125), (0.5, 0.4, 0.3))
    assert loaded.backbone.preprocess_settings == backbone.preprocess_settings
    assert (loaded.backbone.name, loaded.backbone.pretrained) == (SMALL, quick_tag)

    # A local weight file gets the activation that the model was trained with.
    save_model(tmp_path / "lean", model)
    safetensors.torch.save_file(backbone.clip.state_dict(), tmp_path / "local.safetensors")
    local = str(tmp_path / "local.safetensors")
    loaded = load_model(tmp_path / "lean", pretrained=local).model
    assert torch.equal(loaded(images).global_logits, model(images).global_logits)
    with pytest.raises(SotglpError, match="with QuickGELU, and the backbone given has GELU"):
        load_model(tmp_path / "lean", backbone=Backbone.load(SMALL, local, image_size=64))


def test_a_file_without_details_of_the_backbone_means_the_names_own_and_values(tmp_path: Path) -> None:
    backbone = Backbone.load("tiny", "none", seed=5)
    model = SOTGLP(backbone, NAMES, top_k=2)
    save_model(tmp_path / "new", model, include_backbone=True)
    older = read_record(tmp_path / "new").backbone
    del older["quick_gelu"], older["preprocess"], older["patch_attention"]
    path = with_entries(tmp_path / "new", tmp_path / "old", backbone=older)
    loaded, record, _ = load_model(path)
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(loaded(images).global_logits, model(images).global_logits)
    assert loaded.backbone.preprocess_settings == backbone.preprocess_settings
    assert (loaded.backbone.seed, loaded.backbone.patch_attention) == (5, "value")
    assert record.backbone == older
    ordinary = Backbone.load("tiny", "none", seed=5, patch_attention="ordinary")
    with pytest.raises(SotglpError, match="trained on value patch tokens"):
        load_model(path, backbone=ordinary)
    save_model(tmp_path / "ordinary", SOTGLP(ordinary, NAMES, top_k=2))
    with pytest.raises(SotglpError, match=r"trained on ordinary patch tokens of .* given has value ones"):
        load_model(tmp_path / "ordinary", backbone=backbone)


KEPT = {
    "zero-shot": set(),
    "zero-shot-ensemble": set(),
    "linear-probe": {"weights", "intercepts"},
    "tip-adapter": {"keys", "key_classes"},
    "tip-adapter-f": {"keys", "key_classes"},
    "clip-adapter": {"down", "up"},
    "gda": {"weights", "intercepts", "fusion_weight"},
    "proker": {"keys", "coefficients", "kernel_sharpness"},
    "pool": {"keys", "coefficients", "kernel_sharpness", "weights", "intercepts", "text_weight"},
    "lp++": {"prototypes", "multipliers"},
    "task-res": {"residuals"},
    "clap": {"prototypes", "multipliers"},
    "clip-lora": {"image_down", "image_up", "text_down", "text_up"},
    "coop": {"global_prompts"},
    "locoop": {"global_prompts"},
    "plot": {"global_prompts", "local_prompts"},
    "gallop": {"global_prompts", "local_prompts", "local_projection"},
    "sot-glp": {"global_prompts", "local_prompts", "local_projection"},
    "sot-glp-projection-free": {"global_prompts", "local_prompts"},
    # Without a fit there is no residual.
    "sot-glp-gda": {"global_prompts", "local_prompts", "local_projection"},
    "sot-glp-proker": {"global_prompts", "local_prompts", "local_projection"},
    "sot-glp-pool": {"global_prompts", "local_prompts", "local_projection"},
}


@pytest.mark.parametrize("name", METHODS)
def test_every_methods_model_comes_back(tiny_backbone: Backbone, tmp_path: Path, name: str) -> None:
    settings = METHODS[name].settings_on(Preset(zero_shot_template="{} texture."), {})[0]
    model, generator = build_model(tiny_backbone, NAMES, settings, seed=7), torch.Generator().manual_seed(0)
    if model.needs_shot_features:
        model.fit_features(torch.randn(6, 32, generator=generator), torch.tensor([0, 1, 1, 0, 1, 1]))
    with torch.no_grad():
        for parameter in model.learned:
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    path = tmp_path / "m"
    save_model(path, model)
    with safe_open(path, framework="pt") as file:
        assert set(file.keys()) == KEPT[name]
        assert json.loads(file.metadata()["sotglp"])["kind"] == METHODS[name].kind
    loaded, record, _ = load_model(path, backbone=tiny_backbone)
    assert type(loaded) is type(model)
    assert not loaded.training
    assert record.model == loaded.config == settings
    images = torch.randn(3, 3, 32, 32)
    assert_same_outputs(loaded(images), model(images))
    assert torch.equal(loaded.predict_proba(images), model.predict_proba(images))
    assert {id(own) for own in loaded.learned} == {id(getattr(loaded, part)) for part in KEPT[name]} & {
        id(own) for own in loaded.parameters() if own.requires_grad
    }
    save_model(tmp_path / "again", loaded)
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("unknown", ["kind", "variants"])
def test_an_old_file_is_the_published_model(model: SOTGLP, tmp_path: Path, unknown: str) -> None:
    save_model(tmp_path / "new", model)
    settings = model.config.model_dump(exclude={"branches", "matching"})
    changes: dict[str, Any] = {"kind": None} if unknown == "kind" else {"model": settings}
    older = with_entries(tmp_path / "new", tmp_path / "old", **changes)
    loaded, record, _ = load_model(older, backbone=model.backbone)
    assert type(loaded) is SOTGLP
    assert record.model == loaded.config == model.config
    assert torch.equal(loaded.predict_proba(images := torch.randn(2, 3, 32, 32)), model.predict_proba(images))


def test_gallop_files_with_settings_that_it_never_used_still_load(tiny_backbone: Backbone, tmp_path: Path) -> None:
    model = build_model(tiny_backbone, NAMES, METHODS["gallop"].settings_on(Preset(), {})[0])
    save_model(tmp_path / "new", model)
    unused = {"local_factor": "1", "matching": "per-prompt", "epsilon": 0.1, "relaxation": None}
    old = with_entries(tmp_path / "new", tmp_path / "old", model=model.config.model_dump() | unused)
    loaded, record, _ = load_model(old, backbone=tiny_backbone)
    assert record.model == loaded.config == model.config
    with pytest.raises(SotglpError, match="epsilon_"):
        read_record(with_entries(old, tmp_path / "bad", model=model.config.model_dump() | {"epsilon_": 1}))


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("tip-adapter", {"keys": None}, "its keys and key_classes do not fit"),
        ("tip-adapter", {"key_classes": torch.tensor([0, 1, 0, 2])}, "its keys and key_classes do not fit"),
        ("linear-probe", {"intercepts": None}, "its intercepts is missing"),
        ("gda", {"fusion_weight": None}, "its fusion_weight is missing"),
        ("proker", {"keys": torch.zeros(3, 32)}, "its keys and coefficients do not fit"),
        ("clip-adapter", {"up": torch.zeros(8, 32)}, "its up is missing or has another shape"),
        ("plot", {"local_prompts": torch.zeros(2, 4, 4, 32)}, "its local_prompts is missing or has another shape"),
    ],
    ids=str,
)
def test_a_damaged_file_of_a_peer(
    tiny_backbone: Backbone, tmp_path: Path, name: str, damage: dict[str, torch.Tensor | None], words: str
) -> None:
    model = build_model(tiny_backbone, NAMES, METHODS[name].settings_on(Preset(), {})[0])
    if model.needs_shot_features:
        model.fit_features(torch.randn(4, 32), torch.tensor([0, 1, 0, 1]))
    save_model(tmp_path / "good", model)

    def change(record: dict[str, Any], tensors: dict[str, Any]) -> None:
        (part, value), *_ = damage.items()
        tensors.pop(part)
        tensors |= {} if value is None else damage

    bad = rewrite(tmp_path / "good", tmp_path / "bad", change)
    with pytest.raises(SotglpError, match=f"bad is damaged: {words}"):
        load_model(bad, backbone=tiny_backbone)


def test_a_loaded_model_does_not_change_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_model(path, SOTGLP(Backbone.load("tiny"), NAMES, top_k=2), include_backbone=True)
    model = load_model(path).model
    images = torch.randn(1, 3, 64, 64)
    before = model(images).local_logits
    # In place, as `cp` writes: a mapped file would change with it, and end the process once it is shorter.
    with path.open("rb+") as file:
        file.write(b"\x7f" * path.stat().st_size)
    assert torch.equal(model(images).local_logits, before)
    path.write_bytes(b"short")
    assert torch.equal(model(images).local_logits, before)


def test_weights_named_by_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = Backbone.load("tiny").clip
    fitted, elsewhere = tmp_path / "fitted", tmp_path / "elsewhere"
    for folder in (fitted, elsewhere):
        folder.mkdir()
    monkeypatch.chdir(fitted)
    safetensors.torch.save_file({key: value.contiguous() for key, value in clip.state_dict().items()}, "w.safetensors")
    save_model(Path("m"), SOTGLP(Backbone.load("tiny", "w.safetensors"), NAMES, n_local_prompts=2, top_k=5))
    monkeypatch.chdir(elsewhere)
    given = load_model(fitted / "m", pretrained="../fitted/w.safetensors").model
    assert load_model(Path("../fitted/m")).model.backbone.fingerprint == given.backbone.fingerprint
    (fitted / "w.safetensors").rename(elsewhere / "moved.safetensors")
    with pytest.raises(SotglpError, match=r"m names the weights w.safetensors of tiny, which .*--pretrained"):
        load_model(Path("../fitted/m"))
