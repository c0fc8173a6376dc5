from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch.nn import functional as F

from sotglp import Backbone, MethodClassifier, SOTGLPClassifier, SotglpError, SotglpWarning
from sotglp.backbone_defaults import DECIDED
from sotglp.model_file.record import read_record
from sotglp.scoring.predict import Predictions
from sotglp.settings import ModelConfig, Preset, TrainConfig
from support.estimators import QUICK, classifier
from support.samples import COLOURS, coloured_image, tiny_clip


@pytest.fixture
def fitted(tiny_backbone: Backbone, paths: tuple[list[str], list[str]]) -> SOTGLPClassifier:
    return classifier(tiny_backbone).fit(*paths)


@parametrize_with_checks([SOTGLPClassifier(), MethodClassifier()])
def test_scikit_learns_own_checks(estimator: Any, check: Any) -> None:
    # For an estimator that takes no table scikit-learn has few checks; the next test runs all the others.
    check(estimator)


class TablePainter(SOTGLPClassifier):
    """The classifier behind the least that a table needs to become pictures: a stripe for each column."""

    def _paint(self, X: NDArray[Any]) -> torch.Tensor:
        low, high = self.range_
        stripes = torch.from_numpy(((X - low) / (high - low)).clip(0, 1).astype(np.float32))
        return F.interpolate(stripes[:, None, None], size=(32, 32)).expand(-1, 3, -1, -1) * 2 - 1

    def fit(self, X: Any, y: Any = None) -> TablePainter:
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.range_ = X.min(axis=0), X.max(axis=0) + 1e-9
        super().fit(self._paint(X), y)
        return self

    def _calibrated_predictions(self, X: Any) -> Predictions:
        check_is_fitted(self)
        return super()._calibrated_predictions(self._paint(validate_data(self, X, reset=False, dtype=np.float64)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.string = True, False
        return tags


# Every other check of a classifier passes.
NOT_FOR_IMAGES = {
    "check_estimators_overwrite_params": "it compares pickles with a deep copy's, which differ for any torch module",
    "check_methods_sample_order_invariance": "it asks for 1e-9, and a product in float32 rounds by 1e-7 with the index "
    "of a row and of the matrix in memory; the test below asks for as much as float32 can give",
}


@parametrize_with_checks(
    [
        TablePainter(
            Backbone.from_open_clip(tiny_clip()),
            epochs=4,
            learning_rate=0.1,
            n_local_prompts=2,
            top_k=4,
            augment=False,
            shots=None,
        )
    ],
    expected_failed_checks=lambda _: NOT_FOR_IMAGES,
)
def test_scikit_learns_checks_of_classifiers(estimator: TablePainter, check: Any) -> None:
    check(estimator)


def test_parameters_and_defaults_are_those_of_the_settings() -> None:
    parameters, preset = SOTGLPClassifier().get_params(), Preset()
    known = {
        **preset.model.model_dump(),
        **preset.training.model_dump(),
        **dict.fromkeys((*DECIDED, "residual"), "auto"),
        "learning_rate": None,
    }
    assert known.items() <= parameters.items()
    own = "backbone", "pretrained", "image_size", "patch_attention", "device", "cache_dir", "verbose", "class_names"
    assert set(parameters) - {*ModelConfig.model_fields, *TrainConfig.model_fields} == set(own)
    of_preset = SOTGLPClassifier.from_preset("dtd", pretrained=None, epochs=7)
    assert (of_preset.learning_rate, of_preset.batch_size, of_preset.epochs) == (0.002, 128, 7)
    assert of_preset.residual is None
    assert SOTGLPClassifier.from_preset("folder").get_params() == parameters


def test_a_backbone_decides_settings_that_are_auto(paths: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sotglp.backbone_defaults.PHOTO", "tiny")
    monkeypatch.setattr("sotglp.backbone_defaults.backbones_with_defaults", lambda: ["tiny"])
    monkeypatch.setattr("sotglp.backbone_defaults.read_packaged", lambda *_: {"learning_rate": 0.03, "epochs": 2})
    for estimator in (SOTGLPClassifier(shots=2, augment=False), MethodClassifier(shots=2, settings={"augment": False})):
        with pytest.warns(SotglpWarning, match=r"backbone='ViT-B-16'"):
            estimator.fit(*paths)
        assert (estimator.backbone, estimator.model_.backbone.name) == ("auto", "tiny")
        assert len(estimator.history_) == 2
        estimator.save(tmp_path / "m.safetensors", force=True)
        saved = read_record(tmp_path / "m.safetensors")
        assert saved.training is not None
        assert (saved.backbone["name"], saved.training.learning_rate, saved.training.epochs) == ("tiny", 0.03, 2)
        # The estimator that was loaded keeps these values, whatever comes with its backbone later.
        loaded = type(estimator).load(tmp_path / "m.safetensors")
        assert loaded._settings("ViT-B-16")[1] == saved.training
    assert SOTGLPClassifier(learning_rate=0.1, epochs=None)._settings("tiny")[1] == TrainConfig(learning_rate=0.1)
    with pytest.raises(SotglpError, match="name it"):
        SOTGLPClassifier(pretrained=None).fit(*paths)


def test_classes_are_sorted_and_predictions_are_labels(fitted: SOTGLPClassifier, paths: Any) -> None:
    X, y = paths
    assert fitted.classes_.tolist() == sorted(COLOURS)
    probabilities = fitted.predict_proba(X)
    assert probabilities.shape == (18, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert fitted.predict(X).tolist() == [fitted.classes_[row.argmax()] for row in probabilities]
    assert fitted.score(X, y) == (fitted.predict(X) == np.array(y)).mean() > 0.6
    order = np.random.default_rng(0).permutation(len(X))
    shuffled = fitted.predict_proba([X[index] for index in order])
    np.testing.assert_allclose(shuffled, probabilities[order], rtol=1e-5, atol=1e-6)


def test_all_forms_of_images_say_the_same(tiny_backbone: Backbone, class_folders: Path, paths: Any) -> None:
    X, _ = paths
    fitted, from_folder = (classifier(tiny_backbone).fit(*images) for images in (paths, (class_folders,)))
    pictures = [Image.open(path) for path in X]
    raw = torch.stack([torch.from_numpy(np.array(picture)).permute(2, 0, 1) for picture in pictures])
    ready = torch.stack([tiny_backbone.preprocess(picture) for picture in pictures])
    expected, files = fitted.predict_proba(X), [Path(path) for path in X]
    for form in (files, np.array(X), pictures, raw, raw.numpy(), ready, ready.numpy(), class_folders):
        np.testing.assert_allclose(fitted.predict_proba(form), expected, rtol=1e-4)
    np.testing.assert_allclose(from_folder.predict_proba(X), expected, rtol=1e-4)
    assert fitted.predict(files[3]).shape == (1,)


@pytest.mark.parametrize("kind", [int, float, np.float32])
def test_numbers_as_labels_keep_their_order(tiny_backbone: Backbone, paths: Any, tmp_path: Path, kind: Any) -> None:
    X, y = paths
    numbers = {"red_brick": 10, "green leaf": 2, "blue sea": 30}
    labels = np.array([numbers[name] for name in y], dtype=kind)
    model = classifier(tiny_backbone, epochs=20).fit(X, labels)
    assert model.model_.class_names == ("2", "10", "30")
    assert model.score(X, labels) > 0.6
    model.save(tmp_path / "m.safetensors")
    loaded = SOTGLPClassifier.load(tmp_path / "m.safetensors", backbone=tiny_backbone)
    assert loaded.classes_.tolist() == model.classes_.tolist() == [2, 10, 30]
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))


def test_pipeline_cross_validation_and_grid_search(tiny_backbone: Backbone, paths: Any) -> None:
    X, y = np.array(paths[0]), np.array(paths[1])

    def as_paths(rows: NDArray[np.str_]) -> list[Path]:
        return [Path(row) for row in rows]

    pipeline = make_pipeline(FunctionTransformer(as_paths), classifier(tiny_backbone))
    scores = cross_val_score(pipeline, X, y, cv=3)
    assert scores.shape == (3,)
    assert scores.mean() > 0.5
    search = GridSearchCV(classifier(tiny_backbone, epochs=1), {"top_k": [3, 16]}, cv=2).fit(X, y)
    assert search.best_params_["top_k"] in (3, 16)


@pytest.mark.parametrize(
    "settings",
    [{}, {"branches": "global"}, {"branches": "local", "matching": "per-prompt"}, {"matching": "uniform"}],
    ids=str,
)
def test_variants_are_saved(tiny_backbone: Backbone, paths: Any, tmp_path: Path, settings: dict[str, Any]) -> None:
    X, y = paths
    path = tmp_path / "m.safetensors"
    fitted = classifier(tiny_backbone, epochs=20, **settings).fit(X, y).calibrate(X)
    assert fitted.score(X, y) > 0.6
    fitted.save(path)
    loaded = SOTGLPClassifier.load(path, backbone=tiny_backbone)
    # The file holds the values that "auto" stood for.
    assert loaded.get_params() == fitted.get_params() | {"pretrained": None, "views": 2, "residual": None}
    np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))
    np.testing.assert_array_equal(loaded.is_ood(X), fitted.is_ood(X))
    with pytest.raises(SotglpError, match="exists"):
        fitted.save(path)
    fitted.save(path, force=True)
    with pytest.raises(SotglpError, match="backbone"):
        SOTGLPClassifier.load(path)


