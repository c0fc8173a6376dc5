from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from sotglp import SotglpError
from sotglp.settings import InferenceConfig, ModelConfig, Preset, Settings, TrainConfig, checked, load_preset, presets
from support.published_settings import PUBLISHED


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_presets(name: str) -> None:
    preset = load_preset(name)
    training, model = preset.training, preset.model
    found = (training.epochs, training.batch_size, training.learning_rate, model.n_local_prompts)
    assert (*found, preset.zero_shot_template) == PUBLISHED[name]
    assert (training.momentum, training.weight_decay, training.prompt_dropout) == (0.9, 0.01, 0.75)
    assert (training.shots, training.draw, training.views, training.augment) == (16, "published", 0, True)
    assert (model.n_global_prompts, model.top_k, model.epsilon, model.template) == (3, 10, 0.1, "A photo of a {}")


def test_presets_are_the_published_ones_and_a_folders() -> None:
    assert set(presets()) == {*PUBLISHED, "folder"}


def test_a_preset_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("training: {epochs: 3}\nmodel: {top_k: 5}\n")
    assert load_preset(str(file)).training.epochs == 3
    assert load_preset(str(file)).model.top_k == 5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("training: {epoch: 3}", "training.epoch"),
        ("training: {epochs: many}", "training.epochs = 'many'"),
        ("[1, 2]", "must hold the entries"),
        ("a: [", "can't be read as YAML"),
    ],
)
def test_presets_that_cannot_be_used(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(SotglpError, match=words):
        load_preset(str(file))
    with pytest.raises(SotglpError, match="no preset 'caltech'"):
        load_preset("caltech")
    with pytest.raises(SotglpError, match="can't be read"):
        load_preset(str(tmp_path / "absent.yaml"))


def test_epochs_make_enough_steps_if_not_set() -> None:
    config = TrainConfig(batch_size=32)
    # 10 steps an epoch; a single one; 500, where a few epochs are the least.
    assert [config.n_epochs(n) for n in (320, 20, 16000)] == [10, 100, 5]
    assert TrainConfig(batch_size=1, epochs=7).n_epochs(3) == 7


def test_changes_find_their_place() -> None:
    changed = Preset().changed({"top_k": 3, "shots": None, "learning_rate": 0.1})
    assert (changed.model.top_k, changed.training.shots, changed.training.learning_rate) == (3, None, 0.1)
    with pytest.raises(SotglpError, match=r"no setting 'topk' .did you mean top_k"):
        Preset().changed({"topk": 3})
    with pytest.raises(SotglpError, match="shots = 0 can't be used"):
        Preset().changed({"shots": 0})


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (TrainConfig, "precision", "fp8"),
        (TrainConfig, "seed", 2**63),
        *((TrainConfig, name, inf) for name in ("learning_rate", "weight_decay") for inf in (math.inf, math.nan)),
        *((ModelConfig, name, inf) for name in ("epsilon", "relaxation") for inf in (math.inf, math.nan)),
        *((InferenceConfig, "temperature", value) for value in (0.0, 1e-40, 1e40, math.inf, math.nan)),
    ],
)
def test_errors_name_the_value(kind: type[Settings], name: str, value: object) -> None:
    with pytest.raises(SotglpError, match=re.escape(f"{name} = {value!r} can't be used")):
        checked(kind, {name: value})


def test_names_of_settings_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("1: 2")
    with pytest.raises(SotglpError, match=r"1.* = 1 can't be used"):
        load_preset(str(tmp_path / "mine.yaml"))


def test_a_value_of_any_size_is_shown_in_short(tmp_path: Path) -> None:
    # Each line names the one before ten times: written out, the last is a hundred million letters.
    laughs = "\n".join(f"- &{'abcdefgh'[k]} [{', '.join(['*' + 'abcdefgh'[k - 1]] * 10)}]" for k in range(1, 8))
    (tmp_path / "mine.yaml").write_text(f"model:\n  top_k:\n  - &a [l]\n{laughs}".replace("\n-", "\n  -"))
    with pytest.raises(SotglpError, match=r"model\.top_k = ") as raised:
        load_preset(str(tmp_path / "mine.yaml"))
    assert len(str(raised.value)) < 500
    (tmp_path / "mine.yaml").write_text(f"training: {{optimizer: 0x{'f' * 10_000}}}")
    with pytest.raises(SotglpError, match="optimizer = a whole number of 40000 bits can't be used"):
        load_preset(str(tmp_path / "mine.yaml"))


def test_another_score_leaves_the_other_settings_of_inference() -> None:
    config = TrainConfig(workers=2, precision="fp32").inference_config()
    changed = config.with_score("energy", 0.5)
    assert changed == InferenceConfig(workers=2, precision="fp32", ood_method="energy", temperature=0.5)
    assert changed.with_score("mcm").temperature == 0.5
    with pytest.raises(SotglpError, match="temperature = 0"):
        config.with_score("mcm", 0.0)
