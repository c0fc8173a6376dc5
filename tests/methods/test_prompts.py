from __future__ import annotations

import math

import open_clip
import pytest
import torch

from sotglp import SotglpError
from sotglp.images.labels import prompt_name
from sotglp.methods.prompts import initial_local_contexts, template_tokens, tokenize_classes

TEMPLATE = "A photo of a {}"
ENDLESS = "qzxv" * 250_000  # the tokenizer's time grows with the square of a word's length


def test_sequences_are_open_clips_without_the_context() -> None:
    names = ["golden_retriever", "cat", "polka dot texture"]
    classes = tokenize_classes(names, n_context=4, context_length=77)
    whole = open_clip.tokenize([TEMPLATE.format(prompt_name(name)) for name in names])
    width = classes.tokens.shape[1]
    assert torch.equal(classes.tokens, whole[:, 5 : 5 + width])
    assert torch.equal(classes.eot_positions, whole.argmax(dim=1))


def test_template_tokens_are_those_beside_the_placeholder() -> None:
    assert torch.equal(template_tokens(TEMPLATE, 77), open_clip.tokenize("a photo of a")[0, 1:5])
    assert len(template_tokens("a photo of a {}, a type of pet.", 77)) == 10


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["cat"], "at least two classes"),
        (["cat", "  _ "], "no text"),
        (["cat", "dog " * 72], "has 72 tokens, but the text tower allows 71"),
        (["golden_retriever", "Golden  Retriever"], "'golden_retriever' and 'Golden  Retriever' give the same prompt"),
        # Names that differ to the computer alone.
        (["caf\u00e9", "cafe\u0301"], "same prompt"),
        (["sea_lion", "sea lion"], "same prompt"),
        (["STRASSE", "strasse"], "same prompt"),
        (["a&amp;b", "a&b"], "same prompt"),
        (["a", "\uff41"], "same prompt"),
    ],
)
def test_names_that_cannot_be_used(names: list[str], words: str) -> None:
    with pytest.raises(SotglpError, match=words):
        tokenize_classes(names, n_context=4, context_length=77)


def test_xavier_fills_its_whole_interval() -> None:
    contexts = initial_local_contexts(50, 4, 4, 64, "xavier", torch.Generator().manual_seed(0))
    bound = math.sqrt(6 / ((4 + 50) * 4 * 64))
    assert contexts.shape == (50, 4, 4, 64)
    assert 0.999 * bound < contexts.abs().max() <= bound
    assert contexts.std() == pytest.approx(bound / math.sqrt(3), rel=0.02)


def test_orthonormal_prompts_of_a_class() -> None:
    contexts = initial_local_contexts(5, 4, 3, 16, "orthonormal", torch.Generator().manual_seed(0))
    rows = contexts.flatten(2) / 0.001
    torch.testing.assert_close(rows @ rows.mT, torch.eye(4).expand(5, -1, -1), rtol=0, atol=1e-5)
    with pytest.raises(SotglpError, match="can't be orthonormal"):
        initial_local_contexts(2, 9, 1, 8, "orthonormal", torch.Generator())


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("a photo", "must hold the placeholder"),
        ("{} or {}", "placeholder"),
        ("{}", "no words"),
        ("a " * 80 + "{}", "80 tokens"),
        (f"{ENDLESS} {{}}", r"the template 'qzxv.*\.\.\.' has 1000003 characters"),
    ],
    ids=str.__len__,
)
def test_templates_that_cannot_be_used(template: str, words: str) -> None:
    with pytest.raises(SotglpError, match=words):
        template_tokens(template, 77)


def test_names_that_would_keep_the_tokenizer_busy_for_minutes() -> None:
    with pytest.raises(SotglpError, match=r"the class name 'qzxv.*\.\.\.' has 1000000 characters"):
        tokenize_classes(["cat", ENDLESS], n_context=4, context_length=77)


@pytest.mark.parametrize("name", ["...", "!", "\N{DOG FACE}\N{CAT FACE}", "-", "\udce9", "名前", "a\nb", "<|x|>"])
def test_odd_names_are_names(name: str) -> None:
    assert tokenize_classes(["cat", name], n_context=4, context_length=77).eot_positions[1] > 5
    longest = tokenize_classes(["cat", "dog " * 71], n_context=4, context_length=77)
    assert longest.eot_positions.tolist() == [6, 76]
