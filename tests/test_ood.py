from __future__ import annotations

import pytest
import torch

from conftest import Reference
from sotglp import SOTGLP, Backbone, SotglpError, ood


@pytest.mark.parametrize(
    ("name", "method", "temperature"),
    [
        ("mcm_t1", "mcm", 1.0),
        ("l_mcm_t1", "l-mcm", 1.0),
        ("gl_mcm_t1", "gl-mcm", 1.0),
        ("mcm_t001", "mcm", 0.01),
        ("gl_mcm_t001", "gl-mcm", 0.01),
    ],
)
def test_published_scores(reference: Reference, name: str, method: ood.OodMethod, temperature: float) -> None:
    found = ood.score(reference.model, reference.numbers["image"], method, temperature)
    # The published code scores the other way round: smaller for in-distribution.
    torch.testing.assert_close(found, -reference.numbers[name], rtol=1e-5, atol=1e-6)


def test_outputs_score_like_their_model(tiny_backbone: Backbone) -> None:
    model = SOTGLP(tiny_backbone, ["cat", "dog"])
    images = torch.randn(3, 3, 32, 32)
    assert torch.equal(ood.score(model(images)), ood.score(model, images))


def test_wrong_requests(tiny_backbone: Backbone) -> None:
    model = SOTGLP(tiny_backbone, ["cat", "dog"])
    with pytest.raises(SotglpError, match=r"no OOD score 'msp'.*mcm, l-mcm, gl-mcm"):
        ood.score(model, torch.zeros(1, 3, 32, 32), "msp")  # type: ignore[arg-type]
    with pytest.raises(SotglpError, match="temperature = 0"):
        ood.score(model, torch.zeros(1, 3, 32, 32), temperature=0)
    with pytest.raises(SotglpError, match="needs images"):
        ood.score(model)
