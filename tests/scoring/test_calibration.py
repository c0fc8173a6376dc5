from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from sotglp import SOTGLP, Backbone, SotglpError, SotglpWarning
from sotglp.errors import UnreadableImageError
from sotglp.images.image_set import ImageSet
from sotglp.scoring.calibration import Calibration, calibrate_crossed, calibrate_held_out
from sotglp.scoring.class_conditional import conformal_sets
from sotglp.scoring.conformity import TrueClasses, conformity
from sotglp.scoring.cross_fit import CrossFit
from sotglp.scoring.predict import Predictions, predict
from sotglp.scoring.rejection import Rejection
from sotglp.settings import InferenceConfig
from support.samples import coloured_image, make_class_folders, tiny_clip

KNOWN = np.array([0.9, 0.2, 0.6, 0.4, 0.7, 0.8, 0.5, 0.3, 0.95], np.float32)
PROBABILITIES = np.array([[0.05, 0.35, 0.6], [0.91, 0.05, 0.04], [0.34, 0.33, 0.33]], np.float32)


def calibration(**changes: object) -> Calibration:
    made = Calibration("mcm", 0.5, Rejection(0.25, 0.9, 9, 0.9, (0.7, 0.99)), 1.0, KNOWN)
    return dataclasses.replace(made, **changes)


def test_a_threshold_applies_to_one_score_at_one_temperature() -> None:
    assert InferenceConfig(ood_method="mcm", temperature=0.5, batch_size=3).threshold_of(calibration()) == 0.25
    assert InferenceConfig(ood_method="mcm").threshold_of(calibration()) is None
    assert InferenceConfig(ood_method="gl-mcm", temperature=0.5).threshold_of(calibration()) is None
    assert InferenceConfig().threshold_of(None) is None
    scores = np.array([0.2, np.nextafter(np.float32(0.25), np.float32(0)), 0.25, 0.3], np.float32)
    assert calibration().rejects(scores).tolist() == [True, True, False, False]  # a score at the threshold passes
    assert calibration().rejects(np.array([np.nan, np.inf], np.float32)).tolist() == [True, False]


@pytest.mark.parametrize("coverage", [0.5, 0.7, 0.9])
@pytest.mark.parametrize("in_folds", [False, True])
def test_sets_ask_the_model_of_each_calibration_images_fold(coverage: float, in_folds: bool) -> None:
    # The first of several is the whole model, which learned from all calibration images and must not be asked.
    whole = np.full_like(PROBABILITIES, 1 / 3)
    folds = whole, PROBABILITIES, PROBABILITIES[:, ::-1], PROBABILITIES[::-1]
    models = np.stack(folds) if in_folds else PROBABILITIES[None]
    asked = np.array([1, 1, 1, 2, 2, 2, 3, 3, 3] if in_folds else [0] * 9)
    found = calibration(folds=asked - 1 if in_folds else None).sets(models, coverage)
    for image, label in np.ndindex(3, 3):
        n_below = sum(known <= models[model, image, label] for known, model in zip(KNOWN, asked, strict=True))
        assert found[image, label] == ((1 + n_below) / 10 > 1 - coverage + 1e-9)


