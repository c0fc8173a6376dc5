from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from open_clip.tokenizer import HFTokenizer

from sotglp import SotglpError
from sotglp.backbone.tokenizers import HuggingFaceTokenizer, load_hugging_face
from support.huggingface import WORDS, write_tokenizer

pytest.importorskip("transformers")


@pytest.mark.parametrize(("kind", "before"), [("sentences", ()), ("bytes", (0,))])
def test_sequences_are_those_of_open_clip(tmp_path: Path, kind: str, before: tuple[int, ...]) -> None:
    wrapped = HFTokenizer(str(write_tokenizer(tmp_path, kind)), context_length=24)
    tokenizer = HuggingFaceTokenizer(wrapped, 1000)
    assert (tokenizer.before, tokenizer.after, tokenizer.pad) == (before, (2,), 1)
    sentence = "a photo of a cat"
    whole = [*before, *tokenizer.encode(sentence), 2]
    assert wrapped(sentence)[0].tolist() == whole + [1] * (24 - len(whole))
    start, name = tokenizer.encode("a photo of a"), tokenizer.encode("cat", continues=True)
    assert start + name == tokenizer.encode(sentence)
    assert tokenizer.token_text(name[-1])
    assert set(tokenizer.words().tolist()).isdisjoint({0, 1, 2, 3})


def test_a_separator_that_open_clip_removes(tmp_path: Path) -> None:
    wrapped = HFTokenizer(str(write_tokenizer(tmp_path)), context_length=8, strip_sep_token=True)
    assert HuggingFaceTokenizer(wrapped, 1000).after == (0,)
    assert 2 not in wrapped("a cat")[0].tolist()


def test_tokens_beyond_the_vocabulary_of_the_tower_are_refused(tmp_path: Path) -> None:
    tokenizer = HuggingFaceTokenizer(HFTokenizer(str(write_tokenizer(tmp_path)), context_length=8), 6)
    with pytest.raises(SotglpError, match=r"token 11.*only 6"):
        tokenizer.encode(WORDS[-1])


def test_a_tokenizer_beside_the_weights_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    text: dict[str, Any] = {"hf_tokenizer_name": "nobody/none", "context_length": 8}
    assert load_hugging_face("some", text, 100, write_tokenizer(tmp_path / "t")).encode("a cat") == [4, 7]
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(SotglpError, match=r"nobody/none of some isn't in .*hf download nobody/none"):
        load_hugging_face("some", text, 100, empty)
    (empty / "tokenizer.json").write_text("{")
    with pytest.raises(SotglpError, match="can't be read"):
        load_hugging_face("some", text, 100, empty)
