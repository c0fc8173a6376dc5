import itertools
import re

import pytest
from open_clip import IMAGENET_CLASSNAMES
from timm.data import ImageNetInfo

from sotglp.datasets.imagenet_names import imagenet_names
from sotglp.methods.prompts import tokenize_classes


def test_a_thousand_wordnet_numbers_in_ascending_order():
    wnids = list(imagenet_names())
    assert len(wnids) == 1000
    assert wnids == sorted(set(wnids))
    assert all(re.fullmatch(r"n\d{8}", wnid) for wnid in wnids)


def test_a_thousand_different_prompts():
    assert len(tokenize_classes(tuple(imagenet_names().values()), n_context=4, context_length=77).tokens) == 1000


def test_names_are_those_of_open_clip_but_for_two():
    names = tuple(imagenet_names().values())
    pairs = zip(IMAGENET_CLASSNAMES, names, strict=True)
    changed = {k: (theirs, ours) for k, (theirs, ours) in enumerate(pairs) if theirs != ours}
    assert changed == {744: ("missile", "projectile"), 836: ("sunglasses", "sunglass")}


@pytest.mark.parametrize(
    ("wnid", "name"),
    [
        ("n01440764", "tench"),
        ("n02012849", "crane bird"),
        ("n03126707", "construction crane"),
        ("n03773504", "missile"),
        ("n04008634", "projectile"),
        ("n04355933", "sunglass"),
        ("n04356056", "sunglasses"),
        ("n15075141", "toilet paper"),
    ],
)
def test_names_of_known_classes(wnid, name):
    assert imagenet_names()[wnid] == name


def test_names_fit_what_wordnet_says_of_the_numbers():
    info = ImageNetInfo()
    lemmas = [info.label_name_to_description(wnid).lower() for wnid in imagenet_names()]
    names = [name.lower() for name in imagenet_names().values()]

    def fitting(shift: int) -> float:
        turned = itertools.islice(itertools.cycle(lemmas), shift, shift + 1000)
        return sum(name.split()[-1] in lemma for name, lemma in zip(names, turned, strict=True)) / 1000

    assert fitting(0) > 0.85
    assert fitting(1) < 0.3


def test_the_names_cannot_be_changed():
    with pytest.raises(TypeError):
        imagenet_names()["n01440764"] = "carp"
