from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sotglp import Backbone, SotglpError, SotglpWarning
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel
from sotglp.methods.method import METHODS
from sotglp.model_file.load import load_model
from sotglp.model_file.record import read_record
from sotglp.model_file.save import save_model
from sotglp.scoring.calibration import Calibration, calibrate_crossed, calibrate_held_out
from sotglp.scoring.cross_fit import cross_fit
from sotglp.scoring.predict import predict, predict_each
from sotglp.settings import InferenceConfig, ModelConfig, Preset, TrainConfig
from sotglp.training.fit import Fitted, adapt
from support.model_files import Change, rewrite
from support.samples import make_class_folders, tiny_clip

CONFIG = TrainConfig(epochs=1, batch_size=8, learning_rate=0.02, augment=False, shots=None)
INFERENCE = InferenceConfig(ood_method="knn")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    return ImageSet.from_path(make_class_folders(tmp_path_factory.mktemp("data") / "train", per_class=4))


@pytest.fixture(scope="module")
def fitted(images: ImageSet) -> Fitted:
    return adapt(Backbone.from_open_clip(tiny_clip()), images, ModelConfig(n_local_prompts=2, top_k=3), CONFIG)


@pytest.fixture(scope="module")
def calibrations(fitted: Fitted, images: ImageSet) -> dict[str, Calibration]:
    unlabelled = ImageSet.from_items(list(images.images))
    return {
        "held out": calibrate_held_out(fitted.model, images, InferenceConfig(ood_method="mahalanobis-patches"), 0.8),
        "unlabelled": calibrate_held_out(fitted.model, unlabelled, InferenceConfig(temperature=0.5), 0.9),
        "crossed": calibrate_crossed(
            cross_fit(fitted.model, images, CONFIG, INFERENCE, n_folds=3), images, INFERENCE, 0.75
        ),
    }


@pytest.fixture(scope="module")
def crossed_file(fitted: Fitted, calibrations: dict[str, Calibration], tmp_path_factory: Any) -> Path:
    path: Path = tmp_path_factory.mktemp("file") / "m.safetensors"
    save_model(path, fitted.model, calibration=calibrations["crossed"])
    return path


