"""Texts that the student learns from: WordNet's physical nouns, with visual adjectives and in templates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pretraining.photo.wordnet import Anchor, WordNet

TEMPLATES = (
    "{}",
    "a photo of a {}",
    "a photo of a {}.",
    "A photo of a {}",
    "a photo of {}.",
    "a picture of the {}",
    "an image of a {}",
    "a blurry photo of a {}.",
    "a close-up photo of the {}.",
    "a photo of many {}.",
    "{}, a photo",
    "a photo of a {}, a type of thing.",
)
"""The first one is drawn half of the time."""

ADJECTIVES = (
    *("red", "green", "blue", "yellow", "black", "white", "brown", "pink", "orange", "purple", "grey", "silver"),
    *("small", "large", "old", "new", "round", "flat", "long", "short", "tall", "wild", "young", "wet", "dry"),
    *("wooden", "metal", "plastic", "glass", "paper", "leather", "stone", "striped", "spotted", "furry", "shiny"),
    *("dirty", "ripe", "cooked", "frozen", "broken", "empty", "painted", "toy", "aerial", "indoor", "outdoor"),
)

N_HELD_OUT = 100
"""Nouns that the student never sees, to measure what it makes of new words."""


@dataclass(frozen=True)
class Texts:
    """Texts for the teacher to encode.

    Attributes
    ----------
    nouns : list of str
        Lemmas of WordNet's physical entities, shuffled.
    phrases : list of str
        Adjective and noun.
    held_out : list of str
        Nouns left out of both.
    """

    nouns: list[str]
    phrases: list[str]
    held_out: list[str]


def draw_texts(wordnet: WordNet, anchors: Sequence[Anchor], n_phrases: int, seed: int) -> Texts:
    """Draw the student's texts."""
    generator = np.random.default_rng(seed)
    known = {one.text for one in anchors}
    lemmas = sorted({lemma for synset in wordnet.physical() for lemma in wordnet.lemmas[synset]} - known)
    shuffled = [lemmas[i] for i in generator.permutation(len(lemmas))]
    held_out, nouns = shuffled[:N_HELD_OUT], shuffled[N_HELD_OUT:]
    heads = [one.text for one in anchors if one.kind != "gloss"]
    # Half of the phrases describe things of ImageNet, half any noun.
    drawn = [heads[i] for i in generator.integers(len(heads), size=n_phrases // 2)]
    drawn += [nouns[i] for i in generator.integers(len(nouns), size=n_phrases - len(drawn))]
    adjectives = generator.choice(ADJECTIVES, size=n_phrases)
    return Texts(nouns, [f"{adjective} {noun}" for adjective, noun in zip(adjectives, drawn, strict=True)], held_out)