def test_patch_attention_reaches_the_backbone_and_the_file(paths: Any, tmp_path: Path) -> None:
    X, y = paths
    settings: dict[str, Any] = {**QUICK, "epochs": 1, "image_size": 64, "top_k": 2}
    fitted = SOTGLPClassifier("ViT-S-32-alt", None, patch_attention="ordinary", **settings).fit(X, y)
    assert fitted.model_.backbone.patch_attention == "ordinary"
    fitted.save(tmp_path / "m.safetensors")
    loaded = SOTGLPClassifier.load(tmp_path / "m.safetensors")
    assert loaded.patch_attention == loaded.model_.backbone.patch_attention == "ordinary"
    np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))


def test_before_fit_and_before_calibration(tiny_backbone: Backbone, fitted: SOTGLPClassifier, paths: Any) -> None:
    for method in ("predict", "predict_proba", "predict_sets", "ood_score", "is_ood", "calibrate"):
        with pytest.raises(NotFittedError):
            getattr(classifier(tiny_backbone), method)(paths[0])
    with pytest.raises(SotglpError, match="call calibrate"):
        fitted.is_ood(paths[0])
    with pytest.raises(SotglpError, match="tpr = 0"):
        fitted.calibrate(paths[0], tpr=0)


def test_wrong_input(tiny_backbone: Backbone, paths: Any, class_folders: Path) -> None:
    X, y = paths
    wrong: list[tuple[Any, Any, str]] = [
        (X, None, "labels are missing"),
        (X, y[:-1], "labels"),
        (X, [0.5] * 18, "label 0 is 0.5, which isn.t a whole number"),
        (X, [y], "string or whole number"),
        (np.zeros((18, 4)), y, "B, 3, H, W"),
        (torch.zeros(18, 3, 16, 16), y, r"\(B, 3, 32, 32\)"),
        ([], [], "image"),
        (str(class_folders / "absent"), None, "absent"),
    ]
    for images, labels, words in wrong:
        with pytest.raises(SotglpError, match=words):
            classifier(tiny_backbone).fit(images, labels)
    with pytest.raises(SotglpError, match="epochs = 0"):
        classifier(tiny_backbone, epochs=0).fit(X, y)
    with pytest.raises(SotglpError, match="device 'abacus'"):
        classifier(tiny_backbone, device="abacus").fit(X, y)


def test_a_picture_in_memory_is_not_changed(tiny_backbone: Backbone) -> None:
    rng = np.random.default_rng(0)
    labels = [name for name in COLOURS for _ in range(3)]
    pictures = [coloured_image(rng, COLOURS[name]) for name in labels]
    before = [picture.tobytes() for picture in pictures]
    classifier(tiny_backbone, epochs=1, augment=True).fit(pictures, labels)
    assert [picture.tobytes() for picture in pictures] == before