@pytest.mark.parametrize("how", ["held out", "unlabelled", "crossed"])
def test_a_calibration_comes_back_to_the_same_decisions(
    fitted: Fitted, images: ImageSet, calibrations: dict[str, Calibration], tmp_path: Path, how: str
) -> None:
    before, path = calibrations[how], tmp_path / "m.safetensors"
    save_model(path, fitted.model, calibration=before)
    model, _, after = load_model(path, backbone=fitted.model.backbone)
    for field in dataclasses.fields(Calibration):
        if field.name not in ("true_probabilities", "folds", "fold_models", "true_classes"):
            assert getattr(after, field.name) == getattr(before, field.name)
    np.testing.assert_array_equal(after.true_probabilities, before.true_probabilities)
    assert (after.true_classes is None) == (before.true_classes is None) == (how == "unlabelled")
    for ours, theirs in zip(after.true_classes or (), before.true_classes or (), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert (after.folds is None) == (before.folds is None)
    inference = InferenceConfig(ood_method=before.ood_method, temperature=before.ood_temperature)
    assert inference.threshold_of(after) == before.rejection.threshold

    def decisions(whole: AdaptedModel, calibration: Calibration) -> list[Any]:
        predictions = predict_each([whole, *calibration.fold_models], images, inference, score_all=False)
        decided = [
            calibration.rejects(predictions[0].ood_scores),
            calibration.probabilities(predictions[0].probabilities),
        ]
        if how != "unlabelled":
            decided.append(calibration.sets(np.stack([one.probabilities for one in predictions]), 0.7))
        return decided

    for found, expected in zip(decisions(model, after), decisions(fitted.model, before), strict=True):
        np.testing.assert_array_equal(found, expected)
    record = read_record(path).calibration
    assert record.n_folds == (3 if how == "crossed" else 0)
    assert record.rejection.threshold == before.rejection.threshold
    # What was read is written to the same bytes.
    save_model(tmp_path / "again", model, calibration=after)
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_equal_runs_give_equal_bytes(fitted: Fitted, images: ImageSet, crossed_file: Path, tmp_path: Path) -> None:
    torch.manual_seed(4)
    again = adapt(fitted.model.backbone, images, fitted.model.config, CONFIG)
    crossed = cross_fit(again.model, images, CONFIG, INFERENCE, n_folds=3)
    save_model(tmp_path / "m", again.model, calibration=calibrate_crossed(crossed, images, INFERENCE, 0.75))
    assert (tmp_path / "m").read_bytes() == crossed_file.read_bytes()


@pytest.mark.parametrize("method", ["knn", "mahalanobis", "mahalanobis-patches"])
def test_shots_come_back_to_the_same_scores(fitted: Fitted, images: ImageSet, crossed_file: Path, method: Any) -> None:
    model, *_ = load_model(crossed_file, backbone=fitted.model.backbone)
    assert fitted.model.shots is not None
    assert model.shots.classes.tolist() == images.targets(model.class_names).tolist()
    for part in ("features", "regions"):
        assert torch.equal(getattr(model.shots, part), getattr(fitted.model.shots, part))
    for found, expected in zip(model.shots.patches or (), fitted.model.shots.patches or (), strict=True):
        assert torch.equal(found, expected)
    scores = [predict(one, images, InferenceConfig(ood_method=method)).ood_scores for one in (model, fitted.model)]
    np.testing.assert_array_equal(*scores)


def test_a_file_with_the_former_name_of_a_score_is_read(fitted: Fitted, images: ImageSet, tmp_path: Path) -> None:
    inference = InferenceConfig(ood_method="mahalanobis-patches")
    save_model(tmp_path / "new", fitted.model, calibration=calibrate_held_out(fitted.model, images, inference, 0.8))

    def with_former_name(record: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        record["calibration"]["ood_method"] = "transport"

    old = rewrite(tmp_path / "new", tmp_path / "old", with_former_name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_record(old) == read_record(tmp_path / "new")


@pytest.mark.parametrize("method", METHODS)
def test_every_methods_calibration_comes_back(images: ImageSet, fitted: Fitted, tmp_path: Path, method: str) -> None:
    settings = METHODS[method].settings_on(Preset(), {})[0]
    own = adapt(fitted.model.backbone, images, settings, CONFIG)
    crossed = cross_fit(own.model, images, CONFIG, INFERENCE, n_folds=2)
    before = calibrate_crossed(crossed, images, INFERENCE, 0.9)
    save_model(tmp_path / "m", own.model, calibration=before)
    *_, after = load_model(tmp_path / "m", backbone=fitted.model.backbone)
    for ours, theirs in zip(after.fold_models, before.fold_models, strict=True):
        np.testing.assert_array_equal(predict(ours, images).probabilities, predict(theirs, images).probabilities)


@pytest.mark.parametrize("threshold", [None, {"threshold": 0.5, "method": "gl-mcm", "temperature": 1.0, "tpr": 0.95}])
def test_a_file_of_format_1_is_read_without_its_threshold(
    fitted: Fitted, images: ImageSet, tmp_path: Path, threshold: dict[str, Any] | None
) -> None:
    def as_format_1(record: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        del record["calibration"], record["training"]["remember"]
        record |= {"format_version": 1, "threshold": threshold}
        for name in [name for name in tensors if name.startswith("shots.")]:
            del tensors[name]

    save_model(tmp_path / "new", fitted.model, training=CONFIG, history=fitted.history)
    new = load_model(tmp_path / "new", backbone=fitted.model.backbone)
    assert new.calibration is new.record.calibration is None
    old = rewrite(tmp_path / "new", tmp_path / "old", as_format_1)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model, _, calibration = load_model(old, backbone=fitted.model.backbone)
    told = [one for one in told if issubclass(one.category, SotglpWarning)]
    assert bool(told) == (threshold is not None)
    assert all("old has a threshold of an older sotglp" in str(one.message) for one in told)
    assert calibration is None
    assert model.shots is None
    predictions = [predict(one, images) for one in (model, fitted.model)]
    np.testing.assert_array_equal(predictions[0].probabilities, predictions[1].probabilities)
    with pytest.raises(SotglpError, match="compares images with the shots"):
        predict(model, images, INFERENCE)


def without(name: str) -> Change:
    return lambda record, tensors: tensors.pop(name)


def put(name: str, value: Tensor) -> Change:
    return lambda record, tensors: tensors.update({name: value})


def told(name: str, value: Any) -> Change:
    return lambda record, tensors: record["calibration"].update({name: value})


PROBABILITIES, FOLDS = "calibration.true_probabilities", "calibration.folds"
PATCHES = "the patches of its shots do not fit"
TOGETHER, SHOTS = "the parts of its calibration do not fit together", "the features of its shots do not fit"
BAD_TENSORS: dict[str, tuple[Change, str]] = {
    "no probabilities": (without(PROBABILITIES), TOGETHER),
    "probabilities in a table": (put(PROBABILITIES, torch.full((4, 3), 0.5)), TOGETHER),
    "too few probabilities": (put(PROBABILITIES, torch.full((11,), 0.5)), TOGETHER),
    "probabilities of other images": (put(PROBABILITIES, torch.empty(0)), TOGETHER),
    "whole probabilities": (put(PROBABILITIES, torch.ones(12, dtype=torch.int64)), TOGETHER),
    "probabilities above 1": (put(PROBABILITIES, torch.full((12,), 1.5)), TOGETHER),
    "probabilities below 0": (put(PROBABILITIES, torch.full((12,), -0.5)), TOGETHER),
    "no folds": (without(FOLDS), TOGETHER),
    "a fold that is not there": (put(FOLDS, torch.arange(12) % 4), TOGETHER),
    "a fold below 0": (put(FOLDS, torch.arange(12) % 3 - 1), TOGETHER),
    "a fold without images": (put(FOLDS, torch.arange(12) % 2), TOGETHER),
    "parts of folds": (put(FOLDS, torch.arange(12) % 3 + 0.0), TOGETHER),
    "too many folds of images": (put(FOLDS, torch.arange(13) % 3), TOGETHER),
    "more folds told": (told("n_folds", 1000), TOGETHER),
    "folds told to be none": (told("n_folds", 0), TOGETHER),
    "NaN among probabilities": (put(PROBABILITIES, torch.full((12,), torch.nan)), "finite numbers"),
    "a fold without prompts": (without("fold1.local_prompts"), "its local_prompts is missing"),
    "a fold with other prompts": (put("fold2.global_prompts", torch.zeros(1)), "its global_prompts is missing"),
    "NaN in a fold": (put("fold0.local_projection", torch.full((64, 64), torch.nan)), "finite numbers"),
    "no features": (without("shots.features"), SHOTS),
    "no regions": (without("shots.regions"), "have different numbers of rows"),
    "no classes of shots": (without("shots.classes"), SHOTS),
    "a class of shots that is not there": (put("shots.classes", torch.full((12,), 3)), SHOTS),
    "narrow features": (put("shots.features", torch.ones(12, 31)), SHOTS),
    "half features": (put("shots.features", torch.ones(12, 32, dtype=torch.float16)), SHOTS),
    "fewer features": (put("shots.features", torch.ones(11, 32)), "have different numbers of rows"),
    "no rows of patches": (without("shots.patch_rows"), PATCHES),
    "more rows than shots": (put("shots.patch_rows", torch.arange(1, 13)), PATCHES),
    "patches in another order": (put("shots.patch_rows", torch.arange(12).flip(0)), PATCHES),
    "other levels": (put("shots.patch_levels", torch.ones(12, 1, 1, dtype=torch.int8)), PATCHES),
    "NaN in features": (put("shots.features", torch.full((12, 32), torch.nan)), "finite numbers"),
}


@pytest.mark.parametrize("name", BAD_TENSORS)
def test_damaged_tensors_are_one_sentence(fitted: Fitted, crossed_file: Path, tmp_path: Path, name: str) -> None:
    damage, words = BAD_TENSORS[name]
    path = rewrite(crossed_file, tmp_path / "bad", damage)
    with pytest.raises(SotglpError, match=rf"^[^\n]*bad (is damaged: |can't be read as )[^\n]*{words}[^\n]*$"):
        load_model(path, backbone=fitted.model.backbone)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_other_float_types_are_read(fitted: Fitted, crossed_file: Path, tmp_path: Path, kind: torch.dtype) -> None:
    path = rewrite(crossed_file, tmp_path / "m", put(PROBABILITIES, torch.full((12,), 0.5, dtype=kind)))
    *_, calibration = load_model(path, backbone=fitted.model.backbone)
    assert calibration.true_probabilities.dtype == np.float32
    assert calibration.true_probabilities.tolist() == [0.5] * 12
