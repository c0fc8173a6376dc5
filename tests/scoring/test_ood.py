from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch
from pytorch_ood.detector import ASH, GEN, ReAct, ViM
from scipy.special import logsumexp, softmax
from scipy.stats import entropy
from torch import Tensor
from torch.nn import functional as F

from sotglp import SOTGLP, Backbone, SotglpError, SotglpWarning
from sotglp.features.rows import EncodedImages
from sotglp.images.image_set import ImageSet
from sotglp.methods.method import METHODS
from sotglp.methods.registry import KINDS
from sotglp.methods.shot_features import build_shot_memory, region_features
from sotglp.methods.shot_memory import ShotMemory
from sotglp.methods.zero_shot import ZeroShot
from sotglp.scoring import ood
from sotglp.scoring.ood import SCORES
from sotglp.settings import InferenceConfig, OodMethod, checked
from support.samples import Reference

OF_LOGITS = {
    "msp": lambda logits, t: softmax(logits / t, axis=1).max(axis=1),
    "max-logit": lambda logits, t: logits.max(axis=1),
    "energy": lambda logits, t: t * logsumexp(logits / t, axis=1),
    "margin": lambda logits, t: np.diff(np.sort(softmax(logits / t, axis=1), axis=1)[:, -2:], axis=1)[:, 0],
    "entropy": lambda logits, t: -entropy(softmax(logits / t, axis=1), axis=1),
}


