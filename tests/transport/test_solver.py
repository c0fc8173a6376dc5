from __future__ import annotations

import itertools
import re
import warnings
from pathlib import Path

import numpy as np
import ot
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sotglp.errors import SotglpError, SotglpWarning
from sotglp.transport import solver
from sotglp.transport.solver import marginal_error, sinkhorn

DATA = Path(__file__).parents[1] / "data"

EASY, HARD = 0.1, 1e-3  # epsilons at which costs in [0, 1] are solved by sweeps and by Newton's method
NAN, INF = float("nan"), float("inf")
SHAPES = [(1, 1), (1, 6), (6, 1), (3, 5), (10, 4), (12, 12), (60, 40)]


@pytest.fixture(autouse=True)
def _warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error", SotglpWarning)
        yield


@pytest.fixture(params=[EASY, HARD])
def epsilon(request: pytest.FixtureRequest) -> float:
    return float(request.param)


def random_cost(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def random_marginal(*shape: int, seed: int) -> Tensor:
    mass = 0.02 + random_cost(*shape, seed=seed) ** 3
    return mass / mass.sum(-1, keepdim=True)


def uniform_marginal(size: int) -> Tensor:
    return torch.full((size,), 1 / size, dtype=torch.float64)


def pot_plan(cost: Tensor, epsilon: float, row: Tensor, column: Tensor, sweeps: int) -> tuple[Tensor, bool]:
    """POT's log-domain plan, and whether it converged."""
    with np.errstate(over="ignore"):
        plan, log = ot.sinkhorn(
            row.numpy(),
            column.numpy(),
            cost.numpy(),
            epsilon,
            method="sinkhorn_log",
            numItermax=sweeps,
            stopThr=1e-13,
            log=True,
            warn=False,
        )
    return torch.from_numpy(plan), log["err"][-1] <= 1e-12


def assert_gibbs(plan: Tensor, cost: Tensor, epsilon: float) -> None:
    """Check that log(plan) + cost / epsilon is a row part plus a column part.

    With its marginals this makes a float64 plan (K, N) the optimal one: the problem is strictly convex.
    """
    n_rows, n_columns = plan.shape
    visible = plan > 1e-280
    target = (plan.log() + cost / epsilon)[visible]
    row, column = visible.nonzero(as_tuple=True)
    design = torch.zeros(len(target), n_rows + n_columns, dtype=torch.float64)
    design[torch.arange(len(target)), row] = 1
    design[torch.arange(len(target)), n_rows + column] = 1
    potentials = torch.linalg.lstsq(design, target[:, None], driver="gelsd").solution
    rounding = 1e-14 * (1 + float(cost.abs().max()) / epsilon)
    assert (design @ potentials - target[:, None]).abs().max() < 1e-9 + 100 * rounding


# ---- against other solvers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "epsilon"),
    # At 0.01 sweeps alone would crawl.
    [*itertools.product(SHAPES, [1.0, EASY, 0.05]), ((10, 4), 0.01)],
)
def test_agrees_with_pot(shape: tuple[int, int], epsilon: float) -> None:
    cost, row, column = random_cost(*shape), random_marginal(shape[0], seed=1), random_marginal(shape[1], seed=2)
    if epsilon == 0.01:
        row, column = uniform_marginal(10), uniform_marginal(4)
    expected, converged = pot_plan(cost, epsilon, row, column, sweeps=20_000)
    assert converged
    plan = sinkhorn(cost, epsilon, row_marginal=row, column_marginal=column)
    torch.testing.assert_close(plan, expected, atol=1e-10, rtol=0)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    n_rows=st.integers(1, 14),
    n_columns=st.integers(1, 14),
    log_epsilon=st.floats(-3, 0),
    log_scale=st.floats(-6, 3),
    offset=st.floats(-100, 100),
    uniform=st.booleans(),
    whole_numbers=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_any_problem(
    n_rows: int,
    n_columns: int,
    log_epsilon: float,
    log_scale: float,
    offset: float,
    uniform: bool,
    whole_numbers: bool,
    seed: int,
) -> None:
    epsilon = 10**log_epsilon
    cost = random_cost(n_rows, n_columns, seed=seed) * 2 - 1
    cost = offset + 10**log_scale * ((3 * cost).round() / 3 if whole_numbers else cost)
    row = uniform_marginal(n_rows) if uniform else random_marginal(n_rows, seed=seed + 1)
    column = uniform_marginal(n_columns) if uniform else random_marginal(n_columns, seed=seed + 2)

    plan = sinkhorn(cost, epsilon, row_marginal=row, column_marginal=column)
    assert marginal_error(plan, row, column) < 1e-10
    assert_gibbs(plan, cost, epsilon)
    expected, converged = pot_plan(cost, epsilon, row, column, sweeps=300)
    if converged:
        # POT subtracts no potentials from the cost, so its plan is as rough as cost / epsilon is.
        torch.testing.assert_close(plan, expected, atol=1e-10 + 1e-15 * float(cost.abs().max()) / epsilon, rtol=0)

    plan32 = sinkhorn(cost.float(), epsilon, row_marginal=row, column_marginal=column)
    assert plan32.dtype == torch.float32
    assert marginal_error(plan32, row, column) < 1e-6
    exact = sinkhorn(cost.float().double(), epsilon, row_marginal=row, column_marginal=column)
    torch.testing.assert_close(plan32.double(), exact, atol=5e-7, rtol=0)


