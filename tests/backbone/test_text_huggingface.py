from __future__ import annotations

from pathlib import Path

import pytest
import torch
from open_clip.tokenizer import HFTokenizer
from torch import Tensor

from sotglp import SOTGLP, Backbone
from sotglp.backbone.text import Segment
from sotglp.backbone.text_huggingface import HuggingFaceTextTower
from sotglp.backbone.text_readers import make_text_reader
from sotglp.errors import UnsupportedTowerError
from support.huggingface import small_huggingface_clip, write_tokenizer
from support.tokenizers import LetterTokenizer

pytest.importorskip("transformers")
KINDS = ["roberta", "xlm-roberta", "nllb"]


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_features_are_open_clips_own(kind: str) -> None:
    clip = small_huggingface_clip(kind)
    tokenizer = LetterTokenizer(before=(0,))
    text = make_text_reader(clip, lambda: tokenizer)
    assert isinstance(text, HuggingFaceTextTower)
    texts = ["cat", "sea", "golden oak", "b" * 75]
    expected = clip.encode_text(torch.tensor([tokenizer.whole(one, 77) for one in texts]))
    start = Segment(text.embed(torch.tensor([[0]])))
    ends = [Segment(text.embed(torch.tensor([[*tokenizer.encode(one), 2]])), before=start) for one in texts]
    torch.testing.assert_close(torch.cat(text.encode([start, *ends])), expected, rtol=1e-5, atol=1e-5)
    assert (text.context_length, text.width) == (77, 32)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_to_prompts_agree_with_finite_differences(kind: str) -> None:
    clip = small_huggingface_clip(kind).double()
    text = make_text_reader(clip, LetterTokenizer)
    name = text.embed(torch.tensor([[20, 21, 2]])).detach()

    def encode(context: Tensor) -> Tensor:
        return text.encode([Segment(torch.cat([context, name], dim=1))])[0].sum(dim=1)

    context = 0.1 * torch.randn(1, 1, 32, dtype=torch.float64)
    context.requires_grad_()
    assert torch.autograd.gradcheck(encode, (context,), eps=1e-6, atol=1e-6)


def test_a_model_learns_prompts_for_a_tower_of_hugging_face(tmp_path: Path) -> None:
    clip = small_huggingface_clip("xlm-roberta")
    tokenizer = HFTokenizer(str(write_tokenizer(tmp_path)), context_length=77)
    backbone = Backbone.from_open_clip(clip, tokenizer=tokenizer)
    model = SOTGLP(backbone, ["cat", "golden oak", "sea"], template="a photo of a {}", top_k=2)
    features = model.encode_text()
    expected = clip.encode_text(tokenizer(["a photo of a cat", "a photo of a golden oak", "a photo of a sea"]))
    torch.testing.assert_close(features.global_[:, 0], expected, rtol=1e-5, atol=1e-5)


def test_a_tower_without_its_tokenizer_is_refused() -> None:
    with pytest.raises(UnsupportedTowerError, match="tokenizer"):
        make_text_reader(small_huggingface_clip("roberta"))
