from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor
from torch.nn import functional as F

from sotglp import Backbone, SotglpError
from sotglp.features.rows import EncodedImages
from sotglp.methods.gda import DEFAULT_WEIGHT, GDA, WEIGHTS, choose_weight, shared_covariance_discriminant
from sotglp.methods.zero_shot import ZeroShot
from support.prompt_models import NAMES
from support.samples import drawn_clusters


def kubokawa_srivastava(features: Tensor, classes: Tensor) -> np.ndarray:
    """The covariance whose inverse is the precision of the paper, by numpy."""
    x, y = features.numpy(), classes.numpy()
    deviations = np.concatenate([x[y == c] - x[y == c].mean(axis=0) for c in np.unique(y)])
    covariance = np.cov(deviations.T)
    n, width = x.shape
    return np.asarray(((n - 1) * covariance + np.trace(covariance) * np.eye(width)) / width)


class Given(BaseEstimator):  # type: ignore[misc]
    """A covariance estimator that returns the same matrix whatever it sees."""

    def __init__(self, covariance: object = None) -> None:
        self.covariance = covariance

    def fit(self, X: object) -> Given:
        self.covariance_ = self.covariance
        return self


@pytest.mark.parametrize("n_shots", [2, 7])
def test_it_is_linear_discriminant_analysis_with_the_shared_covariance_of_the_paper(n_shots: int) -> None:
    features, classes = drawn_clusters(4, n_shots, width=9, seed=1)
    weights, intercepts = shared_covariance_discriminant(features, classes, 4)
    oracle = LinearDiscriminantAnalysis(
        solver="lsqr", priors=[0.25] * 4, covariance_estimator=Given(kubokawa_srivastava(features, classes))
    ).fit(features.numpy(), classes.numpy())
    np.testing.assert_allclose(weights, oracle.coef_, rtol=1e-8)
    np.testing.assert_allclose(intercepts, oracle.intercept_, rtol=1e-8)


def test_logits_are_the_sum_of_zero_shot_and_the_weighted_discriminant(tiny_backbone: Backbone) -> None:
    model = GDA(tiny_backbone, NAMES, fusion_weight=0.3)
    shots, classes = drawn_clusters(3, 5, width=32, seed=0)
    model.fit_features(3 * shots.float(), classes)
    queries = torch.randn(6, 32, generator=torch.Generator().manual_seed(3))
    outputs = model.compare(EncodedImages(queries, torch.zeros(6, 16, 64)), model.encode_text())
    weights, intercepts = shared_covariance_discriminant(F.normalize(shots, dim=1), classes, 3)
    unit = F.normalize(queries, dim=1).double()
    expected = tiny_backbone.logit_scale * unit @ model.class_vectors.double().T + 0.3 * (unit @ weights.T + intercepts)
    torch.testing.assert_close(model.logits(outputs).double(), expected, rtol=1e-4, atol=1e-3)


def test_without_weight_or_shots_it_is_zero_shot(tiny_backbone: Backbone, images: Tensor) -> None:
    weightless = GDA(tiny_backbone, NAMES, fusion_weight=0)
    weightless.fit_features(torch.randn(6, 32), torch.arange(6) % 3)
    expected = ZeroShot(tiny_backbone, NAMES)(images).global_logits
    for model in (weightless, GDA(tiny_backbone, NAMES)):
        assert torch.equal(model(images).global_logits, expected)


def test_one_shot_a_class_is_judged_by_the_spread_of_all() -> None:
    features, classes = drawn_clusters(4, 1, width=9, seed=2)
    weights, intercepts = shared_covariance_discriminant(features, classes, 4)
    assert (features @ weights.T + intercepts).argmax(dim=1).tolist() == [0, 1, 2, 3]
    same = torch.ones(3, 5, dtype=torch.float64)
    assert all(part.isfinite().all() for part in shared_covariance_discriminant(same, torch.arange(3), 3))


def test_the_weight_is_chosen_on_shots_that_are_left_out() -> None:
    features, classes = drawn_clusters(4, 8, width=16, seed=0, spread=0.2)
    useless = torch.zeros(32, 4, dtype=torch.float64)
    perfect = 50 * F.one_hot(classes, 4).double()
    wrong = 50 * F.one_hot((classes + 1) % 4, 4).double()
    assert choose_weight(features, classes, perfect) == WEIGHTS[0]
    assert choose_weight(features, classes, wrong) >= 1
    assert choose_weight(features, classes, useless) > WEIGHTS[0]
    # Noise is not learned by heart: on the shots themselves, any discriminant would be right.
    noise = torch.randn(32, 40, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    assert choose_weight(noise, classes, perfect) == WEIGHTS[0]
    assert choose_weight(features[::8], classes[::8], useless[::8]) == DEFAULT_WEIGHT


def test_a_class_without_shots_is_named(tiny_backbone: Backbone) -> None:
    with pytest.raises(SotglpError, match=f"no image of the class '{NAMES[1]}'"):
        GDA(tiny_backbone, NAMES).fit_features(torch.randn(4, 32), torch.tensor([0, 2, 0, 2]))
