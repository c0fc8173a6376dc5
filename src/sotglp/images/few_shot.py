"""Few-shot draws: the labelled images that a model is fitted on."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from numbers import Integral
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from sotglp.errors import SotglpError, SotglpWarning, some_names
from sotglp.settings import MAX_SKLEARN_SEED, Draw

_MAX_SEED = 2**63 - 1


def draw_shots(labels: Sequence[str], shots: int, seed: int, *, draw: Draw = "per-class") -> NDArray[np.int64]:
    """Draw ``shots`` images of each class; return the indices of the drawn ``labels``, ascending.

    The draw "per-class" takes all images of a class that has fewer than ``shots``. The draw "published" takes shots x
    classes images in proportion to the class sizes, as for the published results, or all if there are no more. If all
    classes have the same number of images, both are scikit-learn's StratifiedShuffleSplit with train_size = shots x
    classes, which draws exactly ``shots`` images of each class. ``seed`` is from 0 to 2**63 - 1; scikit-learn
    takes it modulo 2**32.

    Warn if classes have fewer images than ``shots``, or the published draw has no image of a class. Raise a SotglpError
    if an argument is out of range, or the published draw is impossible with these class sizes.
    """
    _check(labels, shots, seed, draw)
    classes = sorted(set(labels))
    class_index = {name: k for k, name in enumerate(classes)}
    targets = np.array([class_index[label] for label in labels], dtype=np.int64)
    counts = np.bincount(targets, minlength=len(classes))
    if len(targets) <= shots * len(classes) and (draw == "published" or counts.max() <= shots):
        _warn_of_small_classes(classes, counts, shots)
        return np.arange(len(targets), dtype=np.int64)
    if draw == "published" or counts.min() == counts.max():
        return _proportional(targets, classes, counts, shots, seed)
    _warn_of_small_classes(classes, counts, shots)
    return _per_class(targets, counts, shots, seed)


def deal_folds(targets: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Deal out the images of each class in turn to at most ``most`` folds; return the fold of each image, (n,).

    Each fold has an image of every class in class indices ``targets`` (n,). If a class has a single image there is one
    fold only.
    """
    n_folds = max(min(most, int(np.bincount(targets).min())), 1)
    order = np.argsort(targets, kind="stable")
    first = np.searchsorted(targets[order], targets[order])
    folds = np.empty_like(targets)
    folds[order] = (np.arange(len(targets)) - first) % n_folds
    return folds


def _check(labels: Sequence[str], shots: int, seed: int, draw: Draw) -> None:
    if len(labels) == 0:
        raise SotglpError("there are no labels to draw shots from; give at least one labelled image per class")
    if not isinstance(shots, Integral) or shots < 1:
        raise SotglpError(f"shots is {shots!r}; give the number of images per class, at least 1")
    if not isinstance(seed, Integral) or not 0 <= seed <= _MAX_SEED:
        raise SotglpError(f"seed is {seed!r}; give an integer from 0 to {_MAX_SEED}")
    if draw not in get_args(Draw):
        raise SotglpError(f"draw is {draw!r}; give one of {', '.join(map(repr, get_args(Draw)))}")


def _fewer(classes: Sequence[str], counts: NDArray[np.int64], least: int) -> list[str]:
    return [name for name, count in zip(classes, counts, strict=True) if count < least]


def _warn_of_small_classes(classes: Sequence[str], counts: NDArray[np.int64], shots: int) -> None:
    if small := _fewer(classes, counts, shots):
        few = "1 class has" if len(small) == 1 else f"{len(small)} classes have"
        warnings.warn(
            f"{few} fewer than {shots} images, all of which are used: {some_names(small)}",
            SotglpWarning,
            stacklevel=3,
        )


def _proportional(
    targets: NDArray[np.int64], classes: Sequence[str], counts: NDArray[np.int64], shots: int, seed: int
) -> NDArray[np.int64]:
    n_drawn = shots * len(classes)
    advice = 'use the draw "per-class"'
    if counts.min() < 2:
        raise SotglpError(
            "the published draw needs two images of every class, but there is one of: "
            f"{some_names(_fewer(classes, counts, 2))}; {advice}"
        )
    if len(targets) - n_drawn < len(classes):
        raise SotglpError(
            f"the published draw of {n_drawn} from {len(targets)} images is impossible, since at least one per class "
            f"({len(classes)} classes) must remain; {advice}"
        )
    # Heavy, and not needed where images are only listed.
    from sklearn.model_selection import StratifiedShuffleSplit

    splitter = StratifiedShuffleSplit(n_splits=1, train_size=int(n_drawn), random_state=int(seed) % MAX_SKLEARN_SEED)
    # The split depends on the numbers of the classes.
    _, first, inverse = np.unique(targets, return_index=True, return_inverse=True)
    drawn, _ = next(splitter.split(np.zeros(len(targets)), np.argsort(np.argsort(first))[inverse]))
    if missed := _fewer(classes, np.bincount(targets[drawn], minlength=len(classes)), 1):
        warnings.warn(
            f"the published draw has no image of: {some_names(missed)}; {advice} to draw from every class",
            SotglpWarning,
            stacklevel=3,
        )
    return np.sort(drawn).astype(np.int64)


def _per_class(targets: NDArray[np.int64], counts: NDArray[np.int64], shots: int, seed: int) -> NDArray[np.int64]:
    drawn = []
    for k, count in enumerate(counts):
        members = np.flatnonzero(targets == k)
        # One generator per class, so that images added to a class don't change the draw from the others.
        generator = np.random.default_rng((int(seed), k))
        drawn.append(members if count <= shots else generator.choice(members, size=int(shots), replace=False))
    return np.sort(np.concatenate(drawn)).astype(np.int64)
