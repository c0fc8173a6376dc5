from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from sotglp import SOTGLP, Backbone, SotglpError
from sotglp.errors import UnreadableImageError
from sotglp.images.image_set import ImageSet
from sotglp.methods.shot_features import build_shot_memory
from sotglp.scoring import ood
from sotglp.scoring.calibration import calibrate_held_out
from sotglp.scoring.evaluate import evaluate
from sotglp.scoring.predict import predict, predict_each
from sotglp.settings import InferenceConfig
from support.samples import make_class_folders, preprocessed


@pytest.fixture
def model(tiny_backbone: Backbone, images: ImageSet) -> SOTGLP:
    return SOTGLP(tiny_backbone, images.classes)


def test_predictions_are_the_models(model: SOTGLP, images: ImageSet) -> None:
    predictions = predict(model, images, InferenceConfig(batch_size=5))
    whole = preprocessed(model.backbone, images)
    np.testing.assert_array_equal(predictions.indices, range(len(images)))
    np.testing.assert_allclose(predictions.probabilities, model.predict_proba(whole), rtol=1e-4)
    np.testing.assert_allclose(predictions.ood_scores, ood.score(model, whole), rtol=1e-5)


def test_classes_are_listed_from_the_worst_on(model: SOTGLP, images: ImageSet) -> None:
    result = evaluate(model, images, by_class=True)
    predicted = predict(model, images, InferenceConfig()).probabilities.argmax(axis=1)
    targets = images.targets(model.class_names)
    rows = result["per_class"]
    assert [row["accuracy"] for row in rows] == sorted(row["accuracy"] for row in rows)
    assert sum(row["correct"] for row in rows) / result["n"] == result["accuracy"]
    for row in rows:
        index = model.class_names.index(row["class"])
        wrong = np.bincount(predicted[(targets == index) & (predicted != index)], minlength=len(rows))
        assert row["n_mistaken_for"] == wrong.max()
        assert (row["mistaken_for"] is None) == (wrong.max() == 0)
        assert row["n"] == row["correct"] + wrong.sum()
    assert "per_class" not in evaluate(model, images)


def test_evaluation_by_hand(model: SOTGLP, images: ImageSet, tmp_path: Path) -> None:
    others = ImageSet.from_flat_folder(make_class_folders(tmp_path / "others", per_class=3, seed=9))
    result = evaluate(model, images, {"others": others})
    with torch.no_grad():
        outputs = model(preprocessed(model.backbone, images))
    targets = images.targets(model.class_names)
    total = outputs.global_logits + outputs.local_logits
    for name, logits in (("", total), ("_global", outputs.global_logits), ("_local", outputs.local_logits)):
        assert result[f"accuracy{name}"] == (logits.argmax(dim=1).numpy() == targets).mean()
    assert result["n"] == 18
    scores = torch.cat([ood.score(model, preprocessed(model.backbone, of)) for of in (images, others)])
    expected = roc_auc_score([True] * 18 + [False] * 9, scores)
    assert result["ood"]["others"]["auroc"] == pytest.approx(expected, abs=0.01)
    assert result["ood"]["others"]["n"] == 9


