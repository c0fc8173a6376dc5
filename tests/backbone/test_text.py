from __future__ import annotations

from itertools import pairwise
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor, nn

from sotglp.backbone.text import Segment, TextTower
from sotglp.backbone.text_readers import make_text_reader
from sotglp.errors import UnsupportedTowerError
from support.samples import Reference, tiny_clip

TEXTS = ["a photo of a cat", "a centered satellite photo of herbaceous vegetation land", "cat"]
VISION = {"image_size": 32, "patch_size": 16, "width": 32, "layers": 1, "head_width": 32}


def custom_text_clip(**text: Any) -> nn.Module:
    torch.manual_seed(0)
    settings = {"width": 32, "heads": 2, "layers": 2, **text}
    return open_clip.CustomTextCLIP(embed_dim=24, vision_cfg=VISION, text_cfg=settings).eval()


def encode_after(tower: TextTower, words: Tensor, eot: Tensor, *cuts: int) -> Tensor:
    """Features of sequences (S, L, d_text) whose tokens before each cut are those of the first sequence."""
    before: list[Segment] = []
    for start, stop in pairwise((0, *cuts)):
        before.append(Segment(words[:1, start:stop], before=before[-1] if before else None))
    ends = [Segment(words[[row], cuts[-1] : int(eot[row]) + 1], before=before[-1]) for row in range(len(words))]
    return torch.cat(tower.encode([*before, *ends]))


@pytest.mark.parametrize("clip", [tiny_clip().eval(), custom_text_clip(), custom_text_clip(proj_bias=True)])
def test_encoding_up_to_eot_is_open_clips_77_tokens(clip: nn.Module) -> None:
    tokens = open_clip.tokenize(TEXTS)
    tower = TextTower(clip)
    found = encode_after(tower, tower.embed(tokens), tokens.argmax(dim=1), 1)
    torch.testing.assert_close(found, clip.encode_text(tokens), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cuts", [(1,), (3,), (5,), (1, 4), (1, 2, 3, 5)])
def test_the_length_of_the_common_prefix_changes_no_number(cuts: tuple[int, ...]) -> None:
    clip = tiny_clip().double()
    tower = TextTower(clip)
    tokens = open_clip.tokenize(["a photo of a cat", "a photo of a golden retriever", "a photo of a sea"])
    eot = tokens.argmax(dim=1)
    weights = torch.randn(3, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    words = tower.embed(tokens).requires_grad_()
    found = encode_after(tower, words, eot, *cuts)
    (slope,) = torch.autograd.grad((found * weights).sum(), words)

    # open_clip's own path, where the slope at a common token is the sum over the sequences.
    plain_words = tower.embed(tokens).requires_grad_()
    states = clip.transformer(plain_words + clip.positional_embedding, attn_mask=clip.attn_mask)
    plain = clip.ln_final(states)[torch.arange(3), eot] @ clip.text_projection
    (plain_slope,) = torch.autograd.grad((plain * weights).sum(), plain_words)
    torch.testing.assert_close(plain, clip.encode_text(tokens), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found, plain, rtol=1e-9, atol=1e-9)
    cut = cuts[-1]
    torch.testing.assert_close(slope[:, :cut].sum(0), plain_slope[:, :cut].sum(0), rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(slope[:, cut:], plain_slope[:, cut:], rtol=1e-8, atol=1e-9)


def test_sequences_may_continue_different_prefixes() -> None:
    clip = tiny_clip().double()
    tower = TextTower(clip)
    tokens = open_clip.tokenize(["a cat", "a dog", "the cat", "the dog"])[:, :4]  # [SOT] article animal [EOT]
    words = tower.embed(tokens)
    sot = Segment(words[:1, :1])
    articles = Segment(words[[0, 2], 1:2], before=sot)
    found = tower.encode([sot, articles, Segment(words[:, 2:], before=articles)])
    assert len(found) == 1
    torch.testing.assert_close(found[0], clip.encode_text(open_clip.tokenize(["a cat", "a dog", "the cat", "the dog"])))


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
        ({"pool_type": "none"}, "learned prompts need a causal transformer"),
        ({"vocab_size": 1000}, "vocabulary of 1000"),
        ({"qk_norm": True}, "custom"),
    ],
)
def test_unsupported_text_tower_is_refused(text: dict[str, Any], words: str) -> None:
    with pytest.raises(UnsupportedTowerError, match=words):
        make_text_reader(custom_text_clip(**text))


def test_hugging_face_tower_is_refused_by_name() -> None:
    clip = custom_text_clip()
    clip.text = nn.Linear(2, 2)
    with pytest.raises(UnsupportedTowerError, match="text tower Linear"):
        make_text_reader(clip)


def test_it_follows_the_model_to_another_dtype() -> None:
    clip = tiny_clip()
    tower = TextTower(clip)
    clip.double()
    tokens = open_clip.tokenize(TEXTS)
    assert encode_after(tower, tower.embed(tokens), tokens.argmax(dim=1), 1).dtype == torch.float64
