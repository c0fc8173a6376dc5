"""Decisions of a calibrated classifier: unknown images, temperature, prediction sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sotglp import Backbone, SOTGLPClassifier, SotglpError
from sotglp.images.image_set import ImageSet
from sotglp.scoring.conformal import cross_sets, split_sets
from sotglp.scoring.cross_fit import cross_fit
from sotglp.scoring.predict import predict
from sotglp.settings import InferenceConfig
from sotglp.training.fit import drawn_shots
from support.estimators import classifier
from support.samples import COLOURS


@pytest.fixture
def few(tiny_backbone: Backbone, paths: Any) -> SOTGLPClassifier:
    """Learned from four images of each class, so that two are left; wrong now and then."""
    return classifier(tiny_backbone, epochs=2, shots=4, learning_rate=0.01).fit(*paths)


def test_calibration_accepts_the_asked_share(few: SOTGLPClassifier, paths: Any) -> None:
    X, _ = paths
    for tpr in (0.5, 0.9, 1.0):
        accepted = 1 - few.calibrate(X, tpr=tpr).is_ood(X).mean()
        assert tpr <= accepted < tpr + 1 / 9
    few.calibrate(X, method="mcm", temperature=0.5)
    calibration = few.calibration_
    assert (calibration.ood_method, calibration.ood_temperature) == ("mcm", 0.5)
    np.testing.assert_array_equal(few.is_ood(X), few.ood_score(X, "mcm", 0.5) < calibration.rejection.threshold)


def test_rejected_images_are_called_unknown(few: SOTGLPClassifier, paths: Any) -> None:
    X, y = paths
    assert few.calibration_ is None
    plain, right = few.predict(X), few.score(X, y)
    few.calibrate(X, tpr=0.6, y=y)
    rejected = few.is_ood(X)
    assert 0 < rejected.sum() < len(X)
    assert few.predict(X).tolist() == ["unknown" if out else label for out, label in zip(rejected, plain, strict=True)]
    np.testing.assert_array_equal(few.predict(X, reject=False), plain)
    # No rejection counts, neither as right nor as wrong.
    assert few.score(X, y) == right
    assert few.score(X, y, sample_weight=np.r_[1, np.zeros(17)]) == float(plain[0] == y[0])


@pytest.mark.parametrize("labels", [["b", "g", "r"], [0, 1, 2]])
def test_unknown_stands_beside_short_labels_and_numbers(tiny_backbone: Backbone, paths: Any, labels: list[Any]) -> None:
    X, y = paths
    y = np.array([labels[sorted(COLOURS).index(name)] for name in y])
    fitted = classifier(tiny_backbone, epochs=1).fit(X, y).calibrate(X, tpr=0.5, y=y)
    known, predictions = fitted.predict(X, reject=False), fitted.predict(X)
    assert known.dtype == fitted.classes_.dtype == y.dtype
    assert set(known) <= set(labels)
    assert set(predictions) - set(labels) == {"unknown"}
    assert {type(label) for label in predictions.tolist()} == {type(labels[0]), str}
    assert fitted.score(X, y) == (known == y).mean()


def test_probabilities_are_at_the_calibrated_temperature(few: SOTGLPClassifier, paths: Any) -> None:
    X, y = paths
    before = few.predict_proba(X).astype(np.float64)
    few.calibrate(X, y=y)
    temperature = few.calibration_.temperature
    assert temperature != 1
    powers = before ** (1 / temperature)
    np.testing.assert_allclose(few.predict_proba(X), powers / powers.sum(axis=1, keepdims=True), rtol=1e-4, atol=1e-7)
    # Calibrated again, it starts from the model's own.
    few.calibrate(X, y=y)
    assert few.calibration_.temperature == temperature


def test_labels_in_folder_or_manifest(few: SOTGLPClassifier, paths: Any, class_folders: Path, tmp_path: Path) -> None:
    X, y = paths
    expected = few.calibrate(X, y=y).calibration_
    table = tmp_path / "held_out.csv"
    table.write_text("path,label\n" + "".join(f"{path},{label}\n" for path, label in zip(X, y, strict=True)))
    for told in (class_folders, str(class_folders), table):
        found = few.calibrate(told).calibration_
        assert (found.rejection, found.temperature) == (expected.rejection, expected.temperature)
        np.testing.assert_array_equal(found.true_probabilities, expected.true_probabilities)
    for untold in (X, class_folders / "blue sea"):
        assert len(few.calibrate(untold).calibration_.true_probabilities) == 0


def test_sets_after_a_calibration_with_labels(few: SOTGLPClassifier, paths: Any) -> None:
    X, y = paths
    plain = few.predict_proba(X)
    few.calibrate(X, y=y)
    of_right = [row[few.classes_.tolist().index(label)] for row, label in zip(plain, y, strict=True)]
    for coverage in (0.5, 0.8):
        sets = few.predict_sets(X, coverage)
        np.testing.assert_array_equal(sets, split_sets(plain, of_right, coverage))
        assert sets[np.arange(18), [few.classes_.tolist().index(label) for label in y]].mean() >= coverage
    np.testing.assert_array_equal(few.predict_sets(X), few.predict_sets(X, 0.9))
    few.calibrate(X)
    with pytest.raises(SotglpError, match="need a calibration with labels"):
        few.predict_sets(X)


def test_folds_of_the_shots_serve_for_calibration(few: SOTGLPClassifier, paths: Any, tmp_path: Path) -> None:
    X, y = paths
    few.calibrate(X, 0.7, "mcm", y=y, folds=2)
    calibration = few.calibration_
    config = few._fitted_training()
    shots = drawn_shots(ImageSet.from_items(X, y), config)
    assert len(shots) == 12
    crossed = cross_fit(few.model_, shots, config, InferenceConfig(ood_method="mcm"), n_folds=2)
    assert calibration.rejection.threshold == np.sort(crossed.predictions.ood_scores)[2]  # 13 (1 - 0.7) = 3.9
    of_right = crossed.predictions.probabilities[np.arange(12), shots.targets(few.model_.class_names)]
    np.testing.assert_array_equal(calibration.true_probabilities, of_right)
    by_fold = np.stack([predict(model, ImageSet.from_items(X)).probabilities for model in crossed.models])
    np.testing.assert_array_equal(few.predict_sets(X, 0.6), cross_sets(by_fold, of_right, crossed.folds, 0.6))
    few.save(tmp_path / "m")
    loaded = SOTGLPClassifier.load(tmp_path / "m", backbone=few.model_.backbone)
    for method in ("predict", "predict_proba", "predict_sets", "is_ood"):
        np.testing.assert_array_equal(getattr(loaded, method)(X), getattr(few, method)(X))


def test_images_that_can_not_calibrate(few: SOTGLPClassifier, paths: Any, class_folders: Path) -> None:
    X, y = paths
    few.calibrate(X)
    before = few.calibration_
    wrong: list[tuple[Any, dict[str, Any], str]] = [
        (X, {"folds": 2}, "folds need labels"),
        (X, {"y": y, "folds": 1}, "into 1 folds"),
        (X, {"y": y, "folds": 5}, "into 5 folds.*has 4 images"),
        (X, {"y": y[:-1]}, "labels"),
        (X, {"y": ["zebra"] * 18}, "zebra"),
        (X, {"y": y, "tpr": 1.2}, "tpr = 1.2"),
        (X, {"method": "oracle"}, "ood_method = 'oracle'"),
        (X, {"temperature": 0}, "temperature = 0"),
        (class_folders / "absent", {}, "absent"),
    ]
    for images, options, words in wrong:
        with pytest.raises(SotglpError, match=words):
            few.calibrate(images, **options)
    assert few.calibration_ is before
    with pytest.raises(SotglpError, match="coverage = 1"):
        few.calibrate(X, y=y).predict_sets(X, 1)
    assert few.fit(X, y).calibration_ is None  # a new fit forgets it
    assert "unknown" not in few.predict(X)


@pytest.mark.parametrize("wrap", [np.array, lambda labels: np.array(labels, dtype=object)])
def test_labels_of_bytes_are_class_names(tiny_backbone: Backbone, paths: Any, tmp_path: Path, wrap: Any) -> None:
    X, y = paths
    encoded = wrap([label.encode() for label in y])
    fitted = classifier(tiny_backbone, epochs=1).fit(X, encoded)
    assert fitted.model_.class_names == tuple(sorted(COLOURS))
    assert fitted.score(X, encoded) == fitted.score(X, y)
    fitted.save(tmp_path / "model.safetensors")
    again = SOTGLPClassifier.load(tmp_path / "model.safetensors", backbone=tiny_backbone)
    assert again.classes_.tolist() == sorted(COLOURS)


@pytest.mark.parametrize("labels", [[None], [float("nan")], [1.4, 0.6], ["cat", 1]])
def test_labels_without_a_class_name_are_refused_by_position(tiny_backbone: Backbone, labels: list[Any]) -> None:
    X = [f"{index}.png" for index in range(len(labels))]
    with pytest.raises(SotglpError, match=r"^label \d is "):
        classifier(tiny_backbone).fit(X, np.array(labels, dtype=object))


def test_numpy_scalars_are_taken_as_numbers(paths: Any, tmp_path: Path) -> None:
    X, y = paths

    def run(name: str, whole: Any, real: Any) -> tuple[SOTGLPClassifier, bytes]:
        fitted = SOTGLPClassifier(
            "tiny",
            image_size=whole(64),
            shots=whole(4),
            epochs=whole(1),
            seed=whole(3),
            learning_rate=real(0.25),
            top_k=whole(3),
            augment=False,
        ).fit(X, y)
        fitted.calibrate(X, real(0.8), "mcm", real(0.5), y=y, folds=whole(2)).save(tmp_path / name)
        return fitted, (tmp_path / name).read_bytes()

    plain, content = run("plain", int, float)
    for whole, real in ((np.int64, np.float64), (np.int32, np.float32)):
        fitted, same = run(whole.__name__, whole, real)
        assert fitted.calibration_.rejection.threshold == plain.calibration_.rejection.threshold
        assert same == content or real is np.float32  # 0.8 is stored as the nearest float32
        np.testing.assert_array_equal(fitted.predict_sets(X[:3], real(0.9)), plain.predict_sets(X[:3], 0.9))
        assert [one.label for one in fitted.explain(X[0], whole(2)).classes] == [
            one.label for one in plain.explain(X[0], 2).classes
        ]


@pytest.mark.filterwarnings("ignore:.*don't declare their range")
def test_gray_of_12_bits_is_scaled_alike_in_training_and_prediction(tiny_backbone: Backbone, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    few_bits, many_bits = [], []
    for k in range(9):
        values = rng.integers(10 + 70 * (k % 3), 80 + 70 * (k % 3), (40, 40)).astype(np.uint16)
        values[:8, :8] = 255  # so that 12 bits are filled
        few_bits.append(tmp_path / f"{k}_8.png")
        many_bits.append(tmp_path / f"{k}_12.png")
        Image.fromarray(values.astype(np.uint8)).save(few_bits[-1])
        Image.fromarray(values * 16).save(many_bits[-1])
    y = ["a", "b", "c"] * 3
    plain = classifier(tiny_backbone, epochs=2).fit(few_bits, y)
    deep = classifier(tiny_backbone, epochs=2).fit(many_bits, y)
    assert deep.model_.value_ranges == {"uint16": (0, 4095)}
    deep.save(tmp_path / "m.safetensors")
    loaded = SOTGLPClassifier.load(tmp_path / "m.safetensors", backbone=tiny_backbone)
    changed = loaded.add_class("d", many_bits[:1]).remove_class("d").rename_class("a", "e")
    assert changed.model_.value_ranges == deep.model_.value_ranges
    assert (bool(changed.history_), bool(deep.history_)) == (False, True)
    dark = tmp_path / "dark.png"
    Image.fromarray(rng.integers(0, 200, (40, 40)).astype(np.uint16)).save(dark)
    for one, other in zip(few_bits, many_bits, strict=True):
        expected = plain.predict_proba([one])
        np.testing.assert_array_equal(deep.predict_proba([other]), expected)
    reloaded = SOTGLPClassifier.load(tmp_path / "m.safetensors", backbone=tiny_backbone)
    np.testing.assert_array_equal(reloaded.predict_proba([dark]), deep.predict_proba([dark]))
    np.testing.assert_array_equal(reloaded.predict_proba(many_bits), plain.predict_proba(few_bits))
    crossed = cross_fit(deep.model_, ImageSet.from_items(many_bits, y), deep._fitted_training(), InferenceConfig())
    assert {str(model.value_ranges) for model in crossed.models} == {str(deep.model_.value_ranges)}
