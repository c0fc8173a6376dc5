"""Newton's method for transport problems on which Sinkhorn sweeps converge slowly.

Entropic transport is a smooth concave maximisation over one potential per column, since the best row potentials then
have a closed form. Newton's method converges quadratically on it for any epsilon, whereas the rate of Sinkhorn sweeps
tends to 1 as epsilon decreases.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

FIRST_SPREAD = 8.0
"""Largest absolute reduced cost over the first temperature; 4 to 16 take equally many steps."""

COOLING = 5.0
"""Factor between two temperatures; 2 to 10 take equally many steps."""

RIDGE = 1e-15
"""Curvature added to every column relative to the largest column mass, the size of float64 rounding errors."""

TINY = torch.finfo(torch.float64).tiny
"""Keeps quotients finite if relaxed marginals let all mass vanish."""


@dataclass(frozen=True)
class Problems:
    """A batch of transport problems in float64 and the state of their solution.

    The plan of a problem is `reference * exp(-reduced_cost / temperature)`. ``reduced_cost`` (B, K, N) is the cost less
    both potentials, ``log_reference`` (B, K, N) the logarithm of the product of the given marginals. ``log_row`` (B, K)
    and ``log_column`` (B, N) are logarithms of the target masses, which depend on the potentials if marginals are
    relaxed, and ``temperature`` (B,) is the current entropic regularisation, in units of the cost.
    """

    reduced_cost: Tensor
    log_reference: Tensor
    log_row: Tensor
    log_column: Tensor
    temperature: Tensor

    def __getitem__(self, index: Tensor) -> Problems:
        """Select problems by a mask or indices of shape (B,)."""
        return Problems(
            self.reduced_cost[index],
            self.log_reference[index],
            self.log_row[index],
            self.log_column[index],
            self.temperature[index],
        )

    def transposed(self) -> Problems:
        """Exchange rows and columns."""
        return Problems(self.reduced_cost.mT, self.log_reference.mT, self.log_column, self.log_row, self.temperature)


def solve_by_newton(problems: Problems, slack: float, tolerance: float, max_iterations: int) -> tuple[Tensor, Tensor]:
    """Solve each problem at its temperature, cooling down to it from a high one, and return plans (B, K, N) and errors.

    An error (B,) is the total variation of the column marginals relative to the mass; it is at most ``tolerance``
    unless the problem took ``max_iterations`` Newton steps. Row marginals hold to rounding. No potential is subtracted
    from the problems yet. ``slack`` is one over the weight of the marginal penalty, per unit of cost; 0 for hard
    marginals.

    References
    ----------
    G. Peyre and M. Cuturi, "Computational Optimal Transport", 2019, sections 4.3 (epsilon scaling) and 4.4-4.5 (dual
    and semi-dual). T. Sun and Q. Tran-Dinh, "Generalized self-concordant functions: a recipe for Newton-type methods",
    Mathematical Programming 178, 2019 (the step length).
    """
    n_rows, n_columns = problems.reduced_cost.shape[1:]
    if n_columns > n_rows:  # the linear systems have the size of the column side
        plans, errors = solve_by_newton(problems.transposed(), slack, tolerance, max_iterations)
        return plans.mT, errors

    final_temperature = problems.temperature
    first_temperature = problems.reduced_cost.abs().amax((1, 2)) / FIRST_SPREAD
    state = replace(problems, temperature=torch.maximum(final_temperature, first_temperature))
    plans = torch.empty_like(problems.reduced_cost)
    errors = torch.full_like(final_temperature, torch.inf)
    pending = torch.arange(len(plans), device=plans.device)
    for iteration in range(max_iterations + 1):
        if iteration == max_iterations:  # unsolved problems return a plan and an error at their own epsilon
            state = replace(state, temperature=final_temperature)
        state, plan = _fill_rows(state, slack)
        residual = state.log_column.exp() - plan.sum(1)
        error = total_variation(residual, state.log_column.exp())
        cold = state.temperature <= final_temperature
        finished = (error <= tolerance) & cold | (iteration == max_iterations)
        # One synchronisation per step costs little compared with its linear solve.
        if finished.any():
            plans[pending[finished]] = plan[finished]
            errors[pending[finished]] = error[finished]
            left = ~finished
            pending, final_temperature = pending[left], final_temperature[left]
            if len(pending) == 0:
                break
            state, plan, residual = state[left], plan[left], residual[left]
        state = _newton_step(state, plan, residual, final_temperature, slack)
    return plans, errors


def total_variation(residual: Tensor, target: Tensor) -> Tensor:
    """Compute half the summed absolute `residual` of mass per column, relative to the summed `target` (both (..., N)).

    To first order it bounds the error of every entry of the plan relative to the mass: the correction is an electrical
    flow into the columns with too little mass, and no edge carries more than the total flow.
    """
    return residual.abs().sum(-1) / (2 * target.sum(-1)).clamp(min=TINY)


def _fill_rows(state: Problems, slack: float) -> tuple[Problems, Tensor]:
    """Set the row potentials to their optimum for those of the columns; also return the plan (B, K, N)."""
    temperature = state.temperature[:, None]
    log_plan = state.log_reference - state.reduced_cost / temperature[:, :, None]
    gain = (state.log_row - log_plan.logsumexp(2)) / (1 + slack * temperature)  # (B, K)
    filled = replace(
        state,
        # Subtracting potentials from the cost keeps the entries that carry mass small, and so exact even if the cost is
        # 1e6 times the temperature.
        reduced_cost=state.reduced_cost - (temperature * gain)[:, :, None],
        log_row=state.log_row - slack * temperature * gain,
    )
    return filled, (log_plan + gain[:, :, None]).exp()


def _newton_step(state: Problems, plan: Tensor, residual: Tensor, final_temperature: Tensor, slack: float) -> Problems:
    """Update the column potentials, and lower the temperature of problems that are nearly solved."""
    softness = slack * state.temperature[:, None]  # (B, 1): 0 for hard marginals
    row_mass = plan.sum(2, keepdim=True).clamp(min=TINY)
    coupling = plan.mT @ (plan / (row_mass * (1 + softness[:, :, None])))  # (B, N, N)
    coupling.diagonal(dim1=1, dim2=2).zero_()
    target = state.log_column.exp()
    # The diagonal is a sum of positive terms, not a difference of column mass and self-coupling, whose rounding error
    # exceeds the small entries that connect nearly separate blocks of a plan.
    curvature = coupling.sum(2) + softness * target + softness / (1 + softness) * plan.sum(1)
    curvature = (curvature + RIDGE * target.amax(1, keepdim=True)).clamp(min=TINY)
    hessian = torch.diag_embed(curvature) - coupling
    direction = torch.linalg.solve_ex(hessian, residual[:, :, None])[0].squeeze(2)  # (B, N)

    # Along the direction the third derivative is at most `step_bound` times the second. For such functions this damping
    # never overshoots the maximum, tends to the full step near it, and is exact for a single exponential.
    step_bound = direction.clamp(min=0).amax(1) - direction.clamp(max=0).amin(1)
    step_bound = step_bound * (1 + 3 * softness / (1 + softness)).squeeze(1)
    damping = torch.where(step_bound > 0, torch.log1p(step_bound) / step_bound, 1.0)
    move = state.temperature[:, None] * damping[:, None] * direction

    cooler = torch.maximum(state.temperature / COOLING, final_temperature)
    return replace(
        state,
        reduced_cost=state.reduced_cost - move[:, None, :],
        log_column=state.log_column - slack * move,
        # Within step bound 1 Newton converges quadratically; the gap of an earlier cooling would grow each time.
        temperature=torch.where(step_bound <= 1, cooler, state.temperature),
    )
