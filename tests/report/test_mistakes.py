from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from sotglp import SOTGLP
from sotglp.explain.explanation import ClassExplanation, Explanation, explain
from sotglp.images.image_set import ImageSet
from sotglp.report import mistakes as module
from sotglp.report.findings import evaluate_for_report
from sotglp.report.mistakes import class_maps, spread
from sotglp.scoring.calibration import calibrate_held_out
from sotglp.scoring.predict import predict
from support.report_samples import READING, as_predicted


def test_mistakes_are_the_most_confident_ones_with_the_maps_of_explain(model: SOTGLP, images: ImageSet) -> None:
    calibration = calibrate_held_out(model, images, READING, 0.6)
    wrong = as_predicted(model, images, wrong=5)
    found = evaluate_for_report(model, wrong, {}, READING, calibration)
    assert len(found.mistakes) == 5
    probabilities = calibration.probabilities(predict(model, wrong, READING).probabilities)
    expected = np.argsort(-probabilities[:5].max(axis=1), kind="stable")
    assert [mistake.name for mistake in found.mistakes] == [f"image {i}" for i in expected]
    for mistake, i in zip(found.mistakes, expected.tolist(), strict=True):
        picture = images.images[i]
        assert mistake.label == (wrong.labels or ())[i]
        explained = explain(model, picture, [mistake.predicted, mistake.label], READING, calibration)
        assert mistake.probability == pytest.approx(probabilities[i].max(), rel=1e-5)
        assert mistake.label_probability == pytest.approx(explained.classes[1].probability, rel=1e-4)
        for ours, theirs in zip(mistake.maps, explained.classes, strict=True):
            assert ours.label == theirs.label
            np.testing.assert_allclose(ours.mass, theirs.mass, atol=1e-4)
            assert (ours.global_score, ours.local_score) == pytest.approx(
                (theirs.global_score, theirs.local_score), abs=1e-5
            )
        np.testing.assert_allclose(mistake.maps[0].boxes, explained.boxes)


def test_mistakes_are_spread_over_the_true_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    targets = np.array([0, 0, 0, 0, 1, 2, 1])
    by_confidence = np.array([0, 1, 2, 5, 3, 4, 6])
    for most, expected in ((3, [0, 5, 4]), (4, [0, 1, 5, 4]), (20, by_confidence.tolist())):
        monkeypatch.setattr(module, "MAX_MISTAKES", most)
        assert spread(by_confidence, targets) == expected
    assert spread(np.array([], dtype=np.int64), targets) == []


def test_boxes_shrink_with_the_picture() -> None:
    boxes = np.array([[[-60.0, 0, 600, 600], [600, 0, 1260, 600]]])
    classes = tuple(
        ClassExplanation(name, 0.5, 0.2, 0.1, np.full((2, 1, 2), 0.5, np.float32)) for name in ("cat", "dog", "sea")
    )
    explanation = Explanation(
        Image.new("RGB", (1200, 600)), "a.png", boxes, classes, np.empty(0, np.float32), 0.0, "mcm", 1.0, None
    )
    thumbnail, maps = class_maps(explanation, ("sea", "cat"))
    assert thumbnail.width == 240
    assert [one.label for one in maps] == ["sea", "cat"]
    np.testing.assert_allclose(maps[0].boxes, boxes / 5)
    np.testing.assert_allclose(maps[1].mean_mass, [[0.5, 0.5]])
