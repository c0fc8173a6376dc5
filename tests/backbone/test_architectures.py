from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch

from sotglp import Backbone, SotglpError
from sotglp.backbone.architectures import chosen_weights, supported_backbones
from sotglp.backbone.tokenizers import ClipTokenizer
from sotglp.errors import UnsupportedTowerError


def test_list_of_backbones_has_the_expected_families() -> None:
    names = supported_backbones()
    wanted = (
        "ViT-B-32 ViT-B-16 ViT-B-32-quickgelu ViT-L-14 ViT-L-14-336 ViT-H-14 RN50 RN101 RN50x64-quickgelu ViT-S-32-alt"
    )
    assert {"tiny", *wanted.split()} <= set(names)
    assert names == sorted(set(names))
    assert {"ViT-B-16-SigLIP2", "EVA02-B-16", "convnext_base_w", "coca_ViT-B-32", "ViT-L-14-CLIPA"} <= set(names)


def test_every_pretrained_pair_is_listed() -> None:
    assert {name for name, _ in open_clip.list_pretrained()} <= set(supported_backbones())


def is_large(vision: dict[str, Any]) -> bool:
    """Whether a tower takes seconds to build; one of its kind is smaller."""
    sizes = ("large", "giant", "gigantic", "enormous", "so400m", "giantopt")
    name, layers = vision.get("timm_model_name", ""), vision.get("layers", 12)
    return any(size in name for size in sizes) or (isinstance(layers, int) and layers > 12)


@pytest.mark.slow
def test_list_of_backbones_agrees_with_the_towers_themselves() -> None:
    listed = set(supported_backbones())
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        if config["text_cfg"].get("hf_model_name") or is_large(config["vision_cfg"]):
            continue
        with torch.device("meta"):
            model = open_clip.create_model(name, device="meta")
        try:
            has_tokenizer = bool(config["text_cfg"].get("hf_tokenizer_name"))
            Backbone.from_open_clip(model, tokenizer=ClipTokenizer() if has_tokenizer else None)
            supported = True
        except UnsupportedTowerError:
            supported = False
        assert supported == (name in listed), name


@pytest.mark.parametrize(
    ("name", "pretrained", "chosen"),
    [
        ("tiny", None, "embedded"),
        ("tiny", "auto", "embedded"),
        ("tiny", "embedded", "embedded"),
        ("tiny", "none", None),
        ("tiny", "my/weights.pt", "my/weights.pt"),
        ("ViT-B-32", "auto", "openai"),
        ("ViT-B-32", None, None),
        ("ViT-B-32", "None", None),
        ("ViT-B-32", "laion2b_s34b_b79k", "laion2b_s34b_b79k"),
        ("ViT-B-32", Path("weights.pt"), "weights.pt"),
    ],
    ids=str,
)
def test_pretrained_selects_weights(name: str, pretrained: str | Path | None, chosen: str | None) -> None:
    assert chosen_weights(name, pretrained) == chosen


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ViT-B-61", "there is no backbone 'ViT-B-61' .did you mean ViT-B-16"),
        ("swin_base_patch4_window7_224", "isn't supported"),
        ("Tiny", "there is no backbone 'Tiny' .did you mean tiny"),
    ],
)
def test_names_that_cannot_be_used(name: str, words: str) -> None:
    with pytest.raises(SotglpError, match=words):
        Backbone.load(name)
