from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge
from torch.nn import functional as F

from sotglp import Backbone
from sotglp.methods.gda import shared_covariance_discriminant
from sotglp.methods.pool import Pool
from sotglp.methods.proker import choose_kernel
from sotglp.methods.residual import build_residual
from sotglp.methods.zero_shot import ZeroShot
from sotglp.settings import Residual
from support.prompt_models import NAMES
from support.samples import drawn_clusters

KINDS: tuple[Residual, ...] = ("gda", "proker")
QUERIES = F.normalize(torch.randn(6, 32, generator=torch.Generator().manual_seed(3)), dim=1)


@pytest.fixture
def zero_shot(tiny_backbone: Backbone) -> ZeroShot:
    return ZeroShot(tiny_backbone, NAMES)


def test_of_kind_gda_is_the_discriminant_of_that_method(zero_shot: ZeroShot) -> None:
    shots, classes = drawn_clusters(3, 5, width=32, seed=0)
    found = build_residual("gda", 3, 32).fit(2 * shots, classes, zero_shot)(QUERIES)
    weights, intercepts = shared_covariance_discriminant(F.normalize(shots, dim=1), classes, 3)
    torch.testing.assert_close(found.double(), QUERIES.double() @ weights.T + intercepts, rtol=1e-4, atol=1e-4)


def test_of_kind_proker_is_kernel_ridge_regression_of_centred_labels(zero_shot: ZeroShot) -> None:
    shots, classes = drawn_clusters(3, 5, width=32, seed=0)
    found = build_residual("proker", 3, 32).fit(2 * shots, classes, zero_shot)(QUERIES)
    keys = F.normalize(shots, dim=1)
    sharpness, ridge = choose_kernel(keys, classes, torch.full((15, 3), 1 / 3, dtype=torch.float64))
    # The squared distance of unit features is 2 (1 - cosine).
    oracle = KernelRidge(alpha=ridge, kernel="rbf", gamma=sharpness / 2)
    oracle.fit(keys.numpy(), F.one_hot(classes, 3).numpy() - 1 / 3)
    np.testing.assert_allclose(found, oracle.predict(QUERIES.double().numpy()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_left_out_scores_are_those_of_a_residual_of_the_other_images(kind: Residual, zero_shot: ZeroShot) -> None:
    shots, classes = drawn_clusters(3, 5, width=32, seed=0)
    residual = build_residual(kind, 3, 32)
    found = residual.left_out(2 * shots, classes, zero_shot)
    folds = torch.arange(5).repeat(3) if kind == "gda" else torch.arange(15)
    prior = torch.full((15, 3), 1 / 3, dtype=torch.float64)
    sharpness, ridge = choose_kernel(F.normalize(shots.double(), dim=1), classes, prior)
    for fold in folds.unique():
        held_out, others = folds == fold, folds != fold
        queries = F.normalize(shots[held_out].double(), dim=1)
        if kind == "gda":
            expected = build_residual(kind, 3, 32).fit(shots[others], classes[others], zero_shot)(queries.float())
        else:
            oracle = KernelRidge(alpha=ridge, kernel="rbf", gamma=sharpness / 2)
            oracle.fit(
                F.normalize(shots[others].double(), dim=1).numpy(), F.one_hot(classes[others], 3).numpy() - 1 / 3
            )
            expected = torch.from_numpy(oracle.predict(queries.numpy()))
        torch.testing.assert_close(found[held_out], expected.double(), rtol=1e-3, atol=1e-3)


def test_of_kind_pool_is_that_method_up_to_what_all_classes_share(zero_shot: ZeroShot, tiny_backbone: Backbone) -> None:
    shots, classes = drawn_clusters(3, 3, width=32, seed=0)
    pool = Pool(tiny_backbone, NAMES)
    pool.fit_features(2 * shots, classes)  # in three folds, as the residual of three shots
    found = build_residual("pool", 3, 32).fit(2 * shots, classes, zero_shot)(QUERIES)
    expected = tiny_backbone.logit_scale * pool.global_cosines(QUERIES, pool.encode_text())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_pool_leaves_each_image_out(zero_shot: ZeroShot) -> None:
    shots, classes = drawn_clusters(3, 3, width=32, seed=0)
    left_out = build_residual("pool", 3, 32).left_out(shots, classes, zero_shot)
    mislabelled = classes.clone()
    mislabelled[0] = 1
    changed = build_residual("pool", 3, 32).left_out(shots, mislabelled, zero_shot)
    # By itself, an image with another label would get that label.
    assert left_out[0].argmax() == changed[0].argmax() == 0


@pytest.mark.parametrize("kind", [*KINDS, "pool"])
def test_an_image_that_is_alone_in_its_class_is_not_left_out(kind: Residual, zero_shot: ZeroShot) -> None:
    shots, classes = drawn_clusters(3, 1, width=32, seed=0)
    residual = build_residual(kind, 3, 32)
    found = residual.left_out(shots, classes, zero_shot)
    expected = residual.fit(shots, classes, zero_shot)(F.normalize(shots.float(), dim=1))
    torch.testing.assert_close(found, expected.double(), rtol=1e-4, atol=1e-4)
