from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from sotglp import Backbone, SotglpWarning
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel
from sotglp.scoring.calibration import Calibration, calibrate_crossed
from sotglp.scoring.cross_fit import cross_fit
from sotglp.scoring.recalibrate import ClassChange, recalibrate
from sotglp.settings import InferenceConfig, ModelConfig, TrainConfig
from sotglp.training.class_changes import renamed, with_class, without_class
from sotglp.training.fit import adapt
from support.samples import COLOURS, coloured_image, tiny_clip

NAMES = sorted(COLOURS)
CONFIG = TrainConfig(epochs=1, batch_size=9, augment=False, shots=None, learning_rate=0.1)
GRAY = (128, 128, 128)

pytestmark = pytest.mark.filterwarnings("ignore:all .* calibration images are correctly classified")


def pictures(colours: dict[str, tuple[int, int, int]], n: int) -> ImageSet:
    rng = np.random.default_rng(3)
    images = [coloured_image(rng, colour) for colour in colours.values() for _ in range(n)]
    return ImageSet.from_items(images, [name for name in colours for _ in range(n)])


@pytest.fixture(scope="module")
def crossed() -> tuple[AdaptedModel, Calibration]:
    """A model that is calibrated by two cross-fits on its twelve shots."""
    images = pictures({name: COLOURS[name] for name in NAMES}, 4)
    model = adapt(Backbone.from_open_clip(tiny_clip()), images, ModelConfig(), CONFIG, classes=NAMES).model
    return model, calibration_of(model, images)


def calibration_of(model: AdaptedModel, images: ImageSet) -> Calibration:
    inference = InferenceConfig(ood_method="mahalanobis")
    folds = cross_fit(model, images, CONFIG, inference, n_folds=2)
    return calibrate_crossed(folds, images, inference, 0.9)


def no_training(*_: Any, **__: Any) -> None:
    raise AssertionError("nothing is trained")


def test_a_removed_class_leaves_the_calibration_of_its_folds(
    crossed: tuple[AdaptedModel, Calibration], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, calibration = crossed
    monkeypatch.setattr("sotglp.scoring.recalibrate.cross_fit", no_training)
    smaller = without_class(model, NAMES[0])
    again = recalibrate(calibration, model, smaller, ClassChange.removing(NAMES[0]), CONFIG)
    found = again.calibration
    assert found is not None
    assert "8 stored shots" in again.said
    assert (found.rejection.n, found.rejection.tpr, found.ood_method) == (8, 0.9, "mahalanobis")
    assert [one.class_names for one in found.fold_models] == [tuple(NAMES[1:])] * 2
    assert np.bincount(found.folds).tolist() == [4, 4]
    assert found.true_classes.targets.tolist() == [0] * 4 + [1] * 4
    # Probabilities are those before, among the classes that are left.
    assert (found.true_probabilities >= calibration.true_probabilities[4:] - 0.01).all()


def test_another_name_keeps_the_folds(
    crossed: tuple[AdaptedModel, Calibration], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, calibration = crossed
    monkeypatch.setattr("sotglp.scoring.recalibrate.cross_fit", no_training)
    new = renamed(model, NAMES[1], "wide ocean")
    again = recalibrate(calibration, model, new, ClassChange.renaming(NAMES[1], "wide ocean"), CONFIG)
    assert again.calibration is not None
    assert again.calibration.folds.tolist() == calibration.folds.tolist()
    assert again.calibration.rejection.threshold == pytest.approx(calibration.rejection.threshold, abs=0.5)

    same = renamed(model, "red_brick", "Red brick")
    kept = recalibrate(calibration, model, same, ClassChange.renaming("red_brick", "Red brick"), CONFIG)
    assert kept.calibration is calibration


def test_an_added_class_is_calibrated_by_new_cross_fits(crossed: tuple[AdaptedModel, Calibration]) -> None:
    model, calibration = crossed
    grown = with_class(model, "fog", pictures({"fog": GRAY}, 4), CONFIG)
    again = recalibrate(calibration, model, grown, None, CONFIG)
    assert again.calibration is not None
    assert (again.calibration.rejection.n, again.calibration.rejection.tpr) == (16, 0.9)
    assert set(again.calibration.true_classes.targets.tolist()) == {0, 1, 2, 3}


def test_folds_of_other_images_are_not_reused(crossed: tuple[AdaptedModel, Calibration]) -> None:
    model, calibration = crossed
    wrong = Calibration(
        calibration.ood_method,
        calibration.ood_temperature,
        calibration.rejection,
        1.0,
        1 - calibration.true_probabilities,
        calibration.folds,
        calibration.fold_models,
        calibration.true_classes,
    )
    smaller = without_class(model, NAMES[0])
    again = recalibrate(wrong, model, smaller, ClassChange.removing(NAMES[0]), CONFIG)
    assert again.calibration is not None
    assert len(again.calibration.fold_models) == 4  # new ones, one for each of the four shots of a class


def test_what_cannot_be_repeated_is_removed_with_a_warning(crossed: tuple[AdaptedModel, Calibration]) -> None:
    model, calibration = crossed
    grown = with_class(model, "fog", pictures({"fog": GRAY}, 1), CONFIG)
    with pytest.warns(SotglpWarning, match=r"'fog' has 1 image.*calibrate again"):
        assert recalibrate(calibration, model, grown, None, CONFIG).calibration is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert recalibrate(None, model, grown, None, CONFIG).calibration is None
