from __future__ import annotations

from typing import Any

import open_clip
import pytest
import torch
from torch import nn

from conftest import Reference, tiny_clip
from sotglp.errors import UnservedTowerError
from sotglp.text_tower import TextTower

TEXTS = ["a photo of a cat", "a centered satellite photo of herbaceous vegetation land", "cat"]
VISION = {"image_size": 32, "patch_size": 16, "width": 32, "layers": 1, "head_width": 32}


def custom_text_clip(**text: Any) -> nn.Module:
    torch.manual_seed(0)
    settings = {"width": 32, "heads": 2, "layers": 2, **text}
    return open_clip.CustomTextCLIP(embed_dim=24, vision_cfg=VISION, text_cfg=settings).eval()


@pytest.mark.parametrize("clip", [tiny_clip().eval(), custom_text_clip(), custom_text_clip(proj_bias=True)])
def test_encoding_up_to_the_longest_eot_is_open_clips_77_tokens(clip: nn.Module) -> None:
    tokens = open_clip.tokenize(TEXTS)
    eot = tokens.argmax(dim=1)
    tower = TextTower(clip)
    embedded = tower.embed(tokens[:, : int(eot.max()) + 1])
    found = tower.encode(embedded[0, :1], embedded[:, 1:], eot - 1)
    torch.testing.assert_close(found, clip.encode_text(tokens), rtol=1e-5, atol=1e-5)


def test_a_longer_common_beginning_changes_nothing_but_the_time() -> None:
    clip = tiny_clip().double()
    tower = TextTower(clip)
    tokens = open_clip.tokenize(["a photo of a cat", "a photo of a golden retriever", "a photo of a sea"])
    eot = tokens.argmax(dim=1)
    embedded = tower.embed(tokens[:, : int(eot.max()) + 1])
    results, slopes = [], []
    for n_trunk in (1, 3, 5):
        words = embedded.clone().requires_grad_()
        found = tower.encode(words[0, :n_trunk], words[:, n_trunk:], eot - n_trunk)
        (slope,) = torch.autograd.grad((found * torch.arange(found.numel()).view_as(found)).sum(), words)
        results.append(found)
        # The common beginning is read from the first sequence alone: its slope is the sum over all.
        slopes.append(torch.cat([slope[:, :5].sum(0), slope[:, 5:].flatten(0, 1)]))
    torch.testing.assert_close(results[0], clip.encode_text(tokens), rtol=1e-9, atol=1e-9)
    for found, slope in zip(results[1:], slopes[1:], strict=True):
        torch.testing.assert_close(found, results[0], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(slope, slopes[0], rtol=1e-7, atol=1e-7)


def test_published_text_features(reference: Reference) -> None:
    text = reference.model.encode_text()
    torch.testing.assert_close(text.global_, reference.numbers["text_global"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(text.local, reference.numbers["text_local"], rtol=1e-5, atol=1e-5)


def test_sizes() -> None:
    tower = TextTower(tiny_clip())
    assert (tower.context_length, tower.width) == (77, 32)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ({"embed_cls": True}, "CoCa"),
        ({"no_causal_mask": True}, "not causal"),
        ({"pool_type": "last"}, "not causal and read at EOT"),
        ({"vocab_size": 1000}, "vocabulary of 1000"),
        ({"qk_norm": True}, "custom"),
    ],
)
def test_unserved_text_tower_is_refused(text: dict[str, Any], words: str) -> None:
    with pytest.raises(UnservedTowerError, match=words):
        TextTower(custom_text_clip(**text))


def test_hugging_face_tower_is_refused_by_name() -> None:
    clip = custom_text_clip()
    clip.text = nn.Linear(2, 2)
    with pytest.raises(UnservedTowerError, match="text tower Linear"):
        TextTower(clip)


def test_it_follows_the_model_to_another_dtype() -> None:
    clip = tiny_clip()
    tower = TextTower(clip)
    clip.double()
    tokens = open_clip.tokenize(TEXTS)
    embedded = tower.embed(tokens)
    assert tower.encode(embedded[0, :1], embedded[:, 1:], tokens.argmax(dim=1) - 1).dtype == torch.float64
