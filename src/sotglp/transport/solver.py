"""Entropic optimal transport between the kept patches and the local prompts of a class.

Batches of small independent problems are solved together. Sinkhorn sweeps solve those that are easy at their epsilon;
Newton's method (`sotglp.transport.newton`) solves the others, and those with relaxed marginals. All arithmetic is in
float64, which autocast does not change: at these sizes it takes a third more time than float32, and float32 can't hold
the marginals to 1e-6 once cost / epsilon is large.
"""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from sotglp.errors import SotglpError, SotglpWarning
from sotglp.transport.newton import Problems, solve_by_newton, total_variation

MAX_SWEEPS = 60
"""Sweeps after which Newton's method takes over; at epsilon 0.1 and cosine costs 99.9 % of problems need fewer."""

SWEEPS_PER_CHECK = 10
"""Sweeps between two checks of which problems are solved; on a GPU each check synchronises."""

SWEEP_SPREAD = 100.0
"""Largest absolute exponent of a kernel that sweeps scale, far inside float64's range (exp(709))."""

ENTRIES_AT_ONCE = 2**20
"""Plan entries solved together, which bounds temporary memory to about 100 MB."""

MAX_COST_PER_RELAXATION = 200
"""Beyond this the mass of a relaxed plan changes by more than exp(100), and Newton's method fails."""

MARGINAL_SUM_TOLERANCE = 1e-5
"""Relative difference of the marginals' sums that counts as float32 rounding."""


class NonFiniteCostError(SotglpError):
    """A cost is infinite or NaN."""


