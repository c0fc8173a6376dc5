from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from sotglp import Backbone, SotglpWarning
from sotglp.methods.linear_probe import LinearProbe
from sotglp.methods.zero_shot import ZeroShot
from sotglp.scoring.baseline import warn_if_weak, zero_shot_beside
from support.prompt_models import NAMES

TARGETS = np.arange(40) % 4


def right(n: int) -> NDArray[np.bool_]:
    return np.arange(40) < n


def said(is_right: NDArray[np.bool_], zero_shot: NDArray[np.bool_] | None) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_if_weak(is_right, zero_shot, TARGETS)
    return [str(one.message) for one in caught if issubclass(one.category, SotglpWarning)]


def test_a_useful_model_is_not_remarked_on() -> None:
    assert said(right(30), right(20)) == []
    assert said(right(30), None) == []


def test_accuracy_near_chance_is_reported_with_both() -> None:
    (message,) = said(right(11), None)
    assert "27.5%" in message
    assert "25.0%" in message


def test_accuracy_clearly_below_zero_shot_is_reported_with_both() -> None:
    (message,) = said(right(25), right(32))
    assert "62.5%" in message
    assert "80.0%" in message


def test_a_difference_of_few_images_is_not_clear() -> None:
    assert said(right(30), right(32)) == []


def test_images_of_a_single_class_have_no_chance_to_beat() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_weak(right(10), None, np.zeros(40, dtype=np.int64))


def test_the_baseline_has_the_models_sentence(tiny_backbone: Backbone) -> None:
    beside = zero_shot_beside(LinearProbe(tiny_backbone, NAMES, zero_shot_template="{} texture."))
    assert beside is not None
    assert beside.config.zero_shot_template == "{} texture."
    assert zero_shot_beside(ZeroShot(tiny_backbone, NAMES)) is None
