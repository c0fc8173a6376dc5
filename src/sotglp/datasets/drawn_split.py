"""A split of our own, for images that come without one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sotglp.datasets.parts import Sample
from sotglp.errors import SotglpError

SEED = 1
TRAIN_SHARE = 0.5
VAL_SHARE = 0.2


def draw_parts(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    """Draw half of each class for train and a fifth for val; the rest is for test.

    The shares are those by which the published splits were drawn; the draw itself is another.

    Parameters
    ----------
    samples : sequence of Sample
        In an order that doesn't depend on the disk.

    Raises
    ------
    SotglpError
        If a class has too few images to have some in every part.
    """
    by_class: dict[int, list[Sample]] = {}
    for sample in samples:
        by_class.setdefault(sample[1], []).append(sample)
    parts: dict[str, list[Sample]] = {"train": [], "val": [], "test": []}
    for number, members in sorted(by_class.items()):
        n_train, n_val = round(len(members) * TRAIN_SHARE), round(len(members) * VAL_SHARE)
        if not (n_val and n_train + n_val < len(members)):
            raise SotglpError(
                f"class {members[0][2]!r} has only {len(members)} images, too few for train, val and test; "
                "get the dataset again"
            )
        # A generator for each class, so that images added to one class don't change the draw from another.
        order = np.random.default_rng((SEED, number)).permutation(len(members))
        drawn = np.split(order, [n_train, n_train + n_val])
        for part, positions in zip(parts.values(), drawn, strict=True):
            part += [members[position] for position in sorted(positions)]
    return parts