def drawn_images(n: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def remembering_model(backbone: Backbone) -> SOTGLP:
    model = SOTGLP(backbone, ["cat", "dog", "owl"], top_k=3)
    labels = [("cat", "dog", "owl")[place % 3] for place in range(12)]
    model.shots = build_shot_memory(model, ImageSet.from_items(drawn_images(12, seed=1), labels), InferenceConfig())
    return model


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
def test_published_scores(reference: Reference, name: str, method: OodMethod, temperature: float) -> None:
    found = ood.score(reference.model, reference.numbers["image"], method, temperature)
    # The published code scores the other way round: smaller for in-distribution.
    torch.testing.assert_close(found, -reference.numbers[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 5.0])
@pytest.mark.parametrize("method", OF_LOGITS)
@torch.no_grad()
def test_scores_of_logits_are_scipys(tiny_backbone: Backbone, method: OodMethod, temperature: float) -> None:
    model = SOTGLP(tiny_backbone, ["cat", "dog", "owl"])
    images = drawn_images()
    logits = model.logits(model(images)).double().numpy()
    np.testing.assert_allclose(
        logits, np.log(model.predict_proba(images)) + logsumexp(logits, axis=1)[:, None], rtol=1e-4
    )
    found = ood.score(model, images, method, temperature)
    np.testing.assert_allclose(found, OF_LOGITS[method](logits, temperature), rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_scores_of_shots_come_from_the_memory(tiny_backbone: Backbone) -> None:
    model = remembering_model(tiny_backbone)
    images = drawn_images()
    features, patches = tiny_backbone.encode_image(images)
    encoded = EncodedImages(features, patches)
    outputs = model(images)
    assert torch.equal(ood.score(outputs), ood.score(model, images))
    assert torch.equal(ood.score(model, images, "knn"), model.shots.nearest(features))
    assert torch.equal(ood.score(model, images, "subspace"), model.shots.subspace(features))
    of_images = model.shots.mahalanobis(features)
    assert torch.equal(ood.score(model, images, "mahalanobis"), of_images)
    regions = region_features(model, encoded, outputs, model.logits(outputs).argmax(dim=-1))
    expected = of_images + model.shots.mahalanobis_of_regions(regions)
    torch.testing.assert_close(ood.score(model, images, "mahalanobis-patches"), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 5.0])
@torch.no_grad()
def test_generalised_entropy_is_pytorch_oods(
    tiny_backbone: Backbone, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, images = ZeroShot(tiny_backbone, ["cat", "dog", "owl"]), drawn_images()
    logits = model.logits(model(images))
    for n_largest, n_terms in ((100, 3), (2, 2)):
        monkeypatch.setattr(ood, "GEN_CLASSES", n_largest)
        expected = n_terms * GEN.score(logits / temperature, M=n_largest)
        torch.testing.assert_close(ood.score(model, images, "gen", temperature), -expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_scores_of_changed_features_are_pytorch_oods(tiny_backbone: Backbone) -> None:
    model, images = ZeroShot(tiny_backbone, ["cat", "dog", "owl"]), drawn_images()
    shots = F.normalize(torch.randn(12, 32, generator=torch.Generator().manual_seed(5)), dim=1)
    model.shots = ShotMemory(shots, shots, torch.arange(12) % 3)
    features = F.normalize(tiny_backbone.encode_image(images)[0], dim=1)
    weights = tiny_backbone.logit_scale * model.class_vectors

    def head(maps: Tensor) -> Tensor:
        return F.normalize(maps.flatten(1), dim=1) @ weights.T

    maps = features[:, :, None, None]
    react = ReAct(torch.nn.Identity(), head, percentile=0.9).fit_feature_maps(
        shots[:, :, None, None], model.shots.classes
    )
    vim = ViM(None, d=6, w=weights, b=torch.zeros(3)).fit_features(shots, model.shots.classes)
    expected = {
        "ash": ASH(torch.nn.Identity(), head, "ash-p", percentile=0.65).predict_feature_maps(maps),
        "react": react.predict_feature_maps(maps),
        "vim": vim.predict_features(features),
    }
    for name, outlier_score in expected.items():
        torch.testing.assert_close(ood.score(model, images, name), -outlier_score, rtol=1e-4, atol=1e-4)
    predicted = model.logits(model(images)).argmax(dim=1)
    torch.testing.assert_close(ood.score(model, images, "she"), model.shots.pattern_energy(features, predicted))


def test_a_former_name_of_a_score_is_known_with_a_note(tiny_backbone: Backbone) -> None:
    model, images = remembering_model(tiny_backbone), drawn_images()
    with pytest.warns(SotglpWarning, match="transport is now called mahalanobis-patches"):
        found = ood.score(model, images, "transport")  # type: ignore[arg-type]
    assert torch.equal(found, ood.score(model, images, "mahalanobis-patches"))
    with pytest.warns(SotglpWarning, match="mahalanobis-patches"):
        assert checked(InferenceConfig, {"ood_method": "transport"}).ood_method == "mahalanobis-patches"


@pytest.mark.parametrize("name", METHODS)
def test_every_score_works_with_every_method(tiny_backbone: Backbone, name: str) -> None:
    method = METHODS[name]
    settings = dict(method.settings) | ({"top_k": 3} if "top_k" in method.config_class.model_fields else {})
    model = KINDS[method.kind](tiny_backbone, ["cat", "dog"], **settings)
    shots = ImageSet.from_items(drawn_images(6, seed=1), ["cat", "dog"] * 3)
    if model.needs_shot_features:
        model.fit_features(tiny_backbone.encode_image(drawn_images(6, seed=1))[0].detach(), torch.arange(6) % 2)
    model.shots = build_shot_memory(model, shots, InferenceConfig())
    assert set(SCORES) == set(get_args(OodMethod))
    for score in SCORES:
        values = ood.score(model, drawn_images(), score)
        assert values.shape == (4,), score
        assert values.isfinite().all(), score


@pytest.mark.parametrize(
    ("method", "temperature", "words"),
    [
        ("odin", 1.0, "no OOD score 'odin'.*mcm, l-mcm, gl-mcm"),
        ("knn", 1.0, "remember=true"),
        *(("gl-mcm", temperature, f"^temperature = {temperature}") for temperature in (0, float("inf"), 1e-40)),
    ],
)
def test_wrong_requests(tiny_backbone: Backbone, method: Any, temperature: float, words: str) -> None:
    model, images = SOTGLP(tiny_backbone, ["cat", "dog"]), torch.zeros(1, 3, 32, 32)
    with pytest.raises(SotglpError, match=words):
        ood.score(model, images, method, temperature)
    with pytest.raises(SotglpError, match="needs images"):
        ood.score(model)
    with pytest.raises(SotglpError, match="give the model and images"):
        ood.score(model(images), method="msp")
