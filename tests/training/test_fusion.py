from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sotglp import SOTGLP, Backbone
from sotglp.features.encode import encode_image_features
from sotglp.images.image_set import ImageSet
from sotglp.methods.zero_shot import ZeroShot
from sotglp.model_file.load import load_model
from sotglp.model_file.save import save_model
from sotglp.scoring.predict import predict
from sotglp.settings import Branches, ModelConfig, Residual, TrainConfig
from sotglp.training.fit import adapt
from sotglp.training.fusion import LEAST_SHARE, MOST_SHARE, share

KINDS: tuple[Residual, ...] = ("gda", "proker", "pool")
QUICK = TrainConfig(epochs=2, batch_size=4, learning_rate=0.02, shots=None, augment=False)


def fitted(backbone: Backbone, images: ImageSet, training: TrainConfig = QUICK, **settings: object) -> SOTGLP:
    model = adapt(backbone, images, ModelConfig(top_k=4, **settings), training).model  # type: ignore[arg-type]
    assert isinstance(model, SOTGLP)
    return model


def spread(scores: np.ndarray) -> float:
    return float((scores - scores.mean(axis=1, keepdims=True)).std())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("branches", ["both", "local"])
def test_the_residual_has_its_share_of_the_spread(
    tiny_backbone: Backbone, images: ImageSet, kind: Residual, branches: Branches
) -> None:
    model = fitted(tiny_backbone, images, residual=kind, branches=branches)
    plain = fitted(tiny_backbone, images, branches=branches)
    assert model.fusion[:2] == plain.fusion[:2]
    features = encode_image_features(tiny_backbone, images, QUICK.inference_config()).half()
    targets = torch.from_numpy(images.targets(model.class_names))
    by_names = ZeroShot(tiny_backbone, model.class_names)
    left_out = model.new_residual().left_out(features, targets, by_names)
    zero_shot = predict(by_names, images).probabilities
    truth = targets.numpy()
    times = share((zero_shot.argmax(axis=1) == truth).mean(), (left_out.numpy().argmax(axis=1) == truth).mean())
    of_branches = spread(np.log(predict(plain, images).probabilities.astype(np.float64)))
    assert model.fusion[2] * spread(left_out.numpy()) == pytest.approx(times * of_branches, rel=1e-2)


def test_the_residual_counts_most_where_class_names_say_least() -> None:
    shares = [share(zero_shot, 0.8) for zero_shot in (0, 0.2, 0.4, 0.6, 0.8, 0.9)]
    assert shares[0] == MOST_SHARE
    assert shares[-1] == share(0.5, 0) == LEAST_SHARE
    assert shares == sorted(shares, reverse=True)


def test_a_fused_model_is_the_same_after_saving(tiny_backbone: Backbone, images: ImageSet, tmp_path: Path) -> None:
    model = fitted(tiny_backbone, images, residual="gda")
    save_model(tmp_path / "m.safetensors", model, training=QUICK)
    loaded = load_model(tmp_path / "m.safetensors", backbone=tiny_backbone).model
    assert loaded.config == model.config
    before, after = (predict(one, images).probabilities for one in (model, loaded))
    np.testing.assert_array_equal(before, after)


def test_a_cache_changes_nothing(tiny_backbone: Backbone, images: ImageSet, tmp_path: Path) -> None:
    config = ModelConfig(residual="proker", top_k=4)
    without, with_cache = (
        adapt(tiny_backbone, images, config, QUICK, cache_dir=cache_dir).model for cache_dir in (None, tmp_path)
    )
    assert without.config == with_cache.config


def test_prompts_and_projection_are_those_without_a_residual(tiny_backbone: Backbone, images: ImageSet) -> None:
    plain, fused = (fitted(tiny_backbone, images, residual=kind) for kind in (None, "proker"))
    for name, tensor in plain.kept_tensors().items():
        assert torch.equal(fused.kept_tensors()[name], tensor)


def test_given_factors_are_kept(tiny_backbone: Backbone, images: ImageSet) -> None:
    assert fitted(tiny_backbone, images, residual="gda", fusion=(0.5, 0.5, 2.0)).fusion == (0.5, 0.5, 2.0)


@pytest.mark.parametrize("kind", KINDS)
def test_with_single_shots_the_residual_counts(tiny_backbone: Backbone, images: ImageSet, kind: Residual) -> None:
    model = fitted(tiny_backbone, images, QUICK.model_copy(update={"shots": 1}), residual=kind)
    assert 0 < model.fusion[2] < np.inf