def test_sets_of_other_kinds_compare_with_the_true_classes() -> None:
    targets = np.arange(9) % 3
    by_image = np.random.default_rng(0).dirichlet(np.ones(3), 9).astype(np.float32)
    own = calibration(
        true_probabilities=by_image[np.arange(9), targets], true_classes=TrueClasses.of(by_image, targets)
    )
    known = conformity(by_image, "aps")[np.arange(9), targets]
    folds = np.zeros(9, np.int64)
    expected = conformal_sets(conformity(PROBABILITIES, "aps")[None], known, folds, 0.7)
    assert (own.sets(PROBABILITIES[None], 0.7, score="aps") == expected).all()
    expected = conformal_sets(PROBABILITIES[None], own.true_probabilities, folds, 0.7, targets)
    assert (own.sets(PROBABILITIES[None], 0.7, per_class=True) == expected).all()
    with pytest.warns(SotglpWarning, match="3 of 3 classes have too few calibration images"):
        assert own.sets(PROBABILITIES[None], 0.9, per_class=True).all()
    with pytest.warns(SotglpWarning, match="3 of 3 classes have too few calibration images to be clustered"):
        sets = own.sets(PROBABILITIES[None], 0.7, per_cluster=True)
    assert (sets == own.sets(PROBABILITIES[None], 0.7)).all()
    with pytest.raises(SotglpError, match="choose one"):
        own.sets(PROBABILITIES[None], 0.7, per_class=True, per_cluster=True)
    for changes in ({"score": "aps"}, {"per_class": True}, {"per_cluster": True}):
        with pytest.raises(SotglpError, match="of an older version"):
            calibration().sets(PROBABILITIES[None], 0.9, **changes)
    with pytest.raises(SotglpError, match=r"no score of sets 'asp' \(did you mean aps\?\)"):
        own.sets(PROBABILITIES[None], 0.9, score="asp")  # type: ignore[arg-type]


INFERENCE = InferenceConfig(ood_method="mcm", temperature=0.1)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    return ImageSet.from_path(make_class_folders(tmp_path_factory.mktemp("data") / "held_out"))


@pytest.fixture(scope="module")
def model(images: ImageSet) -> SOTGLP:
    """Learned nothing, so that it is wrong about some images."""
    model = SOTGLP(Backbone.from_open_clip(tiny_clip()), images.classes, top_k=3)
    assert 0 < (predict(model, images).probabilities.argmax(axis=1) == images.targets(images.classes)).sum() < 18
    return model


