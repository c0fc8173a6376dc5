import re

import numpy as np
import pytest

from pretraining.painted.captions import UNSAID, claim, holds, vocabulary, wording
from sotglp.backbone.tokenizers import clip_tokenizer
from sotglp.demo.world import COLOURS, FILLS, KNOWN_FILLS, NO_PART, SHAPES, draw_parts


@pytest.fixture
def parts():
    return draw_parts(300, np.random.default_rng(0), fewest=0, most=4)


def test_every_claim_holds_of_its_own_picture(parts):
    claims = claim(parts, np.random.default_rng(1))
    assert holds(claims, parts).diagonal().all()


def slow_holds(claim_, picture):
    there = [part for part in picture if part[0] != NO_PART]
    said = [part for part in claim_ if part != [UNSAID] * 3]
    if not said:
        return not there

    def fits(one, part):
        return all(a in (UNSAID, b) for a, b in zip(one, part, strict=True))

    return all(any(fits(one, part) for part in there) for one in said)


def test_holds_agrees_with_looking_part_by_part_where_little_differs():
    rng = np.random.default_rng(0)
    claims = rng.integers(-1, 2, (80, 3, 3))
    parts = rng.integers(0, 2, (90, 3, 3))
    parts[rng.random((90, 3)) < 0.4] = NO_PART
    answers = holds(claims, parts)
    assert answers.tolist() == [[slow_holds(said, picture) for picture in parts.tolist()] for said in claims.tolist()]
    assert 0.05 < answers.mean() < 0.95


def test_one_part_is_always_said_and_some_are_left_out(parts):
    claims = claim(parts, np.random.default_rng(1))
    said = (claims[:, :, 0] != UNSAID).sum(axis=1)
    there = (parts[:, :, 0] != NO_PART).sum(axis=1)
    assert (said[there > 0] >= 1).all()
    assert (said <= there).all()
    assert (said < there).any()


def test_words_say_what_is_claimed_and_no_more(parts):
    rng = np.random.default_rng(1)
    claims = claim(parts, rng)
    for slots, text in zip(claims.tolist(), wording(claims, rng), strict=True):
        words = set(re.findall("[a-z]+", text))
        said = [part for part in slots if part[0] != UNSAID]
        if not said:
            assert words & {"nothing", "empty", "background", "no"}
            continue
        assert words & set(COLOURS) == {COLOURS[part[1]] for part in said if part[1] != UNSAID}
        assert words & set(SHAPES) == {SHAPES[part[0]] for part in said}
        assert not words & {"plain", "solid"} or 0 in [part[2] for part in said]
        assert words & set(FILLS[1:]) == {FILLS[part[2]] for part in said if part[2] > 0}


def test_articles_fit_their_words_in_all_captions(parts):
    rng = np.random.default_rng(1)
    texts = wording(claim(np.concatenate([parts] * 5), rng, omit_fill=0.6), rng)
    assert any(" an orange" in text for text in texts)
    for text in texts:
        for article, word in re.findall(r"\b(an?) (\w+)", text):
            assert article == ("an" if word[0] in "aeiou" else "a"), text


def test_the_vocabulary_holds_every_token_of_every_caption(parts):
    rng = np.random.default_rng(2)
    known = set(vocabulary())
    for text in wording(claim(np.concatenate([parts] * 5), rng), rng):
        assert set(clip_tokenizer().encode(text)) <= known
    assert not set(clip_tokenizer().encode(" ".join(FILLS[KNOWN_FILLS:]))) <= known
