from __future__ import annotations

from typing import Any

import pytest

from sotglp import SotglpError
from sotglp.methods.configs import ZeroShotConfig
from sotglp.methods.method import METHODS, Method
from sotglp.settings import ModelConfig, Preset, TrainConfig, load_preset

PRESET = Preset(
    model=ModelConfig(n_global_prompts=7, n_local_prompts=6, epsilon=0.3),
    training=TrainConfig(epochs=9, learning_rate=0.5, weight_decay=0.25),
    zero_shot_template="a painting of {}.",
)
METHOD = Method(
    "own",
    "Own",
    "nowhere",
    "sot-glp",
    settings={"n_global_prompts": 2, "n_local_prompts": 3},
    training={"epochs": 4, "learning_rate": 0.1},
)


def test_preset_then_method_then_changes() -> None:
    settings, training = METHOD.settings_on(PRESET, {"n_local_prompts": 5, "learning_rate": 0.2, "seed": 8})
    assert settings == ModelConfig(n_global_prompts=2, n_local_prompts=5, epsilon=0.3)
    assert training == TrainConfig(epochs=4, learning_rate=0.2, weight_decay=0.25, seed=8)
    assert METHOD.settings_on(PRESET, {}) == (
        ModelConfig(n_global_prompts=2, n_local_prompts=3, epsilon=0.3),
        TrainConfig(epochs=4, learning_rate=0.1, weight_decay=0.25),
    )


def test_the_sentence_of_a_dataset_comes_from_its_preset() -> None:
    pets = load_preset("oxford_pets")
    settings, training = METHODS["zero-shot"].settings_on(pets, {})
    assert settings == ZeroShotConfig(zero_shot_template="a photo of a {}, a type of pet.")
    assert training == pets.training
    changed = METHODS["tip-adapter"].settings_on(pets, {"zero_shot_template": "{}", "sharpness": 2})[0]
    expected = {"zero_shot_template": "{}", "ensemble": False, "cache_weight": 1, "sharpness": 2, "learn_keys": False}
    assert changed.model_dump() == expected


def test_a_preset_is_asked_only_for_what_the_model_has() -> None:
    pets = load_preset("oxford_pets").changed({"epsilon": 0.3, "matching": "uniform"})
    gallop = METHODS["gallop"].settings_on(pets, {})[0]
    # The method's four local prompts come after the six of the preset.
    assert (gallop.n_local_prompts, gallop.top_k, gallop.scale_step) == (4, 10, 10)
    assert "n_local_prompts" not in METHODS["clip-adapter"].settings_on(pets, {})[0].model_dump()


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("coop", {"top_j": 3}, r"there is no setting 'top_j' \(did you mean top_k\?\)"),
        ("tip-adapter", {"top_k": 3}, "there is no setting 'top_k'.*: choose one of .*cache_weight.*sharpness"),
        ("sot-glp", {"zero_shot_template": "{}"}, "there is no setting 'zero_shot_template'"),
        *[
            ("gallop", {name: value}, f"there is no setting '{name}'")
            for name, value in (("local_factor", "1"), ("matching", "uniform"), ("epsilon", 1), ("relaxation", 1))
        ],
        ("coop", {"ood_weight": 1}, "there is no setting 'ood_weight'"),
        ("locoop", {"ood_weight": "much"}, "ood_weight = 'much' can't be used"),
        ("clip-adapter", {"epochs": 0}, "epochs = 0 can't be used"),
    ],
)
def test_changes_that_cannot_be_made(name: str, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SotglpError, match=words):
        METHODS[name].settings_on(Preset(), changes)
