from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from sotglp import SOTGLP, Backbone
from sotglp.demo.photo_comparison import METHODS, Comparison, compare_methods, evaluate_models
from sotglp.demo.photo_set import PhotoSets, load_photos, packaged_photos
from sotglp.features.views import Views
from sotglp.images.few_shot import draw_shots
from sotglp.methods.method import find_method
from sotglp.methods.registry import build_model
from sotglp.scoring.evaluate import evaluate
from sotglp.scoring.predict import predict
from sotglp.settings import InferenceConfig, Preset, TrainConfig
from sotglp.training.fit import adapt

SETTINGS = TrainConfig(shots=2, epochs=2, batch_size=8, seed=3)


FITTED = list(METHODS)[-1]
"""The method of the demo's model."""


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone.load("tiny")


@pytest.fixture(scope="module")
def photos() -> PhotoSets:
    """Three test photos of each class, and nine unknown ones."""
    train, test, unknown = load_photos(packaged_photos())
    return PhotoSets(train, test.take(draw_shots(test.labels or (), 3, 1)), unknown.take(range(0, 54, 6)))


@pytest.fixture(scope="module")
def compared(backbone: Backbone, photos: PhotoSets) -> tuple[Comparison, list[int]]:
    """All methods on two shots, and how many photos were encoded at a time."""
    encoded: list[int] = []
    encode = Views.encode_batches

    def counted(self: Views, *args: Any, **kwargs: Any) -> Any:
        for indices, features in encode(self, *args, **kwargs):
            encoded.append(len(indices))
            yield indices, features

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Views, "encode_batches", counted)
        return compare_methods(backbone, photos, SETTINGS, InferenceConfig()), encoded


def test_results_are_those_of_evaluate_with_intervals(
    compared: tuple[Comparison, list[int]], backbone: Backbone, photos: PhotoSets
) -> None:
    comparison, _ = compared
    assert list(comparison.results) == list(METHODS)
    model = comparison.fitted.model
    expected = evaluate(model, photos.test, {"unknown": photos.unknown})
    found = comparison.results[FITTED]
    for key in ("accuracy", "accuracy_global", "accuracy_local", "ece", "n"):
        assert found[key] == pytest.approx(expected[key])
    assert {key: found["ood"]["unknown"][key] for key in ("auroc", "fpr95", "n")} == pytest.approx(
        {key: expected["ood"]["unknown"][key] for key in ("auroc", "fpr95", "n")}
    )
    wilson = binomtest(round(found["accuracy"] * 24), 24).proportion_ci(method="wilson")
    assert found["interval"] == pytest.approx([wilson.low, wilson.high])
    inside, outside = (predict(model, some).ood_scores for some in (photos.test, photos.unknown))
    is_in = np.arange(len(inside) + len(outside)) < len(inside)
    assert found["ood"]["unknown"]["auroc"] == pytest.approx(roc_auc_score(is_in, np.concatenate([inside, outside])))


def test_shots_are_encoded_once_for_all_methods(compared: tuple[Comparison, list[int]], photos: PhotoSets) -> None:
    _, encoded = compared
    # One centre crop, and the training views as tokens and in the joint space; then all test photos, once.
    of_shots = 16 * (1 + 2 * SETTINGS.views)
    assert sum(encoded) == of_shots + len(photos.test) + len(photos.unknown)


def test_a_shared_cache_changes_no_model(
    compared: tuple[Comparison, list[int]], backbone: Backbone, photos: PhotoSets
) -> None:
    comparison, _ = compared
    config, training = METHODS[FITTED].settings_on(Preset(training=SETTINGS), {})
    alone = adapt(backbone, photos.train, config, training).model
    together = comparison.fitted.model
    assert isinstance(together, SOTGLP)
    assert together.config == alone.config
    assert together.config.residual == "gda"
    for name, tensor in alone.kept_tensors().items():
        assert torch.equal(tensor, together.kept_tensors()[name])
    assert len(comparison.fitted.history) == 2


def test_zero_shot_uses_no_shots_and_others_report_seconds(compared: tuple[Comparison, list[int]]) -> None:
    results = compared[0].results
    assert results["zero-shot"]["seconds"] == 0
    assert all(one["seconds"] > 0 for name, one in results.items() if name != "zero-shot")
    assert {one["n"] for one in results.values()} == {24}


def test_a_score_that_needs_shots_is_replaced_for_zero_shot_alone(
    compared: tuple[Comparison, list[int]], backbone: Backbone, photos: PhotoSets
) -> None:
    config, _ = find_method("zero-shot").settings_on(Preset(), {})
    models = {"zero-shot": build_model(backbone, photos.train.classes, config), "SOT-GLP": compared[0].fitted.model}
    results = evaluate_models(models, photos, InferenceConfig(ood_method="knn"))
    assert {name: one["ood_method"] for name, one in results.items()} == {
        "zero-shot": "gl-mcm",
        "SOT-GLP": "knn",
    }
    expected = evaluate(models["SOT-GLP"], photos.test, {"unknown": photos.unknown}, InferenceConfig(ood_method="knn"))
    assert results["SOT-GLP"]["ood"]["unknown"]["auroc"] == pytest.approx(expected["ood"]["unknown"]["auroc"])
