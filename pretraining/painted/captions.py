"""Draw captions of painted pictures in varied wording, and check which pictures a caption is true of.

A caption is stored as *claims*: (n, S, 3) integers like parts, with UNSAID for each attribute that the caption omits.
An unused slot is UNSAID throughout; a caption without claims describes an empty picture.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sotglp.backbone.tokenizers import clip_tokenizer
from sotglp.demo.world import COLOURS, FILLS, KNOWN_FILLS, KNOWN_SHAPES, NO_PART, SHAPES, Parts, with_article

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
    """Draw which parts of each picture its caption names, in which order and with which attributes.

    Parameters
    ----------
    parts : ndarray
        Parts of the pictures, (n, S, 3).
    rng : numpy.random.Generator
        Source of randomness.
    omit_part, omit_fill, omit_colour : float
        Probability of omitting a part, a part's fill or a part's colour; at least one part is named.
    """
    n_pictures, n_slots = parts.shape[:2]
    here = parts[:, :, 0] != NO_PART
    order = np.where(here, rng.random((n_pictures, n_slots)), 2).argsort(axis=1)
    named = np.take_along_axis(parts, order[:, :, None], axis=1)
    omitted = rng.random((n_pictures, n_slots)) < omit_part
    omitted[:, 0] = False
    omitted_attribute = rng.random((n_pictures, n_slots, 3)) < np.array([0, omit_colour, omit_fill])
    silent = omitted[:, :, None] | omitted_attribute | (named == NO_PART)
    return np.where(silent, UNSAID, named)


def wording(claims: Claims, rng: np.random.Generator) -> list[str]:
    """Write claims as captions."""
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
    """Describe one part, such as ``a striped red star``; in fixed wording without a generator."""
    shape, colour, fill = part
    words = ""
    if fill == 0:
        words += _PLAIN[rng.integers(len(_PLAIN))] if rng is not None else "plain "
    elif fill != UNSAID:
        words += f"{FILLS[fill]} "
    if colour != UNSAID:
        words += f"{COLOURS[colour]} "
    words += SHAPES[shape]
    return with_article(words)


def holds(claims: Claims, parts: Parts) -> NDArray[np.bool_]:
    """Return which of m captions are true of which of n pictures, (m, n).

    A caption is true if the picture contains every part it names; an empty caption is true of empty pictures.
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
    """Return the ids of all tokens that captions use, including [SOT] and [EOT], ascending."""
    names = (*SHAPES[:KNOWN_SHAPES], *COLOURS, *FILLS[:KNOWN_FILLS], "a", "an")
    tokenizer = clip_tokenizer()
    tokens = {tokenizer.sot_token_id, tokenizer.eot_token_id}
    for text in (*names, *_FRAMES, *_JOINTS, *_NOTHING, *_PLAIN):
        tokens.update(tokenizer.encode(text.replace("{}", "")))
    return sorted(tokens)
