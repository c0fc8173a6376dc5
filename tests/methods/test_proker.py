from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge
from torch import Tensor
from torch.nn import functional as F

from sotglp import Backbone, SotglpError
from sotglp.features.rows import EncodedImages
from sotglp.methods.proker import (
    DEFAULT_RIDGE,
    DEFAULT_SHARPNESS,
    RIDGES,
    SHARPNESSES,
    ProKeR,
    choose_kernel,
)
from sotglp.methods.zero_shot import ZeroShot
from support.prompt_models import NAMES
from support.samples import drawn_clusters


def regression(sharpness: float, ridge: float) -> KernelRidge:
    """For unit features, |x - y|^2 is 2 (1 - cosine)."""
    return KernelRidge(alpha=ridge, kernel="rbf", gamma=sharpness / 2)


@pytest.mark.parametrize(("sharpness", "ridge"), [(3.0, 1.0), (20.0, 0.05)])
def test_it_is_kernel_ridge_regression_of_the_residual(tiny_backbone: Backbone, sharpness: float, ridge: float) -> None:
    model = ProKeR(tiny_backbone, NAMES, sharpness=sharpness, ridge=ridge)
    shots, classes = drawn_clusters(3, 5, width=32, seed=0)
    model.fit_features(3 * shots.float(), classes)
    queries = torch.randn(6, 32, generator=torch.Generator().manual_seed(3))
    outputs = model.compare(EncodedImages(queries, torch.zeros(6, 16, 64)), model.encode_text())
    x, new = (F.normalize(part.double(), dim=1).numpy() for part in (shots, queries))
    text = model.class_vectors.double().numpy()
    oracle = regression(sharpness, ridge).fit(x, np.eye(3)[classes] - x @ text.T)
    np.testing.assert_allclose(outputs.global_logits, new @ text.T + oracle.predict(new), rtol=0, atol=1e-5)


def test_without_shots_or_with_an_endless_ridge_it_is_zero_shot(tiny_backbone: Backbone, images: Tensor) -> None:
    expected = ZeroShot(tiny_backbone, NAMES)(images).global_logits
    ridged = ProKeR(tiny_backbone, NAMES, sharpness=1, ridge=1e12)
    ridged.fit_features(torch.randn(6, 32), torch.arange(6) % 3)
    assert torch.equal(ProKeR(tiny_backbone, NAMES)(images).global_logits, expected)
    torch.testing.assert_close(ridged(images).global_logits, expected)


def test_sharpness_and_ridge_are_those_of_leaving_one_out_in_turn() -> None:
    features, classes = drawn_clusters(3, 5, width=6, seed=4, spread=0.8)
    zero_shot = 0.1 * torch.randn(15, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x, y = features.numpy(), np.eye(3)[classes] - zero_shot.numpy()

    def merit(sharpness: float, ridge: float) -> tuple[int, float]:
        n_correct, error = 0, 0.0
        for i in range(15):
            rest = np.arange(15) != i
            residual = regression(sharpness, ridge).fit(x[rest], y[rest]).predict(x[i : i + 1])[0]
            n_correct += int((zero_shot[i].numpy() + residual).argmax() == classes[i])
            error += ((y[i] - residual) ** 2).sum()
        return n_correct, -error

    grid = [(sharpness, ridge) for sharpness in SHARPNESSES for ridge in RIDGES]
    assert choose_kernel(features, classes, zero_shot) == max(grid, key=lambda pair: merit(*pair))
    of_ridge = max(((3.0, ridge) for ridge in RIDGES), key=lambda pair: merit(*pair))
    assert choose_kernel(features, classes, zero_shot, sharpness=3.0) == of_ridge


def test_with_one_shot_a_class_the_defaults_are_used() -> None:
    features, classes = drawn_clusters(3, 1, width=6, seed=4)
    zero_shot = torch.zeros(3, 3, dtype=torch.float64)
    assert choose_kernel(features, classes, zero_shot) == (DEFAULT_SHARPNESS, DEFAULT_RIDGE)
    assert choose_kernel(features, classes, zero_shot, ridge=0.5) == (DEFAULT_SHARPNESS, 0.5)


def test_many_shots_are_sampled_for_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    features, classes = drawn_clusters(3, 8, width=6, seed=4)
    zero_shot = torch.zeros(24, 3, dtype=torch.float64)
    monkeypatch.setattr("sotglp.methods.proker.MOST_LEFT_OUT", 12)
    half = slice(None, None, 2)
    assert choose_kernel(features, classes, zero_shot) == choose_kernel(features[half], classes[half], zero_shot[half])


@pytest.mark.parametrize(
    "damaged",
    [
        {"keys": None},
        {"keys": torch.zeros(2, 31)},
        {"keys": torch.zeros(3, 32)},
        {"keys": torch.zeros(2, 32, dtype=torch.long)},
        {"coefficients": torch.zeros(2, 3)},
        {"coefficients": torch.zeros(4, 2)},
        {"kernel_sharpness": torch.zeros(1)},
    ],
    ids=str,
)
def test_keys_that_do_not_fit_are_refused(tiny_backbone: Backbone, damaged: dict[str, Tensor | None]) -> None:
    whole = {"keys": torch.zeros(2, 32), "coefficients": torch.zeros(3, 2), "kernel_sharpness": torch.ones(())}
    parts = {name: value for name, value in {**whole, **damaged}.items() if value is not None}
    with pytest.raises(SotglpError, match="its keys and coefficients do not fit"):
        ProKeR(tiny_backbone, NAMES).restore(parts)
    ProKeR(tiny_backbone, NAMES).restore(whole)
