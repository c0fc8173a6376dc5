from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from sotglp import Backbone, MethodClassifier, SOTGLPClassifier, SotglpError, SotglpWarning
from sotglp.methods.method import METHODS
from sotglp.methods.tip_adapter import TipAdapter
from support.samples import COLOURS, coloured_image
from support.towers import small_convolutional

QUICK: dict[str, Any] = {"epochs": 3, "batch_size": 6, "augment": False}
LEARNED_IN_STEPS = [name for name in [*METHODS][4:] if name not in ("gda", "proker", "pool", "lp++")]


def classifier(backbone: Backbone, method: str, **parameters: Any) -> MethodClassifier:
    return MethodClassifier(method, backbone, **{"settings": QUICK, "shots": None, **parameters})


@pytest.fixture(scope="module")
def convolutional_backbone() -> Backbone:
    return Backbone.from_open_clip(small_convolutional(image_size=130))


@pytest.mark.parametrize("tower", ["tiny_backbone", "convolutional_backbone"])
@pytest.mark.parametrize("method", METHODS)
def test_what_a_user_does(request: pytest.FixtureRequest, tmp_path: Path, method: str, tower: str) -> None:
    backbone: Backbone = request.getfixturevalue(tower)
    rng = np.random.default_rng(0)
    labels = [name for name in COLOURS for _ in range(4)]
    pictures = [coloured_image(rng, COLOURS[name]) for name in labels]
    fitted = classifier(backbone, method).fit(pictures, labels)
    assert fitted.classes_.tolist() == sorted(COLOURS)
    assert fitted.model_.kind == METHODS[method].kind
    assert len(fitted.history_) == (3 if method in LEARNED_IN_STEPS else 0)

    probabilities = fitted.predict_proba(pictures)
    assert probabilities.shape == (12, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert fitted.predict(pictures).tolist() == fitted.classes_[probabilities.argmax(axis=1)].tolist()
    ready = torch.stack([backbone.preprocess(picture) for picture in pictures])
    np.testing.assert_allclose(probabilities, fitted.model_.predict_proba(ready), rtol=1e-4, atol=1e-6)

    scores = fitted.ood_score(pictures)
    assert np.isfinite(scores).all()
    is_ood = fitted.calibrate(pictures, tpr=0.75).is_ood(pictures)
    assert 0 < is_ood.sum() <= 3
    assert scores[is_ood].max() < scores[~is_ood].min()

    path = tmp_path / "m.safetensors"
    fitted.save(path)
    loaded = MethodClassifier.load(path, backbone=backbone)
    np.testing.assert_array_equal(loaded.predict_proba(pictures), probabilities)
    np.testing.assert_array_equal(loaded.is_ood(pictures), is_ood)
    assert loaded.history_ == fitted.history_
    # What was loaded can be fitted again, to the same.
    assert loaded.method == method
    again = loaded.fit(pictures, labels)
    np.testing.assert_array_equal(again.predict_proba(pictures), probabilities)


@pytest.mark.parametrize("method", METHODS)
def test_a_copy_with_the_same_seed_gives_the_same_bits(tiny_backbone: Backbone, paths: Any, method: str) -> None:
    X, y = paths
    fitted = classifier(tiny_backbone, method, shots=3, seed=5)
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    assert copy.backbone is tiny_backbone
    torch.manual_seed(0)
    first = fitted.fit(X, y).predict_proba(X)
    torch.manual_seed(1)
    np.testing.assert_array_equal(copy.fit(X, y).predict_proba(X), first)
    assert not hasattr(clone(fitted), "model_")
    learned, others = (one.model_.kept_tensors() for one in (fitted, clone(fitted).set_params(seed=6).fit(X, y)))
    is_same = all(torch.equal(value, others[name]) for name, value in learned.items())
    assert is_same == (not METHODS[method].uses_shots)


@pytest.mark.parametrize("method", ["linear-probe", "tip-adapter", "tip-adapter-f", "coop", "plot"])
def test_it_tells_colours_apart(tiny_backbone: Backbone, class_folders: Path, paths: Any, method: str) -> None:
    settings = {**QUICK, "epochs": 30, "batch_size": 18, "learning_rate": 0.02}
    if method.startswith("tip"):
        settings |= {"cache_weight": 20, "sharpness": 20}
    assert classifier(tiny_backbone, method, settings=settings).fit(class_folders).score(*paths) > 0.6


def test_settings_reach_model_and_training(tiny_backbone: Backbone, paths: Any) -> None:
    settings = {**QUICK, "cache_weight": 3.0, "optimizer": "sgd", "learning_rate": 0.1}
    fitted = classifier(tiny_backbone, "tip-adapter-f", settings=settings, shots=2).fit(*paths)
    assert isinstance(fitted.model_, TipAdapter)
    assert (fitted.model_.config.cache_weight, fitted.model_.config.learn_keys) == (3.0, True)
    assert len(fitted.model_.keys) == 6
    assert fitted.history_[0]["learning_rate"] == 0.1
    of_preset = classifier(tiny_backbone, "zero-shot", preset="dtd").fit(*paths)
    assert of_preset.model_.config.zero_shot_template == "{} texture."


def test_a_search_over_settings(tiny_backbone: Backbone, paths: Any) -> None:
    X, y = (np.array(part) for part in paths)
    grid = {"settings": [{"cache_weight": weight, "sharpness": 20} for weight in (0, 20)]}
    search = GridSearchCV(classifier(tiny_backbone, "tip-adapter"), grid, cv=2).fit(X, y)
    assert search.best_params_["settings"]["cache_weight"] == 20
    methods = GridSearchCV(classifier(tiny_backbone, "zero-shot"), {"method": ["zero-shot", "linear-probe"]}, cv=2)
    assert methods.fit(X, y).best_params_["method"] == "linear-probe"


def test_a_loaded_one_knows_how_it_was_made(tiny_backbone: Backbone, paths: Any, tmp_path: Path) -> None:
    X, y = paths
    settings = {**QUICK, "top_k": 3, "learning_rate": 0.01}
    fitted = classifier(tiny_backbone, "plot", settings=settings, shots=4, seed=7).fit(X, y)
    fitted.save(tmp_path / "m.safetensors")
    loaded = MethodClassifier.load(tmp_path / "m.safetensors", backbone=tiny_backbone)
    parameters = loaded.get_params()
    expected = {"method": "plot", "shots": 4, "seed": 7, "precision": "auto", "workers": 0}
    assert expected.items() <= parameters.items()
    assert settings.items() <= parameters["settings"].items()
    assert loaded._settings("tiny") == fitted._settings("tiny")
    loaded.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "m.safetensors").read_bytes()


