"""Entropic optimal transport in a form that ``torch.export`` can trace: one loop of sweeps for all problems.

:func:`sotglp.transport.sinkhorn` removes problems as they are solved and uses Newton's method for hard ones, which
depends on values that a traced graph does not have.
"""

from __future__ import annotations

import torch
from torch import Tensor

MAX_SWEEPS = 2000
"""At epsilon 0.1 and cosine costs 99.9 % of problems need 60 for marginals to 1e-7."""

TOLERANCE = 1e-9
"""Relative change of a row's scale in one sweep below which a problem is solved."""


def sweep_plans(cost: Tensor, epsilon: float) -> Tensor:
    """Compute transport plans with uniform marginals by at most ``MAX_SWEEPS`` sweeps in float64.

    Cost and plan are (B, C, K, N); row sums hold to rounding. Beyond a range of some hundred ``epsilon`` the kernel
    leaves the range of float64, and the sweeps may be too few before that: compare with
    :func:`sotglp.transport.sinkhorn`, whose references apply.
    """
    n_rows, n_columns = cost.shape[-2:]
    costs = cost.double()
    middle = (costs.amax((-2, -1), keepdim=True) + costs.amin((-2, -1), keepdim=True)) / 2
    kernel = ((middle - costs) / epsilon).exp()

    def column_scale(row_scale: Tensor) -> Tensor:
        """Scale of the columns for the mass 1 / N, (B, C, 1, N)."""
        return 1 / (n_columns * (kernel * row_scale).sum(-2, keepdim=True))

    def sweep(row_scale: Tensor) -> Tensor:
        """Scale of the rows for the mass 1 / K, after that of the columns, (B, C, K, 1)."""
        return 1 / (n_rows * (kernel * column_scale(row_scale)).sum(-1, keepdim=True))

    def is_unsolved(n_sweeps: Tensor, row_scale: Tensor, change: Tensor) -> Tensor:
        return (n_sweeps < MAX_SWEEPS) & (change > TOLERANCE)

    def step(n_sweeps: Tensor, row_scale: Tensor, change: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        swept = sweep(row_scale)
        return n_sweeps + 1, swept, (swept / row_scale - 1).abs().amax((0, 1, 2, 3))

    start = sweep(torch.ones_like(kernel[..., :1]))
    counter = torch.zeros((), dtype=torch.int64, device=cost.device)
    change = torch.ones((), dtype=torch.float64, device=cost.device)
    _, row_scale, _ = torch.while_loop(is_unsolved, step, (counter, start, change))
    plan: Tensor = kernel * column_scale(row_scale) * sweep(row_scale)
    return plan.to(cost.dtype)