def best_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The least mean negative log-likelihood, found by trying temperatures rather than by its slope."""
    logits = np.log(probabilities.astype(np.float64))
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        return float(-log_softmax(logits / np.exp(log_temperature), axis=1)[rows, labels].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.01), np.log(100)), method="bounded").x))


@pytest.mark.parametrize(("tpr", "index"), [(0.9, 0), (0.8, 2), (0.5, 8)])
def test_held_out_images_give_a_whole_calibration(model: SOTGLP, images: ImageSet, tpr: float, index: int) -> None:
    found = calibrate_held_out(model, images, INFERENCE, tpr)
    predictions = predict(model, images, INFERENCE)
    labels = images.targets(model.class_names)
    # 18 images: 19 (1 - tpr) of them, rounded down, lie at or below the threshold.
    assert found.rejection.threshold == np.sort(predictions.ood_scores)[index]
    assert (found.rejection.n, found.rejection.tpr) == (18, tpr)
    assert found.temperature == pytest.approx(best_temperature(predictions.probabilities, labels), rel=1e-3)
    np.testing.assert_array_equal(
        found.true_probabilities, [predictions.probabilities[i, k] for i, k in enumerate(labels)]
    )
    assert (found.ood_method, found.ood_temperature) == ("mcm", 0.1)
    assert (found.folds, found.fold_models) == (None, ())


def test_labels_are_told_by_name_not_by_place(model: SOTGLP, images: ImageSet) -> None:
    red = images.take([index for index, label in enumerate(images.labels or ()) if label == "red_brick"])
    found = calibrate_held_out(model, red, INFERENCE, 0.9)
    column = model.class_names.index("red_brick")
    np.testing.assert_array_equal(found.true_probabilities, predict(model, red, INFERENCE).probabilities[:, column])


def test_without_labels_there_is_a_threshold_alone(model: SOTGLP, images: ImageSet) -> None:
    found = calibrate_held_out(model, ImageSet.from_items(list(images.images)), INFERENCE, 0.8)
    assert found.rejection == calibrate_held_out(model, images, INFERENCE, 0.8).rejection
    assert found.temperature == 1
    assert len(found.true_probabilities) == 0


def test_images_that_are_all_right_leave_the_temperature_at_1(model: SOTGLP, images: ImageSet) -> None:
    answers = [model.class_names[k] for k in predict(model, images).probabilities.argmax(axis=1)]
    agreeing = ImageSet.from_items(list(images.images), answers)
    with pytest.warns(SotglpWarning, match="all 18 calibration images are correctly classified"):
        found = calibrate_held_out(model, agreeing, INFERENCE, 0.9)
    assert found.temperature == 1
    assert len(found.true_probabilities) == 18
    # One wrong answer is enough to find one.
    other = next(name for name in model.class_names if name != answers[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error", SotglpWarning)
        mixed = ImageSet.from_items(list(images.images), [other, *answers[1:]])
        assert calibrate_held_out(model, mixed, INFERENCE, 0.9).temperature != 1


def test_images_that_can_not_be_read_are_left_out_with_their_labels(model: SOTGLP, tmp_path: Path) -> None:
    root = make_class_folders(tmp_path / "held_out", per_class=3)
    expected = calibrate_held_out(model, ImageSet.from_path(root).take([0, 2, 3, 4, 5, 6, 7, 8]), INFERENCE, 0.8)
    broken = root / "blue sea" / "1.png"
    broken.write_bytes(b"broken")
    with pytest.raises(UnreadableImageError, match=r"1\.png"):
        calibrate_held_out(model, ImageSet.from_path(root), INFERENCE, 0.8)
    unreadable: list[UnreadableImageError] = []
    found = calibrate_held_out(model, ImageSet.from_path(root), INFERENCE, 0.8, unreadable=unreadable)
    assert [error.source for error in unreadable] == [str(broken)]
    assert found.rejection == expected.rejection
    assert found.temperature == expected.temperature
    np.testing.assert_array_equal(found.true_probabilities, expected.true_probabilities)


def test_what_can_not_be_used(model: SOTGLP, images: ImageSet) -> None:
    with pytest.raises(SotglpError, match="zebra"):
        calibrate_held_out(model, ImageSet.from_items(list(images.images), ["zebra"] * 18), INFERENCE, 0.9)
    for tpr in (0, 1.5, float("nan")):
        with pytest.raises(SotglpError, match=f"tpr = {tpr}"):
            calibrate_held_out(model, images, INFERENCE, tpr)
    with pytest.raises(SotglpError, match="need a calibration with labels"):
        calibration(true_probabilities=np.empty(0, np.float32)).sets(PROBABILITIES[None], 0.9)
    with pytest.raises(SotglpError, match="coverage = 1"):
        calibration().sets(PROBABILITIES[None], 1.0)


def test_a_cross_fit_is_calibrated_by_what_its_models_said(model: SOTGLP) -> None:
    rng = np.random.default_rng(3)
    probabilities = rng.dirichlet(np.ones(3), size=12).astype(np.float32)
    scores = rng.normal(size=12).astype(np.float32)
    labels = np.arange(12) % 3
    images = ImageSet.from_items(
        [coloured_image(rng, (0, 0, 0)) for _ in labels], [model.class_names[label] for label in labels]
    )
    folds = np.arange(12) // 6
    predictions = Predictions(np.arange(12), probabilities, probabilities, probabilities, scores)
    crossed = CrossFit((model, model), folds, predictions)
    found = calibrate_crossed(crossed, images, INFERENCE, 0.7)
    assert found.rejection.threshold == np.sort(scores)[2]  # 13 (1 - 0.7) = 3.9
    assert found.temperature == pytest.approx(best_temperature(probabilities, labels), rel=1e-3)
    np.testing.assert_array_equal(found.true_probabilities, probabilities[np.arange(12), labels])
    assert found.folds is folds
    assert found.fold_models == (model, model)
    # The values of a covariance's score depend on the number of shots, of which the models of folds have fewer.
    with pytest.warns(SotglpWarning, match="a class has 4, so the threshold .* accepts too many images or none"):
        calibrate_crossed(crossed, images, InferenceConfig(ood_method="mahalanobis"), 0.7)
