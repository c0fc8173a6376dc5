from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, roc_auc_score, roc_curve

from sotglp import SOTGLP, Backbone
from sotglp.errors import UnreadableImageError
from sotglp.explain.prompt_use import prompt_use
from sotglp.images.image_set import ImageSet
from sotglp.methods.zero_shot import ZeroShot
from sotglp.report import findings as module
from sotglp.report.findings import evaluate_for_report
from sotglp.scoring.calibration import calibrate_held_out
from sotglp.scoring.evaluate import evaluate
from sotglp.transport.plans import prompt_similarity
from support.report_samples import READING, as_predicted, named, others
from support.samples import make_class_folders


def test_findings_are_those_of_the_evaluation_and_of_sklearn(model: SOTGLP, images: ImageSet) -> None:
    calibration = calibrate_held_out(model, images, READING, 0.6)
    sets = {"noise": others(), "more": others(3, seed=5)}
    found = evaluate_for_report(model, images, sets, READING, calibration)
    expected = evaluate(model, images, sets, READING, calibration=calibration, baseline=True)
    assert found.figures == expected
    values = json.loads(json.dumps(found.to_dict()))
    assert values | {"ood": expected["ood"]} == values | expected | {"ood": expected["ood"]}
    rows = values["images"]
    assert [row["path"] for row in rows] == [f"image {i}" for i in range(len(images))]
    assert [row["label"] for row in rows] == list(images.labels or ())
    counts = confusion_matrix(
        [row["label"] for row in rows], [row["predicted"] for row in rows], labels=values["classes"]
    )
    listed = np.zeros_like(counts)
    for field in values["confusion"]:
        listed[values["classes"].index(field["label"]), values["classes"].index(field["predicted"])] = field["count"]
    np.testing.assert_array_equal(listed, counts)
    for name, one in values["ood"].items():
        assert one.items() >= expected["ood"][name].items()
        scores = [row["ood_score"] for row in rows] + one["scores"]
        is_in = [True] * len(rows) + [False] * len(one["scores"])
        fpr, tpr, _ = roc_curve(is_in, np.float32(scores))
        assert one["roc"] == {"fpr": pytest.approx(fpr), "tpr": pytest.approx(tpr)}
        assert one["auroc"] == pytest.approx(roc_auc_score(is_in, scores))
        assert one["auroc_interval"][0] < one["auroc"] < one["auroc_interval"][1]
    assert found.threshold == calibration.rejection.threshold
    assert values["reliability_calibrated"]["ece"] == expected["ece_calibrated"]
    assert values["accuracy_interval"][0] < values["accuracy"] < values["accuracy_interval"][1]


def test_a_perfect_model_has_no_mistakes_and_a_threshold_only_for_its_score(model: SOTGLP, images: ImageSet) -> None:
    more = named(model, [*images.classes, "never seen"])
    calibration = calibrate_held_out(more, images, READING.model_copy(update={"ood_method": "msp"}), 0.6)
    found = evaluate_for_report(more, as_predicted(more, images), {"noise": others()}, READING, calibration)
    assert found.mistakes == ()
    assert found.accuracy.value == 1
    assert found.confusion.worst(9) == []
    assert "never seen" in evaluate_for_report(more, images, {}, READING).confusion.untested
    assert found.threshold is None
    assert found.calibrated is not None
    assert "rejected" not in found.ood["noise"].figures


def test_the_use_of_prompts(model: SOTGLP, images: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FOR_PROMPTS", 4)
    found = evaluate_for_report(model, images, {}, READING).prompts
    assert found is not None
    assert (found["n"], found["n_prompts"]) == (4, 2)
    assert found["use"] == pytest.approx(prompt_use(model, images.take([0, 3, 7, 11]), READING))
    assert found["similarity"] == pytest.approx(float(prompt_similarity(model.encode_text().local.detach()).mean()))


def test_a_model_without_maps_or_prompts(tiny_backbone: Backbone, images: ImageSet) -> None:
    model = ZeroShot(tiny_backbone, images.classes, zero_shot_template="a {}", ensemble=False)
    found = evaluate_for_report(model, as_predicted(model, images, wrong=2), {"noise": others()}, READING)
    assert (found.has_maps, found.prompts, found.words) == (False, None, None)
    assert [mistake.maps for mistake in found.mistakes] == [(), ()]
    assert all(mistake.thumbnail.uri.startswith("data:image/jpeg;base64,") for mistake in found.mistakes)
    json.dumps(found.to_dict())


def test_unreadable_images_are_left_out_and_named(model: SOTGLP, tmp_path: Path) -> None:
    root = make_class_folders(tmp_path / "test", per_class=3)
    broken = root / "green leaf" / "0.png"
    broken.write_bytes(b"broken")
    images = ImageSet.from_path(root)
    with pytest.raises(UnreadableImageError):
        evaluate_for_report(model, images, {}, READING)
    unreadable: list[UnreadableImageError] = []
    found = evaluate_for_report(model, images, {"same": images}, READING, unreadable=unreadable)
    assert found.unreadable == (str(broken), str(broken))
    assert found.accuracy.n == 8
    assert str(broken) not in found.images.names
    assert len(found.images.names) == 8
