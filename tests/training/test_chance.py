from __future__ import annotations

import math
import re
import warnings
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest

from sotglp import Backbone, SotglpWarning
from sotglp.images.image_set import ImageSet
from sotglp.methods.method import find_method
from sotglp.settings import Preset
from sotglp.training.chance import SIGNIFICANCE, USEFUL, USELESS, is_near_chance, warn_near_chance
from sotglp.training.fit import adapt

TRAINING = {"shots": None, "augment": False, "learning_rate": 0.02, "batch_size": 8}


@pytest.fixture
def noise() -> ImageSet:
    """Forty images of four classes that nothing tells apart."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(256, size=(40, 32, 32, 3), dtype=np.uint8)
    return ImageSet.from_items([Image.fromarray(one) for one in pixels], [f"class {n % 4}" for n in range(40)])


def warned(backbone: Backbone, images: ImageSet, method: str = "sot-glp", **changes: Any) -> list[str]:
    model, training = find_method(method).settings_on(Preset(), {**TRAINING, **changes})
    fitted = adapt(backbone, images, model, training)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_near_chance(fitted, training)
    return [str(one.message) for one in caught if issubclass(one.category, SotglpWarning)]


@pytest.mark.parametrize("chance", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("n", [2, 18, 160])
def test_near_chance_is_what_a_binomial_test_or_the_skill_says(n: int, chance: float) -> None:
    for n_correct in range(n + 1):
        p_value = binomtest(n_correct, n, chance, alternative="greater").pvalue
        skill = (n_correct / n - chance) / (1 - chance)
        assert is_near_chance(n_correct, n, chance) == (skill < USELESS or (p_value > SIGNIFICANCE and skill < USEFUL))


def test_many_images_do_not_make_a_useless_accuracy_significant() -> None:
    assert binomtest(1200, 10_000, 0.1, alternative="greater").pvalue < 1e-8
    assert is_near_chance(1200, 10_000, 0.1)
    assert not is_near_chance(2500, 10_000, 0.1)


@pytest.mark.parametrize(("n_correct", "n"), [(2, 2), (3, 4), (6, 8)])
def test_a_good_fit_of_a_few_images_is_not_near_chance(n_correct: int, n: int) -> None:
    assert binomtest(n_correct, n, 0.5, alternative="greater").pvalue > SIGNIFICANCE
    assert not is_near_chance(n_correct, n, 0.5)
    assert is_near_chance(n_correct - 1, n, 0.5)


@pytest.mark.parametrize("method", ["sot-glp", "plot", "locoop"])
def test_a_fit_that_learns_nothing_is_told_with_its_numbers(
    method: str, tiny_backbone: Backbone, noise: ImageSet
) -> None:
    (message,) = warned(tiny_backbone, noise, method, epochs=2, learning_rate=1e-5)
    accuracy, chance, entropy, log_c = re.findall(r"\d+\.\d+(?=[%;) ])", message)[:4]
    assert float(accuracy) < 50
    assert (chance, log_c) == ("25.0", f"{math.log(4):.2f}")
    assert float(entropy) == pytest.approx(math.log(4), abs=1)
    assert "1e-05" in message
    assert "(now 2)" in message


def test_a_separable_set_is_not_near_chance(tiny_backbone: Backbone, images: ImageSet) -> None:
    assert warned(tiny_backbone, images, epochs=8, learning_rate=0.05) == []


def test_chance_is_the_share_of_the_commonest_class(tiny_backbone: Backbone, noise: ImageSet) -> None:
    labels = ["common"] * 30 + ["rare"] * 10
    uneven = ImageSet.from_items(list(noise.images), labels)
    (message,) = warned(tiny_backbone, uneven, epochs=1)
    assert "chance 75.0%" in message


@pytest.mark.parametrize("method", ["zero-shot", "linear-probe", "tip-adapter"])
def test_methods_without_training_have_nothing_to_say(method: str, tiny_backbone: Backbone, noise: ImageSet) -> None:
    assert warned(tiny_backbone, noise, method) == []