def sinkhorn(
    cost: Tensor,
    epsilon: float,
    *,
    row_marginal: Tensor | None = None,
    column_marginal: Tensor | None = None,
    relaxation: float | None = None,
    tolerance: float | None = None,
    max_iterations: int = 500,
) -> Tensor:
    r"""Compute transport plans that minimise cost plus entropy, for a batch of independent problems.

    Balanced (`relaxation` None), with a and b the marginals: the minimum over plans T >= 0 with row sums a and column
    sums b of `sum(T * cost) + epsilon * KL(T, a b^T)`. Relaxed, with weight rho: the minimum over all T >= 0 of
    `sum(T * cost) + epsilon * KL(T, a b^T) + rho * KL(T 1, a) + rho * KL(T^T 1, b)`, where
    `KL(x, y) = sum(x log(x / y) - x + y)`. The reference measure of the entropy is the product of the marginals
    (POT's `reg_type="kl"`); in the balanced case every reference of product form gives the same plan.

    Parameters
    ----------
    cost : Tensor, shape (..., K, N)
        Cost of moving a unit of mass from row to column, any finite numbers of a floating dtype.
    epsilon : float
        Weight of the entropy, in units of the cost.
    row_marginal : Tensor, broadcastable to (..., K), optional
        Positive mass of every row. Default: 1 / K.
    column_marginal : Tensor, broadcastable to (..., N), optional
        Positive mass of every column. Default: 1 / N. In balanced problems it must have the sum of the row marginal;
        a relative difference below 1e-5 counts as rounding and is scaled away.
    relaxation : float, optional
        Weight rho of the penalty on marginals, in units of the cost; at least 1/200 of the largest absolute
        cost. Default: marginals are hard constraints.
    tolerance : float, optional
        Largest total-variation error of the marginals (half the summed absolute errors), relative to the mass; to
        first order no entry of the plan is further off than this (twice this, if relaxed). Default: 1e-11 for float64
        cost, 1e-7 otherwise.
    max_iterations : int
        Maximum number of Newton steps of a problem that sweeps do not solve. A few tens are usual; the largest seen is
        160, at 60 x 40 and a cost range of 1e6 epsilon.

    Returns
    -------
    Tensor, shape (..., K, N)
        The plans, without gradient, in the dtype of `cost` (float32 for half-precision cost).

    Raises
    ------
    SotglpError
        If an argument is out of range or has a wrong shape, cost is not finite, or marginals differ in sum.

    Warns
    -----
    SotglpWarning
        If a problem did not reach the tolerance.

    References
    ----------
    "Local-Global Prompt Learning via Sparse Optimal Transport", arXiv 2603.08347, on sparse optimal transport.
    M. Cuturi, "Sinkhorn distances: lightspeed computation of optimal transport", NeurIPS 2013.
    G. Peyre and M. Cuturi, "Computational Optimal Transport", 2019, section 4.4 (log domain).
    L. Chizat, G. Peyre, B. Schmitzer, F.-X. Vialard, "Scaling algorithms for unbalanced transport problems",
    Mathematics of Computation 87, 2018.
    """
    _check_numbers(epsilon, relaxation, tolerance, max_iterations)
    _check_cost(cost, relaxation)
    dtype = cost.dtype if cost.dtype == torch.float64 else torch.float32
    if tolerance is None:
        tolerance = 1e-11 if dtype == torch.float64 else 1e-7
    slack = 0.0 if relaxation is None else 1 / relaxation

    with torch.no_grad():
        costs, rows, columns = _flatten_batch(cost, row_marginal, column_marginal)
        if slack == 0:
            columns = _equal_sums(rows, columns)
        per_chunk = max(1, ENTRIES_AT_ONCE // costs.shape[1:].numel())
        chunks = [
            _solve(*chunk, epsilon, slack, tolerance, max_iterations)
            for chunk in zip(costs.split(per_chunk), rows.split(per_chunk), columns.split(per_chunk), strict=True)
        ]
        _warn_of_failures(torch.cat([errors for _, errors in chunks]), tolerance, max_iterations)
        plans = torch.cat([plans for plans, _ in chunks])
        return plans.to(dtype).to(cost.device).reshape(cost.shape)


def marginal_error(plan: Tensor, row_marginal: Tensor | None = None, column_marginal: Tensor | None = None) -> Tensor:
    """Compute the largest absolute difference between a plan's row and column sums and its marginals.

    Parameters
    ----------
    plan : Tensor, shape (..., K, N)
        Transport plans.
    row_marginal : Tensor, broadcastable to (..., K), optional
        Expected mass of every row. Default: 1 / K.
    column_marginal : Tensor, broadcastable to (..., N), optional
        Expected mass of every column. Default: 1 / N.

    Returns
    -------
    Tensor, shape (...)
        The error of each plan, in float64.

    Raises
    ------
    SotglpError
        If a marginal is not positive or has another shape.
    """
    with torch.no_grad():
        plans, rows, columns = _flatten_batch(plan, row_marginal, column_marginal)
        row_error = (plans.sum(2) - rows).abs().amax(1)
        column_error = (plans.sum(1) - columns).abs().amax(1)
        return torch.maximum(row_error, column_error).reshape(plan.shape[:-2])


def _check_numbers(epsilon: float, relaxation: float | None, tolerance: float | None, max_iterations: int) -> None:
    if not 0 < epsilon < math.inf:
        raise SotglpError(f"epsilon must be a positive number, but it is {epsilon}")
    if relaxation is not None and not relaxation > 0:
        raise SotglpError(f"relaxation must be a positive number or None, but it is {relaxation}")
    if tolerance is not None and not tolerance > 0:
        raise SotglpError(f"tolerance must be a positive number or None, but it is {tolerance}")
    if max_iterations < 1:
        raise SotglpError(f"max_iterations must be at least 1, but it is {max_iterations}")


def _check_cost(cost: Tensor, relaxation: float | None) -> None:
    if cost.dim() < 2 or 0 in cost.shape[-2:]:
        raise SotglpError(f"cost must have shape (..., K, N) with K, N >= 1, but its shape is {tuple(cost.shape)}")
    if not cost.is_floating_point():
        raise SotglpError(f"cost must be a floating tensor, but its dtype is {cost.dtype}")
    if cost.numel() == 0:
        return
    lowest, highest = torch.stack(torch.aminmax(cost.detach())).tolist()
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise NonFiniteCostError("cost must be finite, but it has infinite or NaN entries")
    largest = max(-lowest, highest)
    if relaxation is not None and largest > MAX_COST_PER_RELAXATION * relaxation:
        raise SotglpError(
            f"relaxation must be at least 1/{MAX_COST_PER_RELAXATION} of the largest absolute cost ({largest:.6g}), "
            f"but it is {relaxation}"
        )


def _in_float64(values: Tensor) -> Tensor:
    """Convert to float64, on the CPU if the device (Apple's GPUs) has no float64."""
    return (values.cpu() if values.device.type == "mps" else values).double()


def _flatten_batch(
    cost: Tensor, row_marginal: Tensor | None, column_marginal: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Flatten to costs (B, K, N) and marginals (B, K) and (B, N) in float64."""
    *batch, n_rows, n_columns = cost.shape
    costs = _in_float64(cost).reshape(math.prod(batch), n_rows, n_columns)
    rows = _marginal(row_marginal, "row_marginal", (*batch, n_rows), costs)
    columns = _marginal(column_marginal, "column_marginal", (*batch, n_columns), costs)
    return costs, rows, columns


def _marginal(values: Tensor | None, name: str, shape: tuple[int, ...], costs: Tensor) -> Tensor:
    if values is None:
        return costs.new_full((1, shape[-1]), 1 / shape[-1]).expand(len(costs), -1)
    masses = _in_float64(values).to(costs.device)
    if not ((masses > 0) & masses.isfinite()).all():
        raise SotglpError(f"{name} must be positive and finite in every entry")
    try:
        return masses.broadcast_to(shape).reshape(len(costs), shape[-1])
    except RuntimeError:
        given = tuple(values.shape)
        raise SotglpError(f"{name} must broadcast to shape {shape}, but its shape is {given}") from None


def _equal_sums(rows: Tensor, columns: Tensor) -> Tensor:
    """Scale the column marginals (B, N) to the sum of the row marginals (B, K)."""
    row_sum, column_sum = rows.sum(1, keepdim=True), columns.sum(1, keepdim=True)
    if ((row_sum - column_sum).abs() > MARGINAL_SUM_TOLERANCE * row_sum).any():
        raise SotglpError("row_marginal and column_marginal must have the same sum unless relaxation is given")
    return columns * (row_sum / column_sum)


def _prepare(costs: Tensor, rows: Tensor, columns: Tensor, epsilon: float, slack: float) -> Problems:
    """Centre the costs of the problems (B, K, N) about 0."""
    log_rows, log_columns = rows.log(), columns.log()
    middle = (costs.amax((1, 2)) + costs.amin((1, 2))) / 2
    # A constant may move from the cost into the potentials and so, with slack, into the mass that marginals must hold.
    # This much would be the potential of each row and of each column if all costs were equal to `middle`.
    potential = middle / (2 + epsilon * slack)  # (B,)
    return Problems(
        reduced_cost=costs - 2 * potential[:, None, None],
        log_reference=log_rows[:, :, None] + log_columns[:, None, :],
        log_row=log_rows - slack * potential[:, None],
        log_column=log_columns - slack * potential[:, None],
        temperature=torch.full_like(middle, epsilon),
    )


def _solve(
    costs: Tensor, rows: Tensor, columns: Tensor, epsilon: float, slack: float, tolerance: float, max_iterations: int
) -> tuple[Tensor, Tensor]:
    """Solve for plans (B, K, N) and their total-variation errors (B,)."""
    problems = _prepare(costs, rows, columns, epsilon, slack)
    if slack > 0:  # sweeps find the total mass of a relaxed plan too slowly to pay
        return solve_by_newton(problems, slack, tolerance, max_iterations)
    plans, errors = _sweep(problems, tolerance)
    hard = (errors > tolerance).nonzero().squeeze(1)
    if len(hard):
        plans[hard], errors[hard] = solve_by_newton(problems[hard], slack, tolerance, max_iterations)
    return plans, errors


def _sweep(problems: Problems, tolerance: float) -> tuple[Tensor, Tensor]:
    """Scale columns and rows in turn; unsolved problems have an infinite error."""
    log_kernels = problems.log_reference - problems.reduced_cost / problems.temperature[:, None, None]
    plans = torch.empty_like(log_kernels)
    errors = torch.full_like(problems.temperature, torch.inf)
    pending = (log_kernels.abs().amax((1, 2)) <= SWEEP_SPREAD).nonzero().squeeze(1)
    # With the batch dimension last all sums run over whole vectors of problems: twice as fast as (B, K, N).
    kernel = log_kernels[pending].permute(1, 2, 0).contiguous().exp_()  # (K, N, B)
    row_mass, column_mass = problems.log_row[pending].T.exp(), problems.log_column[pending].T.exp()  # (K, B), (N, B)
    row_scale = torch.ones_like(row_mass)
    for _ in range(MAX_SWEEPS // SWEEPS_PER_CHECK):
        if len(pending) == 0:
            break
        for _ in range(SWEEPS_PER_CHECK):
            column_scale = column_mass / (kernel * row_scale[:, None]).sum(0)
            row_scale = row_mass / (kernel * column_scale).sum(1)
        plan = kernel * row_scale[:, None] * column_scale
        error = total_variation((column_mass - plan.sum(0)).T, column_mass.T)
        solved = error <= tolerance
        plans[pending[solved]] = plan[:, :, solved].permute(2, 0, 1)
        errors[pending[solved]] = error[solved]
        left = ~solved
        pending, kernel = pending[left], kernel[:, :, left]
        row_mass, column_mass, row_scale = row_mass[:, left], column_mass[:, left], row_scale[:, left]
    return plans, errors


def _warn_of_failures(errors: Tensor, tolerance: float, max_iterations: int) -> None:
    failed = ~(errors <= tolerance)
    if failed.any():
        warnings.warn(
            f"{int(failed.sum())} of {len(errors)} transport problems did not converge in {max_iterations} Newton "
            f"steps: the error of their marginals is up to {float(errors[failed].max()):.2g} of the mass, beyond the "
            f"tolerance {tolerance:.2g}; raise epsilon or max_iterations",
            SotglpWarning,
            stacklevel=3,
        )
