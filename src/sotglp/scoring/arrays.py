"""Scores, probabilities and targets as people give them, checked before anything is computed from them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sotglp.errors import SotglpError

ROUNDING = 1e-3
"""How far above 1 a probability may lie, as means of probabilities in half precision do."""


def finite_scores(values: ArrayLike, what: str) -> NDArray[np.float64]:
    """A score for each image.

    Parameters
    ----------
    values : array-like
        (n,), at least one, all finite.
    what : str
        Names them in messages.

    Returns
    -------
    NDArray
        (n,).

    Raises
    ------
    SotglpError
        If they are of another shape, or one is NaN or infinite.
    """
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1 or len(scores) == 0:
        raise SotglpError(f"{what} are of shape {scores.shape}: give a single row of images, at least one")
    _refuse_strange(~np.isfinite(scores), scores, what, "is not finite")
    return scores


def class_probabilities(
    values: ArrayLike, what: str, *, axes: tuple[str, ...] = ("images", "classes")
) -> NDArray[np.floating[Any]]:
    """Probabilities of classes; those of an image need not sum to 1, since classes may be left out.

    Parameters
    ----------
    values : array-like
        With the axes that are asked for, none of them empty, all from 0 to 1.
    what : str
        Names them in messages.
    axes : tuple of str, default ("images", "classes")
        What the axes stand for.

    Returns
    -------
    NDArray
        The same, in the precision that they came in.

    Raises
    ------
    SotglpError
        If they are of another shape, or one is NaN or no probability.
    """
    probabilities = np.asarray(values)
    if probabilities.dtype.kind != "f":
        probabilities = probabilities.astype(np.float64)
    if probabilities.ndim != len(axes) or probabilities.size == 0:
        shape = f"{len(axes)} axes ({', '.join(axes)})" if len(axes) > 1 else f"a single row of {axes[0]}"
        raise SotglpError(f"{what} are of shape {probabilities.shape}: give {shape}, at least one of each")
    is_probability = (probabilities >= 0) & (probabilities <= 1 + ROUNDING)
    _refuse_strange(~is_probability, probabilities, what, "does not lie between 0 and 1")
    return probabilities


def class_targets(values: ArrayLike, n_images: int, n_classes: int) -> NDArray[np.int64]:
    """The place of each image's class among the columns of probabilities.

    Parameters
    ----------
    values : array-like
        (n,), whole numbers from 0 to C - 1.
    n_images, n_classes : int
        n and C.

    Returns
    -------
    NDArray
        (n,).

    Raises
    ------
    SotglpError
        If they are no whole numbers, not n of them, or one stands for no class.
    """
    targets = np.asarray(values)
    if targets.dtype.kind not in "iu":
        raise SotglpError(f"targets are of type {targets.dtype}: give the place of each image's class, from 0")
    if targets.shape != (n_images,):
        raise SotglpError(f"targets are of shape {targets.shape}: give one for each of the {n_images} images")
    _refuse_strange((targets < 0) | (targets >= n_classes), targets, "targets", f"is none of {n_classes} classes")
    return targets.astype(np.int64)


def _refuse_strange(is_strange: NDArray[np.bool_], values: NDArray[Any], what: str, why: str) -> None:
    if is_strange.any():
        place = tuple(int(i) for i in np.argwhere(is_strange)[0])
        shown = ", ".join(map(str, place))
        raise SotglpError(f"{what}[{shown}] = {values[place]} {why}: correct it or leave that image out")
