from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.model_selection import cross_val_predict
from sklearn.multiclass import OneVsRestClassifier

from sotglp import Backbone, SOTGLPClassifier, SotglpError, SotglpWarning
from support.estimators import classifier

NAMES = ["blue sea", "green leaf", "red_brick"]
Paths = tuple[list[str], list[str]]


class Spy(SOTGLPClassifier):
    """Notes the names in the prompts of every fit."""

    seen: list[tuple[str, ...]] = []  # noqa: RUF012 - shared by clones

    def fit(self, X: Any, y: Any = None) -> Spy:
        super().fit(X, y)
        self.seen.append(self.model_.class_names)
        return self


ENCODERS = {
    "probabilities": lambda one, X, y: cross_val_predict(one, X, y, cv=2, method="predict_proba"),
    "voting": lambda one, X, y: VotingClassifier([("a", one)], voting="soft").fit(X, y),
    "stacking": lambda one, X, y: StackingClassifier([("a", one)], cv=2).fit(X, y),
    "calibrated": lambda one, X, y: CalibratedClassifierCV(one, cv=2, ensemble=False).fit(X, y),
}


@pytest.mark.parametrize("encoder", ENCODERS)
def test_names_reach_the_prompts_through_label_encoding(tiny_backbone: Backbone, paths: Paths, encoder: str) -> None:
    settings: dict[str, Any] = {"epochs": 1, "shots": 1, "augment": False}
    Spy.seen.clear()
    with pytest.warns(SotglpWarning, match="only numbers.*class_names="):
        ENCODERS[encoder](Spy(tiny_backbone, **settings), *paths)
    Spy.seen.clear()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "the class names are only numbers")
        ENCODERS[encoder](Spy(tiny_backbone, class_names=NAMES, **settings), *paths)
    assert set(Spy.seen) == {tuple(NAMES)}


def test_one_against_the_rest_has_other_classes(tiny_backbone: Backbone, paths: Paths) -> None:
    model = classifier(tiny_backbone, epochs=1, shots=1, class_names=NAMES)
    with pytest.raises(SotglpError, match="class_names must have one name for each of the 2 labels 0, 1"):
        OneVsRestClassifier(model).fit(*paths)


def test_labels_stay_and_names_are_kept(tiny_backbone: Backbone, paths: Paths, tmp_path: Path) -> None:
    images, labels = paths
    numbers = [10 * NAMES.index(label) for label in labels]
    named = classifier(tiny_backbone, class_names={10: NAMES[1], 0: NAMES[0], 20: NAMES[2]}).fit(images, numbers)
    text = classifier(tiny_backbone).fit(images, labels)
    assert named.classes_.tolist() == [0, 10, 20]
    assert named.model_.class_names == tuple(NAMES)
    np.testing.assert_array_equal(named.predict_proba(images), text.predict_proba(images))
    assert named.score(images, numbers) == text.score(images, labels)
    named.calibrate(images, y=numbers)
    named.save(tmp_path / "m.safetensors")
    loaded = SOTGLPClassifier.load(tmp_path / "m.safetensors", backbone=tiny_backbone)
    assert loaded.model_.class_names == tuple(NAMES)
    assert loaded.predict(images, reject=False).tolist() == named.predict(images, reject=False).tolist()
    assert loaded.class_names == {0: NAMES[0], 10: NAMES[1], 20: NAMES[2]}
    assert named.explain(images[0], [20]).classes[0].label == NAMES[2]
    assert named.rename_class(20, 21).classes_.tolist() == [0, 10, 21]
    assert named.remove_class(10).model_.class_names == (NAMES[0], "21")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a", "b"], "class_names must have one name for each of the 3 labels"),
        ("abc", "class_names must have one name"),
        ({"blue sea": "sea"}, "class_names has no name for green leaf, red_brick"),
        (["a", "b", "a"], "have the same name"),
        (["a", "b", None], "class name 2 is None"),
    ],
)
def test_names_that_cannot_be_used(tiny_backbone: Backbone, paths: Paths, names: Any, words: str) -> None:
    with pytest.raises(SotglpError, match=words):
        classifier(tiny_backbone, class_names=names).fit(*paths)


def test_the_label_of_rejected_images_is_reported(tiny_backbone: Backbone, paths: Paths) -> None:
    images, labels = paths[0], ["Unknown" if label == "red_brick" else label for label in paths[1]]
    with pytest.warns(SotglpWarning, match="'Unknown' has the label of images that are rejected"):
        model = classifier(tiny_backbone, epochs=1).fit(images, labels)
    with pytest.warns(SotglpWarning, match="'unknown ' has the label"):
        model.rename_class("Unknown", "unknown ")
