from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from sotglp import Backbone, SotglpError
from sotglp.errors import OldClassesOnlyError
from sotglp.features.rows import EncodedImages
from sotglp.images.image_set import ImageSet
from sotglp.methods.configs import LinearProbeConfig
from sotglp.methods.linear_probe import LinearProbe, fit_regression
from sotglp.methods.zero_shot import ZeroShot
from sotglp.settings import TrainConfig
from sotglp.training.fit import adapt
from support.samples import drawn_clusters, preprocessed


@pytest.fixture
def images(class_folders: Path) -> ImageSet:
    return ImageSet.from_path(class_folders)


def unit_features(backbone: Backbone, images: ImageSet) -> NDArray[np.float64]:
    features = backbone.clip.encode_image(preprocessed(backbone, images)).detach().numpy().astype(np.float64)
    unit: NDArray[np.float64] = features / np.linalg.norm(features, axis=1, keepdims=True)
    return unit


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("inverse_regularisation", [0.5, 100.0])
def test_it_is_scikit_learns_regression(
    tiny_backbone: Backbone, images: ImageSet, n_classes: int, inverse_regularisation: float
) -> None:
    names = images.classes[:n_classes]
    images = images.take([i for i, label in enumerate(images.labels or ()) if label in names])
    model = adapt(
        tiny_backbone,
        images,
        LinearProbeConfig(inverse_regularisation=inverse_regularisation),
        TrainConfig(shots=None),
    ).model
    regression = LogisticRegression(C=inverse_regularisation, max_iter=2000)
    features = unit_features(tiny_backbone, images)
    regression.fit(features, images.targets(names))
    found = model.predict_proba(preprocessed(tiny_backbone, images))
    np.testing.assert_allclose(found, regression.predict_proba(features), rtol=0, atol=2e-4)
    # Away from the shots too, where a constant between the classes would show.
    strange = torch.randn(20, 32, generator=torch.Generator().manual_seed(1))
    outputs = model.compare(EncodedImages(strange, torch.randn(20, 16, 64)), model.encode_text())
    expected = regression.predict_proba((strange / strange.norm(dim=1, keepdim=True)).numpy())
    np.testing.assert_allclose(model.probabilities(outputs), expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize("n_shots", [2, 20])
def test_images_fewer_or_more_than_dimensions_have_the_same_regression(n_shots: int) -> None:
    features, classes = drawn_clusters(4, n_shots, width=20, seed=0)
    weights, intercepts = fit_regression(features, classes, 10.0)
    oracle = LogisticRegression(C=10.0, max_iter=2000, tol=1e-8).fit(features.numpy(), classes.numpy())
    others = drawn_clusters(4, 30, width=20, seed=1)[0]
    logits = others @ weights.T + intercepts
    np.testing.assert_allclose(logits.softmax(dim=1), oracle.predict_proba(others.numpy()), atol=5e-3)


def test_the_length_of_features_says_nothing(tiny_backbone: Backbone) -> None:
    features = torch.randn(12, 32, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(12) % 3
    one, other = (LinearProbe(tiny_backbone, ["a", "b", "c"]) for _ in range(2))
    before = one.predict_proba(torch.randn(4, 3, 32, 32))
    torch.testing.assert_close(before, torch.full((4, 3), 1 / 3))  # before any image all classes are alike
    one.fit_features(features, targets)
    other.fit_features(features * torch.linspace(0.1, 9, 12)[:, None], targets)
    torch.testing.assert_close(one.weights, other.weights, rtol=1e-3, atol=1e-4)


def test_no_step_is_needed_and_patches_meet_sentences(tiny_backbone: Backbone, images: ImageSet) -> None:
    fitted = [adapt(tiny_backbone, images, LinearProbeConfig(), TrainConfig(shots=None, seed=seed)) for seed in (1, 2)]
    model = fitted[0].model
    assert fitted[0].history == model.learned == []
    assert torch.equal(model.weights, fitted[1].model.weights)
    batch = preprocessed(tiny_backbone, images)
    expected = ZeroShot(tiny_backbone, images.classes)(batch)
    assert torch.equal(model(batch).patch_logits, expected.patch_logits)
    assert not torch.allclose(model(batch).global_logits, expected.global_logits)
    with pytest.raises(OldClassesOnlyError, match="kind linear-probe"):
        model.for_new_classes(["cat", "dog"])


@pytest.mark.parametrize("n_with_images", [1, 2, 3])
def test_a_class_without_an_image_is_named(tiny_backbone: Backbone, images: ImageSet, n_with_images: int) -> None:
    names = [*images.classes, "zebra"]
    seen = images.take([i for i, label in enumerate(images.labels or ()) if label in names[:n_with_images]])
    with pytest.raises(SotglpError, match=f"no image of the class '{names[n_with_images]}'"):
        adapt(tiny_backbone, seen, LinearProbeConfig(), TrainConfig(shots=None), classes=names)
