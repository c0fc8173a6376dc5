"""Checks of the scores, probabilities and targets that metrics and decisions are computed from, and their joining."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sotglp.errors import SotglpError
from sotglp.settings import MAX_TEMPERATURE, MIN_TEMPERATURE

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Rows = TypeVar("Rows", bound="DataclassInstance")

ROUNDING = 1e-3
"""Tolerance above 1 of a probability, for means of probabilities in half precision."""


def join_batches(batches: Sequence[Rows]) -> Rows:
    """Return several batches of one dataclass, whose fields are arrays with a row for each image, as one."""
    first = batches[0]
    return type(first)(*(np.concatenate([getattr(batch, field.name) for batch in batches]) for field in fields(first)))


def finite_scores(values: ArrayLike, what: str) -> NDArray[np.float64]:
    """Return scores as an array (n,), n at least 1, or raise a SotglpError that names them as ``what``."""
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1 or len(scores) == 0:
        raise SotglpError(f"{what} are of shape {scores.shape}: give one for each image, at least one")
    _reject_first(~np.isfinite(scores), scores, what, "is not finite")
    return scores


def class_probabilities(
    values: ArrayLike, what: str, *, axes: tuple[str, ...] = ("images", "classes")
) -> NDArray[np.floating[Any]]:
    """Return probabilities as an array with the given axes, none empty, or raise a SotglpError that names them.

    Floats keep their precision. A row need not sum to 1, since classes may be left out.
    """
    probabilities = np.asarray(values)
    if probabilities.dtype.kind != "f":
        probabilities = probabilities.astype(np.float64)
    if probabilities.ndim != len(axes) or probabilities.size == 0:
        raise SotglpError(
            f"{what} are of shape {probabilities.shape}: give {len(axes)} axes ({', '.join(axes)}), none of them empty"
        )
    is_probability = (probabilities >= 0) & (probabilities <= 1 + ROUNDING)
    _reject_first(~is_probability, probabilities, what, "is not between 0 and 1")
    return probabilities


def class_targets(values: ArrayLike, n_images: int, n_classes: int) -> NDArray[np.int64]:
    """Return class indices from 0 to C - 1 as an array (n,), or raise a SotglpError."""
    targets = np.asarray(values)
    if targets.dtype.kind not in "iu":
        raise SotglpError(f"targets are of type {targets.dtype}: give the class index of each image, from 0")
    if targets.shape != (n_images,):
        raise SotglpError(f"targets are of shape {targets.shape}: give one for each of the {n_images} images")
    _reject_first((targets < 0) | (targets >= n_classes), targets, "targets", f"is not one of {n_classes} classes")
    return targets.astype(np.int64)


def check_temperature(temperature: float) -> None:
    """Raise a SotglpError unless a temperature is between MIN_TEMPERATURE and MAX_TEMPERATURE."""
    if not MIN_TEMPERATURE <= temperature <= MAX_TEMPERATURE:
        raise SotglpError(
            f"temperature = {temperature} can't be used: choose one from {MIN_TEMPERATURE:g} to {MAX_TEMPERATURE:g}"
        )


def _reject_first(is_wrong: NDArray[np.bool_], values: NDArray[Any], what: str, why: str) -> None:
    if is_wrong.any():
        index = tuple(int(i) for i in np.argwhere(is_wrong)[0])
        shown = ", ".join(map(str, index))
        raise SotglpError(f"{what}[{shown}] = {values[index]} {why}: correct it or leave that image out")
