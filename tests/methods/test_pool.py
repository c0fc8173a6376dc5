from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sotglp import Backbone
from sotglp.features.rows import EncodedImages
from sotglp.methods.gda import GDA
from sotglp.methods.linear_probe import LinearProbe
from sotglp.methods.pool import DEFAULT_TEMPERATURES, Pool, best_temperature
from sotglp.methods.proker import ProKeR
from sotglp.methods.zero_shot import ZeroShot
from sotglp.scoring.temperature import fit_temperature
from support.prompt_models import NAMES
from support.samples import drawn_clusters

QUERIES = torch.randn(7, 32, generator=torch.Generator().manual_seed(3))


def log_probabilities(model: ZeroShot, temperature: float = 1.0) -> torch.Tensor:
    outputs = model.compare(EncodedImages(QUERIES, torch.zeros(7, 16, 64)), model.encode_text())
    return F.log_softmax(model.logits(outputs).double() / temperature, dim=1)


@pytest.mark.parametrize("n_shots", [1, 5])
def test_it_is_the_geometric_mean_of_its_members(
    tiny_backbone: Backbone, n_shots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five shots get temperatures of their own; here they are replaced, since members don't know them."""
    drawn = iter(DEFAULT_TEMPERATURES)
    monkeypatch.setattr("sotglp.methods.pool.best_temperature", lambda *_: next(drawn))
    shots, classes = drawn_clusters(3, n_shots, width=32, seed=0, spread=0.6)
    pool = Pool(tiny_backbone, NAMES)
    members = [GDA(tiny_backbone, NAMES), ProKeR(tiny_backbone, NAMES), LinearProbe(tiny_backbone, NAMES)]
    for model in (pool, *members):
        model.fit_features(2 * shots.float(), classes)
    parts = [log_probabilities(one, t) for one, t in zip(members, DEFAULT_TEMPERATURES, strict=True)]
    expected = F.log_softmax(sum(parts, torch.zeros(())) / 3, dim=1)
    np.testing.assert_allclose(log_probabilities(pool), expected, rtol=0, atol=2e-3)


def test_before_a_fit_it_is_zero_shot(tiny_backbone: Backbone) -> None:
    assert torch.equal(log_probabilities(Pool(tiny_backbone, NAMES)), log_probabilities(ZeroShot(tiny_backbone, NAMES)))


@pytest.mark.parametrize("scale", [0.2, 1.0, 4.0])
def test_temperatures_have_the_least_cross_entropy(scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    classes = torch.arange(60) % 3
    logits = scale * (F.one_hot(classes, 3) + torch.randn(60, 3, generator=generator, dtype=torch.float64))
    expected = fit_temperature(logits.softmax(dim=1).numpy(), classes.numpy())
    assert best_temperature(logits, classes) == pytest.approx(expected, rel=0.01)


def test_a_model_of_some_classes_keeps_their_rows(tiny_backbone: Backbone) -> None:
    shots, classes = drawn_clusters(3, 4, width=32, seed=1)
    pool = Pool(tiny_backbone, NAMES)
    pool.fit_features(shots.float(), classes)
    part = Pool(tiny_backbone, NAMES[:2]).inherit(pool, [0, 1])
    expected = F.log_softmax(log_probabilities(pool)[:, :2], dim=1)
    np.testing.assert_allclose(log_probabilities(part), expected, rtol=0, atol=1e-4)
