from __future__ import annotations

import pytest
import torch

from sotglp.transport import traceable as transport_sweeps
from sotglp.transport.solver import sinkhorn
from sotglp.transport.traceable import sweep_plans


@pytest.mark.parametrize(("n_rows", "n_columns"), [(10, 4), (64, 4), (3, 3), (1, 5), (5, 1)])
def test_plans_are_those_that_are_solved(n_rows: int, n_columns: int) -> None:
    generator = torch.Generator().manual_seed(n_rows)
    # As cosines of patches and prompts of trained CLIPs lie: within a few tenths.
    cost = 0.7 + 0.1 * torch.randn(50, 3, n_rows, n_columns, generator=generator)
    plan = sweep_plans(cost, 0.1)
    assert plan.dtype == torch.float32
    torch.testing.assert_close(plan, sinkhorn(cost, 0.1), rtol=0, atol=1e-6)
    torch.testing.assert_close(plan.sum(-1), torch.full((50, 3, n_rows), 1 / n_rows))


def test_hard_problems_are_solved_until_sweeps_are_too_few(monkeypatch: pytest.MonkeyPatch) -> None:
    cost = torch.rand(5, 4, 10, 4, generator=torch.Generator().manual_seed(0))
    for epsilon in (0.1, 0.03):
        torch.testing.assert_close(sweep_plans(cost, epsilon), sinkhorn(cost, epsilon), rtol=0, atol=1e-6)
    monkeypatch.setattr(transport_sweeps, "MAX_SWEEPS", 3)
    assert (sweep_plans(cost, 0.01) - sinkhorn(cost, 0.01)).abs().amax() > 1e-4
