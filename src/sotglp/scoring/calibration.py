"""What a model was found to be worth on images that it did not learn from, and the decisions that rest on it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sotglp.errors import SotglpError
from sotglp.methods.base import AdaptedModel
from sotglp.scoring.conformal import cross_sets, split_sets
from sotglp.scoring.rejection import Rejection
from sotglp.scoring.temperature import tempered
from sotglp.settings import InferenceConfig, OodMethod


@dataclass(frozen=True)
class Calibration:
    """A threshold for rejection, a temperature for probabilities, and what prediction sets are made from.

    Attributes
    ----------
    ood_method : str
        Score that the threshold is for; see :func:`sotglp.ood.score`.
    ood_temperature : float
        Temperature of that score.
    rejection : Rejection
        The threshold, and how many images of the classes it lets pass.
    temperature : float
        Probabilities p become p^(1 / temperature), normalised; 1 where labels were not known.
    true_probabilities : NDArray
        Probability, before temperature, of the right class of each calibration image, (n,); (0,) without labels.
    folds : NDArray or None
        Fold of each calibration image, (n,); None where all were kept from training.
    fold_models : tuple of AdaptedModel
        Model of each fold, which did not learn from it; empty where there are no folds.
    """

    ood_method: OodMethod
    ood_temperature: float
    rejection: Rejection
    temperature: float = 1.0
    true_probabilities: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    folds: NDArray[np.int64] | None = None
    fold_models: tuple[AdaptedModel, ...] = ()

    def is_for(self, inference: InferenceConfig) -> bool:
        """Whether images that are read so are scored as the threshold wants it."""
        return (self.ood_method, self.ood_temperature) == (inference.ood_method, inference.temperature)

    def rejects(self, ood_scores: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Whether each image is taken to be of no class, (B,), from its scores by ``ood_method``."""
        below: NDArray[np.bool_] = ood_scores < self.rejection.threshold
        return below

    def probabilities(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities (B, C) at this temperature."""
        return tempered(probabilities, self.temperature)

    def sets(self, probabilities: NDArray[np.float32], coverage: float) -> NDArray[np.bool_]:
        """Classes that come into question for each image, (B, C).

        Parameters
        ----------
        probabilities : NDArray
            Before temperature, from the model and from that of each fold in turn, (1 + F, B, C).
        coverage : float
            Share of images whose right class should be in the set; see :mod:`sotglp.scoring.conformal`.

        Raises
        ------
        SotglpError
            If calibration knew no labels, or ``coverage`` is not between 0 and 1.
        """
        if not len(self.true_probabilities):
            raise SotglpError("prediction sets need a calibration with labels: calibrate again and give them")
        if self.folds is None:
            return split_sets(probabilities[0], self.true_probabilities, coverage)
        return cross_sets(probabilities[1:], self.true_probabilities, self.folds, coverage)
