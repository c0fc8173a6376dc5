"""What can be said of a picture: captions in varied wording, and whether one is true.

Captions are held as *claims*, (n, S, 3) integers like parts, in which UNSAID stands for an attribute that the caption
leaves open. A slot that says nothing is UNSAID throughout; a caption that says nothing at all means an empty picture.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sotglp.demo.world import COLOURS, FILLS, KNOWN_FILLS, KNOWN_SHAPES, NO_PART, SHAPES, Parts
from sotglp.methods.prompts import clip_tokenizer

UNSAID = -1

Claims = NDArray[np.int64]

_FRAMES = ("a photo of {}.", "a photo of {}", "a picture of {}", "{}", "there is {}", "an image with {}", "look at {}")
_JOINTS = (" and ", " with ", " next to ", ", ")
_NOTHING = ("nothing", "an empty picture", "only background", "no shape at all")
_PLAIN = ("plain ", "solid ", "", "", "")


def claim(
    parts: Parts,
    rng: np.random.Generator,
    *,
    omit_part: float = 0.15,
    omit_fill: float = 0.35,
    omit_colour: float = 0.1,
) -> Claims:
    """Choose what to say of each picture: some parts, in any order, with some of their attributes.

    Parameters
    ----------
    parts : ndarray
        What is in the pictures, (n, S, 3).
    rng : numpy.random.Generator
        Draws.
    omit_part, omit_fill, omit_colour : float
        Chance that a part, a part's fill, or a part's colour is left out; one part is always said.
    """
    n_pictures, n_slots = parts.shape[:2]
    here = parts[:, :, 0] != NO_PART
    order = np.where(here, rng.random((n_pictures, n_slots)), 2).argsort(axis=1)
    said = np.take_along_axis(parts, order[:, :, None], axis=1)
    omitted = rng.random((n_pictures, n_slots)) < omit_part
    omitted[:, 0] = False
    omitted_attribute = rng.random((n_pictures, n_slots, 3)) < np.array([0, omit_colour, omit_fill])
    silent = omitted[:, :, None] | omitted_attribute | (said == NO_PART)
    return np.where(silent, UNSAID, said)


def wording(claims: Claims, rng: np.random.Generator) -> list[str]:
    """Put claims into words."""
    texts = []
    for slots in claims.tolist():
        phrases = [phrase(part, rng) for part in slots if part[0] != UNSAID]
        frame = _FRAMES[rng.integers(len(_FRAMES))] if rng.random() < 0.8 else "a photo of {}"
        if not phrases:
            texts.append(_NOTHING[rng.integers(len(_NOTHING))])
            continue
        text = phrases[0]
        for more in phrases[1:]:
            text += _JOINTS[rng.integers(len(_JOINTS))] + more
        texts.append(frame.format(text))
    return texts


def phrase(part: list[int] | tuple[int, int, int], rng: np.random.Generator | None = None) -> str:
    """Name one part, such as ``a striped red star``; without a generator in the shortest way."""
    shape, colour, fill = part
    words = ""
    if fill == 0:
        words += _PLAIN[rng.integers(len(_PLAIN))] if rng is not None else "plain "
    elif fill != UNSAID:
        words += f"{FILLS[fill]} "
    if colour != UNSAID:
        words += f"{COLOURS[colour]} "
    words += SHAPES[shape]
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def holds(claims: Claims, parts: Parts) -> NDArray[np.bool_]:
    """Whether each of m captions is true of each of n pictures, (m, n).

    True means that every part that is said can be found in the picture; an empty caption is true of empty pictures.
    """
    one, other = claims[:, None, :, None], parts[None, :, None, :]  # (m, 1, S, 1, 3), (1, n, 1, S, 3)
    alike = ((one == UNSAID) | (one == other)).all(axis=-1) & (other[..., 0] != NO_PART)  # (m, n, S, S)
    unsaid = (claims == UNSAID).all(axis=-1)  # (m, S)
    found = (alike.any(axis=-1) | unsaid[:, None]).all(axis=-1)
    is_empty = (parts[:, :, 0] == NO_PART).all(axis=-1)
    says_nothing = unsaid.all(axis=-1)
    result: NDArray[np.bool_] = np.where(says_nothing[:, None], is_empty[None], found)
    return result


def vocabulary() -> list[int]:
    """Numbers of all tokens that captions are made of, [SOT] and [EOT] with them."""
    names = (*SHAPES[:KNOWN_SHAPES], *COLOURS, *FILLS[:KNOWN_FILLS], "a", "an")
    tokenizer = clip_tokenizer()
    tokens = {tokenizer.sot_token_id, tokenizer.eot_token_id}
    for text in (*names, *_FRAMES, *_JOINTS, *_NOTHING, *_PLAIN):
        tokens.update(tokenizer.encode(text.replace("{}", "")))
    return sorted(tokens)
