"""Image features in fp16, as ``precision="fp16"`` computes them, are open_clip's own in fp16 to 1e-4."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sotglp.backbone.convolutional import CPU_PART, ConvolutionalReader
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
        # fp16 rounds by the order of sums, so the image is laid out and repeated as that reader does it.
        n_images = min(CPU_PART, torch.get_num_threads())
        same = image.repeat(n_images, 1, 1, 1).contiguous(memory_format=torch.channels_last)
    with autocast(torch.device("cpu"), "fp16"):
        features, _ = make_reader(visual, "value").encode(image)
        expected = unit(visual(same))[:1]
    torch.testing.assert_close(unit(features), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(unit(features), unit(whole), rtol=0, atol=2e-3)


@pytest.mark.parametrize("make", [small_vit, small_coca, partial(small_timm_vit, "SigLIP", text=NO_MASK)])
@torch.no_grad()
def test_text_features_are_open_clips_own_to_the_precision_of_fp16(make: Callable[[], Any]) -> None:
    clip = make()
    text = make_text_reader(clip)
    tokens = [*text.tokenizer.before, *text.tokenizer.encode("a photo of a cat"), *text.tokenizer.after]
    filled = torch.tensor([tokens + [text.tokenizer.pad] * (text.context_length - len(tokens))])
    whole = text.encode([Segment(text.embed(torch.tensor([tokens])))])[0]
    with autocast(torch.device("cpu"), "fp16"):
        features = text.encode([Segment(text.embed(torch.tensor([tokens])))])[0]
        expected = unit(clip.encode_text(filled))
    # Sums have other orders than open_clip's, and fp16 rounds each: as far from its fp16 as that from fp32.
    torch.testing.assert_close(unit(features), expected, rtol=0, atol=1e-3)
    torch.testing.assert_close(unit(features), unit(whole), rtol=0, atol=2e-3)
