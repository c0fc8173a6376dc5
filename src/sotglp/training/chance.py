"""Whether a fit learned its own training images, or ended near chance."""

from __future__ import annotations

import math
import warnings
from collections import Counter

from scipy.special import bdtrc

from sotglp.errors import SotglpWarning
from sotglp.settings import TrainConfig
from sotglp.training.fit import Fitted

SIGNIFICANCE = 0.05
"""Level of the one-sided binomial test of the training accuracy against chance."""

USELESS, USEFUL = 0.1, 0.5
"""Shares of the way from chance to perfect accuracy: a fit below the first one is near chance even if that test says
otherwise, since it has many images, and a fit from the second one is not even if it has too few for the test."""


def warn_near_chance(fitted: Fitted, config: TrainConfig) -> None:
    """Emit a SotglpWarning if the last epoch's training accuracy is near chance, by :func:`is_near_chance`.

    Chance is the accuracy of always predicting the commonest class, 1 / C for classes of equal size. Methods without
    training have no training accuracy.
    """
    if not fitted.history:
        return
    last = fitted.history[-1]
    batch = min(config.batch_size, len(fitted.images))
    n = len(fitted.images) // batch * batch  # the last incomplete batch is dropped
    chance = max(Counter(fitted.images.labels).values()) / len(fitted.images)
    if not is_near_chance(round(last["accuracy"] * n), n, chance):
        return
    cross_entropy = last["loss_global"] or last["loss_local"]  # a branch that isn't learned has none
    log_c = math.log(len(fitted.model.class_names))
    warnings.warn(
        f"training ended near chance: accuracy {last['accuracy']:.1%} on {n} training images (chance {chance:.1%}), "
        f"cross entropy {cross_entropy:.2f} (chance {log_c:.2f}); try another backbone, another learning rate (now "
        f"{config.learning_rate:g}) or more epochs (now {len(fitted.history)})",
        SotglpWarning,
        stacklevel=3,
    )


def is_near_chance(n_correct: int, n: int, chance: float) -> bool:
    """Whether ``n_correct`` of ``n`` predictions are hardly more than ``chance``, the share right without knowledge."""
    skill = (n_correct / n - chance) / (1 - chance)
    # P(X >= n_correct), which a cumulative distribution defines for positive numbers.
    p_value = float(bdtrc(n_correct - 1, n, chance)) if n_correct else 1.0
    return skill < USELESS or (skill < USEFUL and p_value > SIGNIFICANCE)