def test_files_of_either_classifier(tiny_backbone: Backbone, paths: Any, tmp_path: Path) -> None:
    X, y = paths
    classifier(tiny_backbone, "tip-adapter").fit(X, y).save(tmp_path / "tip")
    with pytest.raises(SotglpError, match="holds a tip-adapter model: load it with MethodClassifier"):
        SOTGLPClassifier.load(tmp_path / "tip", backbone=tiny_backbone)
    # CoOp is SOT-GLP with other settings, so that either may load the other's file.
    coop = classifier(tiny_backbone, "coop").fit(X, y)
    coop.save(tmp_path / "coop")
    loaded = SOTGLPClassifier.load(tmp_path / "coop", backbone=tiny_backbone)
    assert (loaded.branches, loaded.n_global_prompts, loaded.prompt_dropout) == ("global", 1, 0.0)
    np.testing.assert_array_equal(loaded.predict_proba(X), coop.predict_proba(X))
    SOTGLPClassifier(tiny_backbone, shots=None, **QUICK).fit(X, y).save(tmp_path / "sot-glp")
    assert MethodClassifier.load(tmp_path / "sot-glp", backbone=tiny_backbone).method == "sot-glp"


@pytest.mark.parametrize("method", METHODS)
def test_one_class_is_none(tiny_backbone: Backbone, paths: Any, method: str) -> None:
    with pytest.raises(SotglpError, match="at least two classes"):
        classifier(tiny_backbone, method).fit(paths[0], ["same"] * 18)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"method": "tip"}, r"there is no method 'tip'.*: choose one of"),
        ({"preset": "cars"}, "there is no preset 'cars'"),
        ({"settings": {"top_k": 3}, "method": "tip-adapter"}, "there is no setting 'top_k'"),
        ({"settings": {"epochs": -1}}, "epochs = -1"),
        ({"settings": {"seed": 4}}, "seed is a parameter of the classifier: give it as such"),
        ({"settings": {"epochs": 1, "shots": 4}}, "shots is a parameter of the classifier"),
        ({"shots": 0}, "shots = 0"),
        ({"device": "abacus"}, "device 'abacus'"),
    ],
)
def test_wrong_parameters(tiny_backbone: Backbone, paths: Any, parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(SotglpError, match=words):
        classifier(tiny_backbone, **{"method": "coop", **parameters}).fit(*paths)


def test_auto_keeps_its_choice_and_the_settings_that_it_chose(tiny_backbone: Backbone, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = [name for name in COLOURS for _ in range(3)]
    pictures = [coloured_image(rng, COLOURS[name]) for name in labels]
    fitted = classifier(tiny_backbone, "auto").fit(pictures, labels)
    (choice,) = fitted.choices_
    assert fitted.model_.kind == METHODS[choice.chosen].kind
    fitted.save(tmp_path / "m.safetensors")
    loaded = MethodClassifier.load(tmp_path / "m.safetensors", backbone=tiny_backbone)
    assert loaded.choices_ == (choice,)
    assert loaded.method == choice.chosen
    np.testing.assert_array_equal(loaded.predict(pictures), fitted.predict(pictures))


@pytest.mark.parametrize("estimator", [SOTGLPClassifier, MethodClassifier])
def test_a_learning_rate_is_chosen_and_kept(
    estimator: Any, tiny_backbone: Backbone, paths: Any, tmp_path: Path
) -> None:
    changed: dict[str, Any] = {**QUICK, "learning_rate": "auto"}
    parameters = changed if estimator is SOTGLPClassifier else {"settings": changed}
    fitted = estimator(backbone=tiny_backbone, shots=2, **parameters).fit(*paths)
    (choice,) = fitted.choices_
    rate = float(choice.chosen)
    assert (choice.setting, choice.n, len(choice.merits)) == ("learning_rate", 6, 3)
    assert fitted.history_[0]["learning_rate"] == rate
    fitted.save(tmp_path / "m.safetensors")
    loaded = estimator.load(tmp_path / "m.safetensors", backbone=tiny_backbone)
    parameters = loaded.get_params()
    assert {**parameters, **parameters.get("settings", {})}["learning_rate"] == rate
    assert loaded.choices_ == (choice,)


def test_without_training_no_learning_rate_is_chosen(tiny_backbone: Backbone, paths: Any) -> None:
    with pytest.warns(SotglpWarning, match="linear-probe"):
        fitted = classifier(tiny_backbone, "linear-probe", settings={"learning_rate": "auto"}).fit(*paths)
    assert fitted.choices_ == ()
