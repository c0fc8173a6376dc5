from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch.nn import functional as F

from sotglp import Backbone, SotglpError
from sotglp.features.rows import EncodedImages
from sotglp.methods.lp_plus_plus import LPPlusPlus, fit_blend
from support.prompt_models import NAMES
from support.samples import drawn_clusters


@pytest.mark.parametrize("n_iterations", [0, 1, 9, 10, 25])
def test_iterations_are_the_formulas_of_the_paper(n_iterations: int) -> None:
    features, classes = drawn_clusters(3, 4, width=6, seed=0, spread=0.5)
    text = F.normalize(torch.randn(3, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64), dim=1)
    labels = F.one_hot(classes, 3).double()
    found = fit_blend(features, labels, text, n_iterations=n_iterations)

    f, t, y = features.numpy(), text.numpy(), labels.numpy()
    n = len(f)
    w = np.stack([f[classes == c].sum(axis=0) for c in range(3)])
    a = np.full(3, 250 * np.mean([(f[classes == c] @ t[c]).mean() for c in range(3)]))
    w_step = 4 * n / np.linalg.eigvalsh(f.T @ f).max()
    a_step = n / (4 * max(sum((row @ t[c]) ** 2 for row in f) for c in range(3)))
    velocity = np.zeros_like(w)
    for i in range(1, n_iterations + 1):
        difference = softmax(f @ (w + a[:, None] * t).T, axis=1) - y
        velocity = 0.9 * velocity + difference.T @ f / n
        a_slope = np.array([sum(difference[row, c] * (f[row] @ t[c]) for row in range(n)) / n for c in range(3)])
        w = w - w_step * velocity
        if i % 10 == 0:
            a = a - a_step * a_slope
    np.testing.assert_allclose(found[0], w, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found[1], a, rtol=1e-9)


def test_logits_blend_prototypes_and_text(tiny_backbone: Backbone) -> None:
    model = LPPlusPlus(tiny_backbone, NAMES, iterations=20)
    shots, classes = drawn_clusters(3, 5, width=32, seed=0)
    model.fit_features(3 * shots.float(), classes)
    queries = torch.randn(6, 32, generator=torch.Generator().manual_seed(3))
    outputs = model.compare(EncodedImages(queries, torch.zeros(6, 16, 64)), model.encode_text())
    weights = model.prototypes + model.multipliers[:, None] * model.class_vectors
    torch.testing.assert_close(model.logits(outputs), F.normalize(queries, dim=1) @ weights.T, rtol=1e-5, atol=1e-4)
    expected = fit_blend(
        F.normalize(shots.float().double(), dim=1),
        F.one_hot(classes, 3).double(),
        model.class_vectors.double(),
        n_iterations=20,
    )
    torch.testing.assert_close(model.prototypes, expected[0].float(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model.multipliers, expected[1].float())


def test_the_cross_entropy_falls(tiny_backbone: Backbone) -> None:
    shots, classes = drawn_clusters(3, 5, width=32, seed=0, spread=2.0)
    losses = []
    for iterations in (0, 30, 300):
        model = LPPlusPlus(tiny_backbone, NAMES, iterations=iterations)
        model.fit_features(shots, classes)
        outputs = model.compare(EncodedImages(shots.float(), torch.zeros(15, 16, 64)), model.encode_text())
        losses.append(model.compute_loss(outputs, classes).total.item())
    assert losses[2] < losses[1] < losses[0]


def test_a_class_without_shots_is_named(tiny_backbone: Backbone) -> None:
    with pytest.raises(SotglpError, match=f"no image of the class '{NAMES[1]}'"):
        LPPlusPlus(tiny_backbone, NAMES).fit_features(torch.randn(4, 32), torch.tensor([0, 2, 0, 2]))
