"""How much global cosines, local cosines and the residual count, chosen by cross-fitting on the shots."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from sotglp.methods.base import Outputs
from sotglp.methods.sot_glp import SOTGLP

MOST_FOLDS = 3

PENALTY = 1e-3
"""Weight of the squared factors, each in units of its scores' spread: shots that are all correct need a bound."""

Factors = tuple[float, float, float]


class HeldOutScores(NamedTuple):
    """Scores of n shots by models that did not see them: scaled global and local cosines, and residual, (n, C, 3)."""

    scores: NDArray[np.float64]
    targets: NDArray[np.int64]


@torch.no_grad()
def scores_of(model: SOTGLP, outputs: Outputs) -> NDArray[np.float64]:
    """Return what the logits of outputs are summed from, (B, C, 3)."""
    assert outputs.residual is not None
    scale = model.backbone.logit_scale
    parts = [scale * outputs.global_logits, scale * outputs.local_logits, outputs.residual]
    if model.config.branches != "both":
        parts[0 if model.config.branches == "local" else 1].zero_()
    return torch.stack(parts, dim=-1).double().cpu().numpy()


def choose_factors(held_out: HeldOutScores) -> Factors:
    """Choose the factors, not negative, with the least cross entropy on held-out shots; the problem is convex."""
    centred = held_out.scores - held_out.scores.mean(axis=1, keepdims=True)
    spread = centred.std(axis=(0, 1))
    spread[spread == 0] = 1
    centred /= spread
    each = np.arange(len(centred))

    def objective(factors: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logits = centred @ factors
        gradient = softmax(logits, axis=1)
        gradient[each, held_out.targets] -= 1
        loss = -log_softmax(logits, axis=1)[each, held_out.targets].mean() + PENALTY * factors @ factors
        return loss, np.einsum("nc,nck->k", gradient, centred) / len(each) + 2 * PENALTY * factors

    found = minimize(objective, np.ones(3), jac=True, method="L-BFGS-B", bounds=[(0, None)] * 3)
    of_global, of_local, of_residual = (found.x / spread).tolist()
    return of_global, of_local, of_residual
