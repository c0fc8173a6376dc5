"""Features in fp16, as ``precision="fp16"`` computes them, beside open_clip's own in fp16."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sotglp.backbone.convolutional import ConvolutionalReader
from sotglp.backbone.precision import autocast
from sotglp.backbone.readers import make_reader
from sotglp.backbone.text import Segment
from sotglp.backbone.text_readers import make_text_reader
from support.towers import TEXT, TIMM_VITS, small_coca, small_convolutional, small_resnet, small_timm_vit, small_vit

TOWERS: dict[str, Callable[[], nn.Module]] = {
    "ViT": small_vit,
    "CLIPA": partial(small_vit, no_ln_pre=True, pool_type="avg", final_ln_after_pool=True),
    "ResNet": small_resnet,
    "CoCa": small_coca,
    "EfficientNet": small_convolutional,
    "ConvNeXt": partial(small_convolutional, name="test_convnext"),
    **{kind: partial(small_timm_vit, kind) for kind in TIMM_VITS},
}

NO_MASK = {**TEXT, "no_causal_mask": True}


def unit(features: Any) -> torch.Tensor:
    return F.normalize((features[0] if isinstance(features, tuple) else features).float(), dim=-1)


@pytest.mark.parametrize("kind", TOWERS)
@torch.no_grad()
def test_image_features_are_open_clips_own(kind: str) -> None:
    visual: Any = TOWERS[kind]().visual
    size = visual.image_size
    image = torch.randn(1, 3, *((size, size) if isinstance(size, int) else size))
    whole, _ = make_reader(visual, "value").encode(image)
    same = image
    if isinstance(make_reader(visual, "value"), ConvolutionalReader):
        # fp16 rounds by the order of sums, so the image is laid out as that reader does it.
        same = image.contiguous(memory_format=torch.channels_last)
    with autocast(torch.device("cpu"), "fp16"):
        features, _ = make_reader(visual, "value").encode(image)
        expected = unit(visual(same))
    torch.testing.assert_close(unit(features), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(unit(features), unit(whole), rtol=0, atol=2e-3)


TEXT_TOWERS: dict[str, Callable[[], Any]] = {
    "causal": small_vit,
    "causal of CustomTextCLIP": partial(small_timm_vit, "EVA02"),
    "CoCa": small_coca,
    "without mask": partial(small_timm_vit, "SigLIP", text=NO_MASK),
    "last": partial(small_timm_vit, "SigLIP", text={**NO_MASK, "pool_type": "last"}),
}


def encode_texts(clip: Any, tokens: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return our features of texts, each encoded alone, and open_clip's own, normalised."""
    text = make_text_reader(clip)
    ours = [text.encode([Segment(text.embed(torch.tensor([one])))])[0] for one in tokens]
    length = text.padded_length or text.context_length
    filled = [torch.tensor([one + [text.tokenizer.pad] * (length - len(one))]) for one in tokens]
    return unit(torch.cat(ours)), torch.cat([unit(clip.encode_text(one, normalize=False)) for one in filled])


def tokenize(clip: Any, *texts: str) -> list[list[int]]:
    tokenizer = make_text_reader(clip).tokenizer
    return [[*tokenizer.before, *tokenizer.encode(text), *tokenizer.after] for text in texts]


@pytest.mark.parametrize("kind", TEXT_TOWERS)
@torch.no_grad()
def test_features_of_a_text_of_full_length_are_open_clips_own(kind: str) -> None:
    clip = TEXT_TOWERS[kind]()
    n_words = make_text_reader(clip).context_length - 2
    with autocast(torch.device("cpu"), "fp16"):
        ours, expected = encode_texts(clip, tokenize(clip, "cat " * n_words))
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", TEXT_TOWERS)
@torch.no_grad()
def test_text_features_are_as_exact_as_open_clips_own(kind: str) -> None:
    # Without the padding, products have fewer rows and round elsewhere: open_clip's blocks alone differ by 5e-4 between
    # a text with its padding and without, more than the 1e-4 that two equal computations keep.
    clip = TEXT_TOWERS[kind]()
    tokens = tokenize(clip, *(f"a photo of a {name}" for name in ("cat", "dog", "ship", "frog", "large green tree")))
    with autocast(torch.device("cpu"), "fp16"):
        ours, open_clips = encode_texts(clip, tokens)
    _, exact = encode_texts(clip.double(), tokens)
    error, allowed = ((one - exact).square().mean().sqrt() for one in (ours, open_clips))
    assert error <= 1.2 * allowed <= 1e-3
