from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.transformer import QuickGELU
from safetensors.torch import load_file, save_file

from sotglp import SotglpError
from sotglp.backbone.conversion import convert
from sotglp.backbone.weight_files import load_weights
from sotglp.errors import SotglpWarning
from support.samples import tiny_clip
from support.towers import small_timm_vit
from support.weight_files import FORMS, prefixed, write_torchscript


def state_of(clip: Any) -> dict[str, torch.Tensor]:
    return {key: value.detach().clone() for key, value in clip.state_dict().items()}


def another(clip: Any) -> Any:
    """The same model with other weights."""
    with torch.no_grad():
        for value in clip.parameters():
            value.add_(1)
    return clip


def assert_same(clip: Any, state: dict[str, torch.Tensor]) -> None:
    assert all(torch.equal(value, state[key]) for key, value in clip.state_dict().items())


@pytest.mark.parametrize("form", FORMS)
def test_forms_that_people_have_load_to_the_same_weights(tmp_path: Path, form: str) -> None:
    clip = tiny_clip()
    state = state_of(clip)
    suffix, write = FORMS[form]
    path = tmp_path / f"weights.{suffix}"
    write(state, path)
    load_weights(another(clip), "tiny", path)
    assert_same(clip, state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_converted(tmp_path: Path, dtype: torch.dtype) -> None:
    clip = tiny_clip()
    state = {key: value.to(dtype) for key, value in state_of(clip).items()}
    save_file(state, tmp_path / "half.safetensors")
    load_weights(another(clip), "tiny", tmp_path / "half.safetensors")
    assert_same(clip, {key: value.float() for key, value in state.items()})


def test_tensors_outside_the_model_are_reported(tmp_path: Path) -> None:
    clip = tiny_clip()
    state = state_of(clip)
    save_file({**prefixed(state, "net."), "loss.margin": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.warns(SotglpWarning, match=r"1 tensors .* left out: loss\.margin"):
        load_weights(another(clip), "tiny", tmp_path / "w.safetensors")
    assert_same(clip, state)


def test_several_models_in_one_file_are_refused(tmp_path: Path) -> None:
    state = {"student.logit_scale": torch.zeros(()), "ema.logit_scale": torch.zeros(())}
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(SotglpError, match=r"several models \(ema, student\)"):
        load_weights(tiny_clip(), "tiny", tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "Git-LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"\n<html>", "web page"),
        (b"", "empty"),
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".ckpt"])
def test_files_in_the_place_of_weights_are_named(tmp_path: Path, content: bytes, words: str, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(SotglpError, match=words):
        load_weights(tiny_clip(), "tiny", path)


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_a_truncated_file_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights.{suffix}"
    state = state_of(tiny_clip())
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(SotglpError, match="ends too early"):
        load_weights(tiny_clip(), "tiny", path)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    state = state_of(tiny_clip())
    del state["ln_final.bias"]
    state["ln_final.weight"] = torch.zeros(3)
    state["more"] = torch.zeros(3)
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(SotglpError, match=r"has shape \(3,\).*lacks ln_final.bias.*1 others, such as more"):
        load_weights(tiny_clip(), "tiny", tmp_path / "w.safetensors")


def test_positions_of_a_timm_trunk_are_resized(tmp_path: Path) -> None:
    clip = small_timm_vit("EVA02")
    save_file(state_of(clip), tmp_path / "w.safetensors")
    larger: Any = small_timm_vit("EVA02", img_size=96)
    load_weights(larger, "EVA02", tmp_path / "w.safetensors")
    found, expected = larger.visual.trunk.pos_embed, clip.visual.trunk.pos_embed
    assert found.shape == (1, 1 + 36, 48)
    assert torch.equal(found[:, 0], expected[:, 0])
    assert torch.equal(larger.visual.trunk.norm.weight, clip.visual.trunk.norm.weight)


def test_a_torchscript_archive_is_converted_without_running_it(tmp_path: Path) -> None:
    clip = tiny_clip()
    state = state_of(clip)
    write_torchscript({key: value.half() for key, value in state.items()}, tmp_path / "ViT.pt")
    with pytest.raises(SotglpError, match=r"TorchScript.*convert-weights"):
        load_weights(clip, "tiny", tmp_path / "ViT.pt")
    n_tensors, dtypes = convert(tmp_path / "ViT.pt", tmp_path / "out.safetensors", force=False)
    assert (n_tensors, dtypes) == (len(state), ["float16"])
    load_weights(another(clip), "tiny", tmp_path / "out.safetensors")
    assert_same(clip, {key: value.half().float() for key, value in state.items()})
    with pytest.raises(SotglpError, match="exists"):
        convert(tmp_path / "ViT.pt", tmp_path / "out.safetensors", force=False)


def test_a_checkpoint_with_settings_of_a_trainer_is_converted(tmp_path: Path) -> None:
    clip = tiny_clip()
    state = state_of(clip)
    content = {"state_dict": prefixed(state, "model."), "settings": Path("x"), "optimizer": {"state": {0: state}}}
    torch.save(content, tmp_path / "last.ckpt")
    with pytest.raises(SotglpError, match="convert-weights"):
        load_weights(clip, "tiny", tmp_path / "last.ckpt")
    convert(tmp_path / "last.ckpt", tmp_path / "out.safetensors", force=False)
    assert set(load_file(tmp_path / "out.safetensors")) == set(state)
    load_weights(another(clip), "tiny", tmp_path / "out.safetensors")
    assert_same(clip, state)


def test_an_activation_that_the_configuration_beside_the_weights_denies_is_reported(tmp_path: Path) -> None:
    clip = tiny_clip()
    save_file(state_of(clip), tmp_path / "w.safetensors")
    has_quick = any(isinstance(module, QuickGELU) for module in clip.modules())
    for act, is_right in (("quick_gelu", has_quick), ("gelu", not has_quick)):
        towers = {"text_config": {"hidden_act": act}, "vision_config": {"hidden_act": act}}
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip", **towers}))
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            load_weights(clip, "tiny", tmp_path / "w.safetensors")
        assert any("config.json asks for" in str(one.message) for one in seen) != is_right


def text_and_images(vocabulary: int, length: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, vocabulary - 1, (2, length), generator=generator)
    tokens[:, -1] = vocabulary - 1
    return tokens, torch.randn(2, 3, size, size, generator=generator)


@torch.no_grad()
def test_clip_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    text = {"hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 1, "num_hidden_layers": 2}
    vision = {**text, "image_size": 32, "patch_size": 16}
    limits = {"vocab_size": 99, "max_position_embeddings": 12, "eos_token_id": 98}
    config = transformers.CLIPConfig(text_config={**text, **limits}, vision_config=vision, projection_dim=24)
    torch.manual_seed(0)
    source = transformers.CLIPModel(config).eval()
    for value in source.parameters():
        torch.nn.init.normal_(value, std=0.1)
    source.save_pretrained(tmp_path)
    clip = open_clip.CLIP(
        24,
        {"image_size": 32, "patch_size": 16, "width": 64, "layers": 2},
        {"width": 64, "heads": 1, "layers": 2, "vocab_size": 99, "context_length": 12},
        quick_gelu=True,
    ).eval()
    load_weights(clip, "small", tmp_path / "model.safetensors")
    tokens, images = text_and_images(99, 12, 32)
    found = source(input_ids=tokens, pixel_values=images)
    torch.testing.assert_close(clip.encode_text(tokens, normalize=True), found.text_embeds, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(clip.encode_image(images, normalize=True), found.image_embeds, rtol=1e-4, atol=1e-5)
    torch.save(source.state_dict(), tmp_path / "pytorch_model.bin")
    state = state_of(clip)
    load_weights(another(clip), "small", tmp_path / "pytorch_model.bin")
    assert_same(clip, state)


@torch.no_grad()
def test_siglip_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    shared = {"hidden_size": 48, "intermediate_size": 192, "num_attention_heads": 3, "num_hidden_layers": 2}
    text = {**shared, "vocab_size": 40, "max_position_embeddings": 14, "hidden_act": "gelu"}
    vision = {**shared, "image_size": 64, "patch_size": 16, "hidden_act": "gelu"}
    torch.manual_seed(0)
    source = transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=vision)).eval()
    for value in source.parameters():
        torch.nn.init.normal_(value, std=0.1)
    source.save_pretrained(tmp_path)
    settings = {"width": 48, "heads": 3, "layers": 2, "vocab_size": 40, "context_length": 14, "no_causal_mask": True}
    settings |= {"proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6}}
    clip: Any = small_timm_vit("SigLIP", settings)
    load_weights(clip, "small", tmp_path / "model.safetensors")
    tokens, images = text_and_images(40, 14, 64)
    found = source(input_ids=tokens, pixel_values=images)
    torch.testing.assert_close(clip.encode_text(tokens, normalize=True), found.text_embeds, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(clip.encode_image(images, normalize=True), found.image_embeds, rtol=1e-4, atol=1e-5)
