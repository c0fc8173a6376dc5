from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from sotglp import SOTGLP, Backbone
from sotglp.backbone.tokenizers import ClipTokenizer, clip_tokenizer
from sotglp.errors import UnknownNameError
from sotglp.explain.context_words import ALL_CLASSES, context_words, known_tokens, nearest_words
from sotglp.methods.prompts import template_tokens
from sotglp.methods.zero_shot import ZeroShot

NAMES = ["cat", "dog", "sea", "sky", "car", "sun"]

token_text = ClipTokenizer().token_text


def test_nearest_words_by_numpy() -> None:
    rng = np.random.default_rng(0)
    vectors, embedding = rng.normal(size=(100, 5)), rng.normal(size=(30, 5)) * rng.uniform(0.2, 2, size=(30, 1))
    tokens = rng.permutation(40_000)[:30]
    found = nearest_words(
        *(torch.tensor(part).float() for part in (vectors, embedding)), torch.tensor(tokens), 4, token_text
    )
    assert len(found) == 100
    for vector, words in zip(vectors, found, strict=True):
        distances = np.sqrt(((embedding - vector) ** 2).sum(axis=1))
        cosines = embedding @ vector / np.linalg.norm(embedding, axis=1) / np.linalg.norm(vector)
        for order, values, given in (
            (np.argsort(distances), distances, words.by_distance),
            (np.argsort(-cosines), cosines, words.by_cosine),
        ):
            assert [word.text for word in given] == [token_text(int(tokens[index])) for index in order[:4]]
            assert [word.value for word in given] == pytest.approx(values[order[:4]], abs=1e-5)


def test_a_model_that_has_not_learned_lies_on_the_words_that_it_starts_from(tiny_backbone: Backbone) -> None:
    model = SOTGLP(tiny_backbone, NAMES, n_global_prompts=2, n_local_prompts=3)
    words = context_words(model, n_nearest=1)
    start = [token_text(int(token)) for token in template_tokens("A photo of a {}", 77)]
    assert start == ["a</w>", "photo</w>", "of</w>", "a</w>"]
    for prompt in words.global_:
        assert [vector.by_distance[0] for vector in prompt] == [(text, 0.0) for text in start]
        assert [vector.by_cosine[0].text for vector in prompt] == start
    assert len(words.global_) == 2
    assert list(words.local) == NAMES[:5]
    assert {len(prompts) for prompts in words.local.values()} == {3}
    assert {len(prompt) for prompts in words.local.values() for prompt in prompts} == {4}


@torch.no_grad()
def test_local_words_are_those_of_the_class(tiny_backbone: Backbone) -> None:
    model = SOTGLP(tiny_backbone, NAMES, n_local_prompts=2)
    token = clip_tokenizer().encode("whale")[0]
    model.local_prompts[5, 1, 2] = 3 * tiny_backbone.text.embed(torch.tensor(token))
    words = context_words(model, ["sun", "cat"])
    assert list(words.local) == ["sun", "cat"]
    assert words.local["sun"][1][2].by_cosine[0] == ("whale</w>", pytest.approx(1))
    assert "whale</w>" not in [word.text for word in words.local["cat"][1][2].by_cosine]
    told = words.to_dict()
    assert told["local"]["sun"][1][2]["by_cosine"][0] == {"token": "whale</w>", "cosine": pytest.approx(1)}
    assert set(told["global"][0][0]["by_distance"][0]) == {"token", "distance"}


@pytest.mark.parametrize(
    ("settings", "n_global", "local"),
    [
        ({"branches": "global"}, 3, []),
        ({"branches": "local"}, 0, NAMES[:5]),
        ({"local_contexts": "shared"}, 3, [ALL_CLASSES]),
    ],
)
def test_learned_contexts_have_words(
    tiny_backbone: Backbone, settings: dict[str, Any], n_global: int, local: list[str]
) -> None:
    words = context_words(SOTGLP(tiny_backbone, NAMES, **settings))
    assert (len(words.global_), list(words.local)) == (n_global, local)
    assert {len(prompts) for prompts in words.local.values()} <= {4}
    assert context_words(ZeroShot(tiny_backbone, NAMES)) is None
    with pytest.raises(UnknownNameError, match="fish"):
        context_words(SOTGLP(tiny_backbone, NAMES), ["fish"])


def test_the_packaged_backbone_knows_a_few_words_and_others_all_of_them(tiny_backbone: Backbone) -> None:
    backbone, tokenizer = Backbone.load("tiny"), clip_tokenizer()
    texts = [token_text(int(token)) for token in known_tokens(backbone)]
    assert len(texts) == len(set(texts)) == 45
    assert {"photo</w>", "circle</w>", "purple</w>", "chec"} <= set(texts)
    # What was not trained is uniformly random up to 0.02 sqrt(3): training leaves no row within that.
    rows = backbone.text.embed(torch.arange(tokenizer.sot_token_id))
    beyond = (rows.abs().amax(dim=1) > 0.02 * 3**0.5 + 1e-4).nonzero()[:, 0]
    assert torch.equal(known_tokens(backbone), beyond)
    tokens = known_tokens(tiny_backbone).tolist()
    assert tokens == list(range(len(tokenizer.decoder) - 2))
    assert {tokenizer.sot_token_id, tokenizer.eot_token_id}.isdisjoint(tokens)


def test_every_token_has_a_text() -> None:
    tokenizer = clip_tokenizer()
    for text in ("photo of a naïve café", "鯨 and 🐳", "it's 7 o'clock!"):
        tokens = tokenizer.encode(text)
        # Parts of a letter of several bytes show as what they are not; the others put the text together again.
        whole = "".join(token_text(token) for token in tokens)
        assert whole.count("</w>") == len([token for token in tokens if tokenizer.decoder[token].endswith("</w>")])
        if "�" not in whole:
            assert whole.replace("</w>", " ").split() == [
                word for word in tokenizer.decode(tokens).split() if word not in ("<start_of_text>", "<end_of_text>")
            ]
    assert token_text(tokenizer.encode("photograph")[0]) == "photograph</w>"
    assert all(token_text(token) for token in range(len(tokenizer.decoder) - 2))
