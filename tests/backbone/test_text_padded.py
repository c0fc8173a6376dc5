from __future__ import annotations

from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor, nn

from sotglp import SOTGLP, Backbone
from sotglp.backbone.text import Segment, TextTower
from sotglp.backbone.text_padded import PaddedTextTower
from sotglp.backbone.text_readers import TextReader, make_text_reader
from sotglp.backbone.tokenizers import ClipTokenizer, PromptTokenizer
from sotglp.errors import UnsupportedTowerError
from support.tokenizers import LetterTokenizer

VISION = {"image_size": 32, "patch_size": 16, "width": 32, "layers": 1, "head_width": 32}
LETTERS = {"vocab_size": 40, "context_length": 14}
TOWERS: dict[str, tuple[dict[str, Any], PromptTokenizer | None]] = {
    "MobileCLIP-S": ({"no_causal_mask": True, "context_length": 12}, None),
    "SigLIP": (
        {**LETTERS, "no_causal_mask": True, "pool_type": "last", "proj_bias": True},
        LetterTokenizer(before=(), after=(1,), pad=1),
    ),
    "SigLIP-SO400M-i18n": (
        {**LETTERS, "no_causal_mask": True, "pool_type": "last", "proj_type": "none"},
        LetterTokenizer(before=(), after=(1,), pad=1),
    ),
    "CLIPA": (
        {**LETTERS, "no_causal_mask": True, "pool_type": "last"},
        LetterTokenizer(before=(3,), after=(0,), pad=0),
    ),
    "first": ({**LETTERS, "no_causal_mask": True, "pool_type": "first"}, LetterTokenizer(before=(3,), pad=0)),
    "causal, last": ({**LETTERS, "pool_type": "last"}, LetterTokenizer(before=(3,))),
    "CoCa": ({"embed_cls": True, "context_length": 12}, None),
    "CoCa, corrected": ({"embed_cls": True, "context_length": 12, "correct_cls_mask": True}, None),
    "MetaCLIP worldwide": ({**LETTERS, "pool_type": "eos", "eos_id": 2}, LetterTokenizer(before=(3, 4))),
}
TEXTS = ["cat", "sea", "golden oak", "a"]


def small(kind: str, width: int = 32) -> tuple[Any, TextReader]:
    settings, tokenizer = TOWERS[kind]
    torch.manual_seed(0)
    is_corrected = settings.get("correct_cls_mask", False)  # which a configuration of open_clip can't hold
    settings = {key: value for key, value in settings.items() if key != "correct_cls_mask"}
    text = {"width": width, "heads": 2, "layers": 2, **settings}
    clip = open_clip.CustomTextCLIP(embed_dim=24, vision_cfg=VISION, text_cfg=text).eval()
    clip.text.correct_cls_mask = is_corrected
    for name, value in clip.text.named_parameters():
        if value.ndim == 1:
            nn.init.normal_(value, mean=0.0 if name.endswith("bias") else 1.0, std=0.2)
    nn.init.normal_(clip.text.positional_embedding, std=0.5)
    nn.init.normal_(clip.text.token_embedding.weight, std=0.5)
    return clip.double(), make_text_reader(clip, None if tokenizer is None else lambda: tokenizer)


def by_segments(text: TextReader, words: list[Tensor], n_shared: int) -> Tensor:
    """Features of sequences (L, d_text) whose first tokens are those of the first one."""
    shared = Segment(words[0][None, :n_shared]) if n_shared else None
    ends = [Segment(one[None, n_shared:], before=shared) for one in words]
    return torch.cat(text.encode(ends if shared is None else [shared, *ends]))


@pytest.mark.parametrize("kind", TOWERS)
@torch.no_grad()
def test_features_are_open_clips_own(kind: str) -> None:
    clip, text = small(kind)
    tokenizer, length = text.tokenizer, text.context_length
    assert isinstance(text, TextTower if kind == "MetaCLIP worldwide" else PaddedTextTower)
    room = length - len(tokenizer.before) - len(tokenizer.after)
    texts = [*TEXTS, "b" * room if tokenizer.__class__ is LetterTokenizer else "b " * room]
    sequences = [[*tokenizer.before, *tokenizer.encode(one), *tokenizer.after] for one in texts]
    assert len(sequences[-1]) == length
    filled = torch.tensor([one + [tokenizer.pad] * (length - len(one)) for one in sequences])
    found = by_segments(text, [text.embed(torch.tensor(one)) for one in sequences], len(tokenizer.before))
    torch.testing.assert_close(found, clip.encode_text(filled), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", TOWERS)
def test_gradients_to_prompts_agree_with_finite_differences(kind: str) -> None:
    _, text = small(kind, width=4)
    tokenizer = text.tokenizer
    before = [Segment(text.embed(torch.tensor([tokenizer.before])))] if tokenizer.before else []
    name = text.embed(torch.tensor([[*tokenizer.encode("cat"), *tokenizer.after]])).detach()

    def encode(context: Tensor) -> Tensor:
        contexts = Segment(context, before=before[0] if before else None)
        return text.encode([*before, contexts, Segment(name, before=contexts)])[0]

    context = torch.randn(1, 2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(encode, (context,), eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["SigLIP", "CoCa", "MetaCLIP worldwide"])
def test_prompts_of_a_model_are_those_of_the_sequence_written_out(kind: str) -> None:
    clip, text = small(kind)
    backbone = Backbone.from_open_clip(clip, tokenizer=TOWERS[kind][1])
    names = ["cat", "sea", "oaks"]
    model = SOTGLP(backbone, names, template="an {}", n_global_prompts=2, n_local_prompts=2, top_k=2).double()
    features = model.encode_text()
    tokenizer, length = text.tokenizer, text.context_length
    for index, name in enumerate(names):
        tokens = [*tokenizer.before, *tokenizer.encode("an"), *tokenizer.encode(name), *tokenizer.after]
        filled = torch.tensor([tokens + [tokenizer.pad] * (length - len(tokens))])
        expected = clip.encode_text(filled).expand(2, -1)
        torch.testing.assert_close(features.global_[index], expected, rtol=1e-6, atol=1e-6)
    assert features.local.shape == (3, 2, 24)
    (features.global_.sum() + features.local.sum()).backward()
    assert model.global_prompts.grad is not None
    assert model.local_prompts is not None
    assert model.local_prompts.grad is not None


@pytest.mark.parametrize(
    ("text", "tokenizer", "words"),
    [
        ({**LETTERS, "no_causal_mask": True}, None, "vocabulary of 40"),
        ({**LETTERS}, LetterTokenizer(), "largest token"),
        ({**LETTERS, "no_causal_mask": True}, LetterTokenizer(), "largest token"),
        ({"no_causal_mask": True, "qk_norm": True}, None, "custom"),
    ],
)
def test_other_towers_are_refused(text: dict[str, Any], tokenizer: PromptTokenizer | None, words: str) -> None:
    settings = {"width": 32, "heads": 2, "layers": 1, **text}
    clip = open_clip.CustomTextCLIP(embed_dim=24, vision_cfg=VISION, text_cfg=settings)
    with pytest.raises(UnsupportedTowerError, match=words):
        make_text_reader(clip, None if tokenizer is None else lambda: tokenizer)


def test_clips_tokenizer_is_the_default() -> None:
    tokenizer = ClipTokenizer()
    whole = [*tokenizer.before, *tokenizer.encode("a photo of a cat"), *tokenizer.after]
    assert whole == open_clip.tokenize("a photo of a cat")[0, : len(whole)].tolist()