def test_several_models_say_what_each_says_alone_and_images_are_encoded_once(
    model: SOTGLP, images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [model, SOTGLP(model.backbone, images.classes, seed=7), SOTGLP(model.backbone, ["a", "b"], top_k=2)]
    inference = InferenceConfig(batch_size=5, ood_method="mcm")
    alone = [predict(one, images, inference) for one in models]
    encode, n_encoded = Backbone.encode_image, []

    def count(self: Backbone, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        n_encoded.append(len(pixels))
        return encode(self, pixels)

    monkeypatch.setattr(Backbone, "encode_image", count)
    together = predict_each(models, images, inference)
    assert sum(n_encoded) == len(images)
    for ours, theirs in zip(together, alone, strict=True):
        for name in ("indices", "probabilities", "global_logits", "local_logits", "ood_scores"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    first, *others = predict_each(models, images, inference, score_all=False)
    np.testing.assert_array_equal(first.ood_scores, alone[0].ood_scores)
    assert [len(other.ood_scores) for other in others] == [0, 0]
    np.testing.assert_array_equal(others[1].probabilities, alone[2].probabilities)


def test_models_whose_scores_are_not_asked_for_need_no_shots(model: SOTGLP, images: ImageSet) -> None:
    other = SOTGLP(model.backbone, images.classes, seed=7)
    model.shots = build_shot_memory(model, images, InferenceConfig())
    inference = InferenceConfig(ood_method="knn")
    predictions = predict_each([model, other], images, inference, score_all=False)
    np.testing.assert_array_equal(predictions[0].ood_scores, predict(model, images, inference).ood_scores)
    with pytest.raises(SotglpError, match="compares images with the shots"):
        predict_each([model, other], images, inference)


def calibration_error(probabilities: np.ndarray, targets: np.ndarray, n_bins: int = 15) -> float:
    """Mean distance of accuracy from confidence in bins of equal width, weighed by their images; written out."""
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == targets
    bins = np.ceil(sure * n_bins)
    return float(sum(abs((right[bins == own] - sure[bins == own]).sum()) for own in np.unique(bins)) / len(sure))


def test_evaluation_of_a_calibration_by_hand(model: SOTGLP, images: ImageSet, tmp_path: Path) -> None:
    others = ImageSet.from_flat_folder(make_class_folders(tmp_path / "others", per_class=3, seed=9))
    inference = InferenceConfig(ood_method="mcm", temperature=0.1)
    calibration = calibrate_held_out(model, images, inference, 0.6)
    result = evaluate(model, images, {"others": others}, inference, calibration=calibration)
    predictions, of_others = predict(model, images, inference), predict(model, others, inference)
    targets = images.targets(model.class_names)
    right = predictions.probabilities.argmax(axis=1) == targets
    accepted = predictions.ood_scores >= calibration.rejection.threshold
    assert 0 < accepted.sum() < 18
    assert result["accepted"] == accepted.mean()
    assert result["accuracy_accepted"] == right[accepted].mean()
    assert result["ood"]["others"]["rejected"] == (of_others.ood_scores < calibration.rejection.threshold).mean()
    assert result["ece"] == pytest.approx(calibration_error(predictions.probabilities, targets), abs=1e-5)
    powers = predictions.probabilities.astype(np.float64) ** (1 / calibration.temperature)
    tempered = powers / powers.sum(axis=1, keepdims=True)
    assert result["ece_calibrated"] == pytest.approx(calibration_error(tempered, targets), abs=1e-5)
    # OSCR: of all pairs, those where the known image is right and scores higher than the other one; ties count half.
    pairs = predictions.ood_scores[:, None] - of_others.ood_scores[None]
    expected = (right[:, None] * ((pairs > 0) + 0.5 * (pairs == 0))).mean()
    assert result["ood"]["others"]["oscr"] == pytest.approx(expected, abs=1e-6)
    # What does not hang on the calibration is the same without it.
    plain = evaluate(model, images, {"others": others}, inference)
    assert plain["ood"]["others"].items() <= result["ood"]["others"].items()
    assert set(result) - set(plain) == {"ece_calibrated", "accepted", "accuracy_accepted"}
    assert {**result, "ood": 0}.items() >= {**plain, "ood": 0}.items()


def test_what_a_calibration_can_not_judge(model: SOTGLP, images: ImageSet) -> None:
    calibration = calibrate_held_out(model, images, InferenceConfig(), 0.9)
    other_score = InferenceConfig(ood_method="mcm")
    result = evaluate(model, images, {"same": images}, other_score, calibration=calibration)
    assert "ece_calibrated" in result
    assert not {"accepted", "accuracy_accepted"} & set(result)
    assert "rejected" not in result["ood"]["same"]
    # Among some classes there is no calibration error.
    pair = images.take([index for index, label in enumerate(images.labels or ()) if label != "blue sea"])
    result = evaluate(model, pair, among=["red_brick", "green leaf"], calibration=calibration)
    assert not {"ece", "ece_calibrated"} & set(result)
    assert "accepted" in result
    # Where nothing is accepted, there is no accuracy.
    above_all = dataclasses.replace(calibration.rejection, threshold=100.0)
    result = evaluate(model, images, calibration=dataclasses.replace(calibration, rejection=above_all))
    assert (result["accepted"], result["accuracy_accepted"]) == (0, None)


def test_unreadable_images_are_left_out_or_named(model: SOTGLP, class_folders: Path) -> None:
    broken = class_folders / "green leaf" / "2.png"
    broken.write_bytes(b"broken")
    images = ImageSet.from_path(class_folders)
    with pytest.raises(UnreadableImageError, match=r"2\.png"):
        evaluate(model, images)
    found: list[UnreadableImageError] = []
    assert evaluate(model, images, unreadable=found)["n"] == 17
    assert len(found) == 1
    with pytest.raises(SotglpError, match="none of the 1 images can be read"):
        predict(model, ImageSet.from_items([broken]), unreadable=[])
    with pytest.raises(SotglpError, match="zebra"):
        evaluate(model, ImageSet.from_items(list(images.images), ["zebra"] * len(images)))
