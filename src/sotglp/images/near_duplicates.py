"""Near-duplicates of images by a perceptual hash: the signs of the low frequencies of a small gray picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SIDE = 64
_FREQUENCIES = 16

N_BITS = _FREQUENCIES**2

MOST_BITS = 64
"""Images whose hashes differ in at most this many of 256 bits are near-duplicates; see docs/near_duplicates.md."""

_MOST_COMPARED = 2**24
"""Pairs that are compared at once, so that memory stays bounded."""


@dataclass(frozen=True, eq=False)
class Hashes:
    """Perceptual hashes (256,) of a picture and of its mirror image."""

    plain: NDArray[np.bool_]
    mirrored: NDArray[np.bool_]

    @classmethod
    def of(cls, picture: Image.Image) -> Hashes:
        """Compute the hashes of a decoded picture."""
        small = picture.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
        return cls(_hash(small), _hash(small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)))


@dataclass(frozen=True)
class NearDuplicates:
    """Positions of two or more pictures that are linked by near-duplicates, and the most bits that differ in a link."""

    indices: tuple[int, ...]
    most_bits: int


def find_near_duplicates(hashes: Sequence[Hashes], most_bits: int = MOST_BITS) -> list[NearDuplicates]:
    """Group pictures whose hashes, or those of one and the other's mirror image, differ in ``most_bits`` at most.

    Two pictures of a group may differ in more bits, if others between them don't. Groups are in order of their first
    picture.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    # Equal hashes are compared once: of thousands of equal pictures, all pairs would be links.
    equal: dict[bytes, list[int]] = {}
    for position, one in enumerate(hashes):
        equal.setdefault(one.plain.tobytes(), []).append(position)
    distinct = [hashes[positions[0]] for positions in equal.values()]
    if not distinct:
        return []
    signs, mirrored = (
        np.stack([getattr(one, name) for one in distinct]).astype(np.float32) * 2 - 1 for name in ("plain", "mirrored")
    )
    links: list[NDArray[np.int64]] = []
    bits: list[NDArray[np.float32]] = []
    step = max(1, _MOST_COMPARED // len(distinct))
    for start in range(0, len(distinct), step):
        rows = signs[start : start + step]
        # The product of signs is the number of equal bits less that of different ones.
        apart = (N_BITS - np.maximum(rows @ signs.T, rows @ mirrored.T)) / 2
        first, second = np.nonzero(apart <= most_bits)
        is_pair = first + start < second
        links.append(np.stack([first[is_pair] + start, second[is_pair]]))
        bits.append(apart[first[is_pair], second[is_pair]])
    (first, second), values = np.concatenate(links, axis=1), np.concatenate(bits)
    # scipy 1.11 takes no other type of indices here.
    places = (first.astype(np.int32), second.astype(np.int32))
    graph = coo_array((np.ones(len(first)), places), shape=(len(distinct), len(distinct)))
    n_groups, component = connected_components(graph, directed=False)
    most = np.zeros(n_groups)
    np.maximum.at(most, component[first], values)
    members: list[list[int]] = [[] for _ in range(n_groups)]
    for group, positions in zip(component, equal.values(), strict=True):
        members[group] += positions
    groups = [
        NearDuplicates(tuple(sorted(positions)), int(of_group))
        for positions, of_group in zip(members, most, strict=True)
        if len(positions) > 1
    ]
    return sorted(groups, key=lambda group: group.indices)


def _hash(small: Image.Image) -> NDArray[np.bool_]:
    from scipy.fft import dctn

    low = dctn(np.asarray(small, dtype=np.float64))[:_FREQUENCIES, :_FREQUENCIES]
    return np.asarray((low > np.median(low)).ravel())