@pytest.mark.parametrize("cost_range", [1e-6, 1.0, 1e3])
@pytest.mark.parametrize("epsilon", [1e-3, 1e-2, 1.0])
def test_large_problems(cost_range: float, epsilon: float) -> None:
    cost = cost_range * torch.randn(3, 60, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plan = sinkhorn(cost, epsilon)
    assert marginal_error(plan).max() < 1e-9
    for one_plan, one_cost in zip(plan, cost, strict=True):
        assert_gibbs(one_plan, one_cost, epsilon)
    assert marginal_error(sinkhorn(cost.float(), epsilon)).max() < 1e-6


@pytest.mark.parametrize("shape", [(3, 5), (10, 4), (60, 40)])
@pytest.mark.parametrize("epsilon", [0.1, 1e-3, 1e-4])
def test_cost_is_close_to_the_exact_optimum(shape: tuple[int, int], epsilon: float) -> None:
    cost, row, column = random_cost(*shape), random_marginal(shape[0], seed=1), random_marginal(shape[1], seed=2)
    exact = ot.emd2(row.numpy(), column.numpy(), cost.numpy())
    spent = float((sinkhorn(cost, epsilon, row_marginal=row, column_marginal=column) * cost).sum())
    assert exact - 1e-9 <= spent <= exact + epsilon * np.log(min(shape))


def test_small_epsilon_solves_assignment() -> None:
    cost = random_cost(9, 9, seed=4)
    row, column = scipy.optimize.linear_sum_assignment(cost.numpy())
    expected = torch.zeros(9, 9, dtype=torch.float64)
    expected[row, column] = 1 / 9
    torch.testing.assert_close(sinkhorn(cost, 1e-4), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("case", ["vit_small_proj", "vit_small_noproj"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_reference_plans(case: str, dtype: torch.dtype) -> None:
    with np.load(DATA / f"{case}.npz") as arrays:
        logits, plan = torch.from_numpy(arrays["local_logits"]), torch.from_numpy(arrays["plan_converged"])
        support = torch.from_numpy(arrays["support_index"])  # (B, K, C)
    index = support.permute(0, 2, 1)[:, :, :, None].expand(plan.shape)
    kept = logits.permute(0, 2, 1, 3).gather(2, index)  # (B, C, K, N)
    torch.testing.assert_close(sinkhorn((1 - kept).to(dtype), 0.1).double(), plan, atol=1e-6, rtol=0)
    assert marginal_error(plan).max() < 1e-6


# ---- relaxed marginals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (10, 4)])
@pytest.mark.parametrize("relaxation", [0.05, 1.0, 20.0])
@pytest.mark.parametrize("epsilon", [0.05, 1.0])
def test_relaxed_agrees_with_pot(shape: tuple[int, int], relaxation: float, epsilon: float) -> None:
    cost = random_cost(*shape) * 2 - 0.5
    row, column = random_marginal(shape[0], seed=1), 2 * random_marginal(shape[1], seed=2)
    expected = ot.unbalanced.sinkhorn_unbalanced(
        row.numpy(), column.numpy(), cost.numpy(), epsilon, relaxation, numItermax=20_000, stopThr=1e-15
    )
    plan = sinkhorn(cost, epsilon, row_marginal=row, column_marginal=column, relaxation=relaxation)
    torch.testing.assert_close(plan, torch.from_numpy(expected), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("cost_range", [0.1, 10.0])
@pytest.mark.parametrize("relaxation", [0.1, 1.0, 100.0])
@pytest.mark.parametrize("epsilon", [1e-3, 0.1])
@pytest.mark.parametrize("shape", [(10, 4), (4, 10), (12, 12)])
def test_relaxed_is_stationary(shape: tuple[int, int], cost_range: float, relaxation: float, epsilon: float) -> None:
    cost = cost_range * random_cost(20, *shape)
    plan = sinkhorn(cost, epsilon, relaxation=relaxation)
    row_excess = (plan.sum(2, keepdim=True) * shape[0]).log()
    column_excess = (plan.sum(1, keepdim=True) * shape[1]).log()
    exponent = -(cost + relaxation * (row_excess + column_excess)) / epsilon
    expected = exponent.exp() / (shape[0] * shape[1])
    # Rounding errors of the excesses are multiplied by relaxation / epsilon.
    torch.testing.assert_close(plan, expected, atol=1e-10 * relaxation / epsilon * float(plan.max()), rtol=1e-6)


@pytest.mark.parametrize("sign", [-1, 1])
def test_relaxed_with_all_weight_on_the_entropy(sign: int) -> None:
    cost = sign * random_cost(20, 10, 4)
    plan = sinkhorn(cost, 10.0, relaxation=0.005)
    torch.testing.assert_close(plan, (-cost / 10).exp() / 40, atol=1e-4, rtol=0)


def test_strong_relaxation_tends_to_balanced() -> None:
    cost = random_cost(5, 10, 4)
    balanced = sinkhorn(cost, EASY)
    errors = [float((sinkhorn(cost, EASY, relaxation=rho) - balanced).abs().max()) for rho in (1.0, 1e2, 1e4, 1e6)]
    assert errors[0] > 1e-3
    assert all(later < earlier / 50 for earlier, later in itertools.pairwise(errors))


# ---- symmetries and limits --------------------------------------------------------------------------------------


def test_each_problem_is_solved_as_if_alone(epsilon: float) -> None:
    cost = torch.cat([random_cost(4, 10, 4), 50 * random_cost(4, 10, 4, seed=1), 1e-3 * random_cost(4, 10, 4, seed=2)])
    together = sinkhorn(cost, epsilon)
    alone = torch.stack([sinkhorn(one, epsilon) for one in cost])
    torch.testing.assert_close(together, alone, atol=1e-10, rtol=0)


def test_chunks_change_nothing(epsilon: float, monkeypatch: pytest.MonkeyPatch) -> None:
    cost, row = random_cost(7, 10, 4), random_marginal(7, 10, seed=1)
    whole = sinkhorn(cost, epsilon, row_marginal=row)
    monkeypatch.setattr(solver, "ENTRIES_AT_ONCE", 90)
    torch.testing.assert_close(sinkhorn(cost, epsilon, row_marginal=row), whole, atol=1e-10, rtol=0)


@pytest.mark.parametrize("relaxation", [None, 0.5])
def test_permutation_moves_the_plan_along(epsilon: float, relaxation: float | None) -> None:
    cost, row, column = random_cost(3, 10, 4), random_marginal(10, seed=1), random_marginal(4, seed=2)
    generator = torch.Generator().manual_seed(0)
    rows, columns = torch.randperm(10, generator=generator), torch.randperm(4, generator=generator)
    plan = sinkhorn(cost, epsilon, row_marginal=row, column_marginal=column, relaxation=relaxation)
    moved = sinkhorn(
        cost[:, rows][:, :, columns],
        epsilon,
        row_marginal=row[rows],
        column_marginal=column[columns],
        relaxation=relaxation,
    )
    torch.testing.assert_close(moved, plan[:, rows][:, :, columns], atol=1e-9, rtol=0)
    flipped = sinkhorn(cost.mT, epsilon, row_marginal=column, column_marginal=row, relaxation=relaxation)
    torch.testing.assert_close(flipped.mT, plan, atol=1e-9, rtol=0)


def test_row_and_column_constants_and_units_do_not_matter(epsilon: float) -> None:
    cost = random_cost(3, 10, 4)
    plan = sinkhorn(cost, epsilon)
    shifted = cost + 10 * random_cost(3, 10, 1, seed=1) - 10 * random_cost(3, 1, 4, seed=2)
    torch.testing.assert_close(sinkhorn(shifted, epsilon), plan, atol=1e-9, rtol=0)
    torch.testing.assert_close(sinkhorn(cost * 1000, epsilon * 1000), plan, atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("cost", "epsilon", "tolerance"),
    [(torch.full((10, 4), 7.0, dtype=torch.float64), HARD, 1e-12), (random_cost(10, 4), 1e9, 1e-9)],
)
def test_no_preference_gives_the_product_of_marginals(cost: Tensor, epsilon: float, tolerance: float) -> None:
    row, column = random_marginal(10, seed=1), random_marginal(4, seed=2)
    plan = sinkhorn(cost, epsilon, row_marginal=row, column_marginal=column)
    torch.testing.assert_close(plan, row[:, None] * column, atol=tolerance, rtol=0)


def test_marginals_broadcast_over_the_batch(epsilon: float) -> None:
    cost, row, column = random_cost(2, 3, 10, 4), random_marginal(3, 10, seed=1), random_marginal(2, 1, 4, seed=2)
    plan = sinkhorn(cost, epsilon, row_marginal=row, column_marginal=column)
    assert marginal_error(plan, row, column).shape == (2, 3)
    for i in range(2):
        for j in range(3):
            alone = sinkhorn(cost[i, j], epsilon, row_marginal=row[j], column_marginal=column[i, 0])
            torch.testing.assert_close(plan[i, j], alone, atol=1e-10, rtol=0)


def test_marginals_of_any_mass(epsilon: float) -> None:
    cost, row, column = random_cost(10, 4), random_marginal(10, seed=1), random_marginal(4, seed=2)
    plan = sinkhorn(cost, epsilon, row_marginal=row, column_marginal=column)
    heavy = sinkhorn(cost, epsilon, row_marginal=row * 1e4, column_marginal=column * 1e4)
    torch.testing.assert_close(heavy, plan * 1e4, atol=1e-6, rtol=0)
    # A slight difference of sums is scaled away.
    plan = sinkhorn(cost, epsilon, row_marginal=1.000005 * row)
    assert 1e-7 < marginal_error(plan, 1.000005 * row) < 2e-6


def test_float32_rounding_of_marginal_sums_is_forgiven() -> None:
    row = torch.softmax(random_cost(196, dtype=torch.float32), 0)
    plan = sinkhorn(random_cost(196, 4, dtype=torch.float32), EASY, row_marginal=row)
    assert marginal_error(plan, row) < 1e-6


# ---- shape, dtype, gradient -------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [(), (0,), (1,), (5,), (2, 0), (2, 3), (2, 1, 3)])
@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (10, 4), (4, 10)])
def test_shape(batch: tuple[int, ...], shape: tuple[int, int], epsilon: float) -> None:
    cost = random_cost(*batch, *shape, dtype=torch.float32)
    before = cost.clone()
    plan = sinkhorn(cost, epsilon)
    assert plan.shape == cost.shape
    assert plan.dtype == torch.float32
    assert marginal_error(plan).shape == batch
    assert (marginal_error(plan) < 1e-6).all()
    assert torch.equal(cost, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_exactly(dtype: torch.dtype, epsilon: float) -> None:
    cost = random_cost(5, 10, 4, dtype=dtype)
    plan = sinkhorn(cost, epsilon)
    assert plan.dtype == torch.float32
    torch.testing.assert_close(plan.double(), sinkhorn(cost.double(), epsilon), atol=5e-7, rtol=0)


def test_same_bits_twice_and_under_autocast(epsilon: float) -> None:
    cost = random_cost(100, 10, 4, dtype=torch.float32)
    expected = sinkhorn(cost, epsilon)
    assert torch.equal(sinkhorn(cost, epsilon), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(sinkhorn(cost, epsilon), expected)


def test_no_gradient(epsilon: float) -> None:
    cost = random_cost(5, 10, 4).requires_grad_()
    row = random_marginal(10, seed=1).requires_grad_()
    plan = sinkhorn(cost, epsilon, row_marginal=row)
    assert not plan.requires_grad
    assert not marginal_error(cost).requires_grad
    (plan * cost).sum().backward()
    assert torch.equal(cost.grad, plan)


def test_strided_cost(epsilon: float) -> None:
    cost = random_cost(4, 10, 5)
    views = cost.permute(2, 1, 0)[:, ::2]
    torch.testing.assert_close(sinkhorn(views, epsilon), sinkhorn(views.contiguous(), epsilon), atol=1e-10, rtol=0)
    expanded = cost[:1].expand(4, -1, -1)
    torch.testing.assert_close(sinkhorn(expanded, epsilon)[3], sinkhorn(cost[0], epsilon), atol=1e-10, rtol=0)


# ---- complaints -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [HARD, 0.01])
@pytest.mark.parametrize("relaxation", [None, 1.0])
def test_unsolved_problems_are_reported(epsilon: float, relaxation: float | None) -> None:
    cost = torch.cat([torch.zeros(1, 12, 12), random_cost(3, 12, 12, dtype=torch.float32)])
    with pytest.warns(SotglpWarning, match="3 of 4 transport problems did not converge in 1 Newton") as caught:
        plan = sinkhorn(cost, epsilon, relaxation=relaxation, max_iterations=1)
    assert Path(caught[0].filename).name == "test_solver.py"
    assert plan.isfinite().all()
    if relaxation is None:
        found = re.search(r"is up to (\S+) of the mass", str(caught[0].message))
        residual = ((plan.sum(1) - 1 / 12).abs().sum(1) / 2).max()
        assert float(found[1]) == pytest.approx(float(residual), rel=0.06)
        with pytest.warns(SotglpWarning):
            plan = sinkhorn(cost[1].double(), epsilon, max_iterations=2)
        assert_gibbs(plan, cost[1].double(), epsilon)


def test_sweeps_alone_solve_easy_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solver, "solve_by_newton", None)
    cost = 0.5 + 0.3 * random_cost(500, 10, 4)
    assert (marginal_error(sinkhorn(cost, EASY)) < 1e-9).all()


def test_tolerance_is_kept() -> None:
    cost = random_cost(200, 10, 4)
    errors = []
    for tolerance in (1e-2, 1e-5, 1e-12):
        plan = sinkhorn(cost, 0.03, tolerance=tolerance)
        errors.append(float(((plan.sum(1) - 0.25).abs().sum(1) / 2).max()))
        assert errors[-1] <= tolerance + 1e-15
    assert errors[0] > 1e-5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *(({"epsilon": value}, "epsilon must be a positive number") for value in (0.0, -1.0, NAN, INF)),
        *(({"relaxation": value}, "relaxation must be a positive number or None") for value in (0.0, NAN)),
        ({"relaxation": 1e-3}, "relaxation must be at least 1/200 of the largest absolute cost"),
        ({"tolerance": 0.0}, "tolerance must be a positive number or None, but it is 0.0"),
        ({"max_iterations": 0}, "max_iterations must be at least 1, but it is 0"),
        *(({"cost": torch.ones(shape)}, "cost must have shape") for shape in ((3,), (2, 0, 3), (2, 3, 0))),
        ({"cost": torch.ones(2, 3, dtype=torch.int64)}, "cost must be a floating tensor, but its dtype is torch.int64"),
        *(({"cost": torch.tensor([[0.0, value]])}, "cost must be finite") for value in (NAN, INF, -INF)),
        ({"row_marginal": torch.tensor([0.5, 0.5, 0.0])}, "row_marginal must be positive and finite in every entry"),
        ({"row_marginal": torch.tensor([1.5, 0.5, -1.0])}, "row_marginal must be positive"),
        *(({"column_marginal": torch.tensor([0.5, v])}, "column_marginal must be positive") for v in (NAN, INF)),
        ({"column_marginal": torch.ones(3) / 3}, r"column_marginal must broadcast to shape \(3, 2\), but.*\(3,\)"),
        ({"row_marginal": torch.ones(4, 3) / 3}, "row_marginal must broadcast to shape"),
        ({"row_marginal": torch.ones(3)}, "row_marginal and column_marginal must have the same sum unless relaxation"),
        ({"column_marginal": torch.tensor([0.5, 0.501])}, "must have the same sum"),
    ],
)
def test_bad_input_is_one_sentence(arguments: dict[str, object], message: str) -> None:
    call = {"cost": torch.ones(3, 3, 2), "epsilon": 0.1} | arguments
    with pytest.raises(SotglpError, match=message) as caught:
        sinkhorn(**call)
    assert re.fullmatch(r"[^\n]*[^.]", str(caught.value))


def test_marginal_error_is_the_largest_difference() -> None:
    plan = torch.tensor([[[0.5, 0.0], [0.0, 0.5]], [[0.5, 0.3], [0.1, 0.1]]])
    torch.testing.assert_close(marginal_error(plan), torch.tensor([0.0, 0.3]).double(), atol=1e-7, rtol=0)
    error = marginal_error(plan, torch.tensor([0.8, 0.2]), torch.tensor([[0.5, 0.5], [0.6, 0.2]]))
    torch.testing.assert_close(error, torch.tensor([0.3, 0.2]).double(), atol=1e-7, rtol=0)
    with pytest.raises(SotglpError, match="row_marginal must broadcast"):
        marginal_error(plan, torch.ones(3))
