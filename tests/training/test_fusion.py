from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from sotglp import SOTGLP, Backbone, SotglpWarning
from sotglp.images.image_set import ImageSet
from sotglp.model_file.load import load_model
from sotglp.model_file.save import save_model
from sotglp.scoring.predict import predict
from sotglp.settings import ModelConfig, TrainConfig
from sotglp.training.fit import adapt
from sotglp.training.fusion import PENALTY, HeldOutScores, choose_factors

QUICK = TrainConfig(epochs=2, batch_size=4, learning_rate=0.02, shots=None, augment=False)


def drawn_scores(seed: int, skill: tuple[float, float, float]) -> HeldOutScores:
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 4, 200)
    scores = rng.standard_normal((200, 4, 3))
    scores[np.arange(200), targets] += skill
    return HeldOutScores(scores * (100, 1, 0.01), targets)


def test_factors_minimise_the_cross_entropy() -> None:
    held_out = drawn_scores(0, (1, 0.5, 2))
    centred = held_out.scores - held_out.scores.mean(axis=1, keepdims=True)
    spread = centred.std(axis=(0, 1))

    def objective(factors: np.ndarray) -> float:
        logs = log_softmax(centred @ factors, axis=1)
        penalty = PENALTY * np.square(factors * spread).sum()
        return float(penalty - logs[np.arange(200), held_out.targets].mean())

    found = np.array(choose_factors(held_out))
    for part in range(3):
        for change in (0.97, 1.03):
            other = found.copy()
            other[part] *= change
            assert objective(other) > objective(found)


@pytest.mark.parametrize("part", range(3))
def test_scores_that_know_nothing_hardly_count(part: int) -> None:
    skill = [2.0, 2.0, 2.0]
    skill[part] = 0.0
    held_out = drawn_scores(1, (skill[0], skill[1], skill[2]))
    shares = np.array(choose_factors(held_out)) * (100, 1, 0.01)
    assert shares[part] < 0.2 * shares.sum() / 2


def test_a_score_that_misleads_does_not_count() -> None:
    assert choose_factors(drawn_scores(2, (1, -2, 1)))[1] == 0


def test_a_fused_model_is_the_same_after_saving(tiny_backbone: Backbone, images: ImageSet, tmp_path: Path) -> None:
    fitted = adapt(tiny_backbone, images, ModelConfig(residual="gda", top_k=4), QUICK)
    assert fitted.model.config.fusion is not None
    save_model(tmp_path / "m.safetensors", fitted.model, training=QUICK)
    loaded = load_model(tmp_path / "m.safetensors", backbone=tiny_backbone).model
    assert loaded.config == fitted.model.config
    before, after = (predict(model, images).probabilities for model in (fitted.model, loaded))
    np.testing.assert_array_equal(before, after)


def test_prompts_and_projection_are_those_without_a_residual(tiny_backbone: Backbone, images: ImageSet) -> None:
    plain, fused = (
        adapt(tiny_backbone, images, ModelConfig(top_k=4, residual=kind), QUICK).model for kind in (None, "proker")
    )
    for name, tensor in plain.kept_tensors().items():
        assert torch.equal(fused.kept_tensors()[name], tensor)


def test_given_factors_are_kept(tiny_backbone: Backbone, images: ImageSet) -> None:
    config = ModelConfig(residual="gda", fusion=(0.5, 0.5, 2.0), top_k=4)
    assert adapt(tiny_backbone, images, config, QUICK).model.config == config


def test_with_single_shots_the_residual_does_not_count(tiny_backbone: Backbone, images: ImageSet) -> None:
    config = QUICK.model_copy(update={"shots": 1})
    with pytest.warns(SotglpWarning, match="does not count"):
        model = adapt(tiny_backbone, images, ModelConfig(residual="gda", top_k=4), config).model
    assert isinstance(model, SOTGLP)
    assert model.fusion == (0.5, 0.5, 0.0)
