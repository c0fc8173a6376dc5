from __future__ import annotations

from typing import Any

import pytest

from sotglp.benchmark.published import (
    MEAN,
    Published,
    published_accuracy,
    published_columns,
    published_ood,
    published_rows,
    published_shift,
)
from sotglp.methods.method import METHODS
from support.results import BACKBONE, VIT

ELEVEN = (
    "imagenet",
    "caltech101",
    "oxford_pets",
    "stanford_cars",
    "flowers102",
    "food101",
    "fgvc_aircraft",
    "sun397",
    "dtd",
    "eurosat",
    "ucf101",
)
README, ABSTRACT = "GalLoP's README", "SOT-GLP abstract, arXiv 2603.08347"


@pytest.mark.parametrize(
    ("method", "dataset", "value", "source"),
    [
        ("zero-shot", "eurosat", 0.483, README),
        ("coop", "dtd", 0.699, README),
        ("plot", "food101", 0.871, README),
        ("promptsrc", "ucf101", 0.865, README),
        ("gallop", "fgvc_aircraft", 0.583, README),
        ("gallop", MEAN, 0.844, README),
        ("sot-glp", MEAN, 0.851, ABSTRACT),
    ],
)
def test_accuracy_as_printed(method: str, dataset: str, value: float, source: str) -> None:
    assert published_accuracy(method, dataset, shots=16, backbone=VIT) == Published(value, source)


def test_the_printed_mean_of_zero_shot_contradicts_its_row() -> None:
    found = published_accuracy("zero-shot", MEAN, shots=16, backbone=VIT)
    assert found is not None
    assert found.value == 0.648
    assert "75.7" in found.note


@pytest.mark.parametrize(
    ("method", "score", "dataset", "auroc", "fpr95"),
    [
        ("zero-shot", "mcm", "textures", 0.861, 0.579),
        ("zero-shot", "gl-mcm", "textures", 0.836, 0.579),
        ("coop", "mcm", "inaturalist", 0.944, 0.28),
        ("locoop", "gl-mcm", "sun", 0.951, 0.234),
        ("plot", None, "places", 0.91, 0.382),
        ("gallop", None, MEAN, 0.932, 0.273),
        ("sot-glp-projection-free", None, MEAN, 0.942, None),
        ("coop", "gl-mcm", "inaturalist", None, None),
        ("zero-shot", None, "textures", None, None),
    ],
)
def test_ood_as_printed(method: str, score: Any, dataset: str, auroc: float | None, fpr95: float | None) -> None:
    for metric, value in (("auroc", auroc), ("fpr95", fpr95)):
        found = published_ood(method, dataset, metric, score=score, shots=16, backbone=VIT)  # type: ignore[arg-type]
        assert (found and found.value) == value


def test_shift_as_printed() -> None:
    for method, dataset, value in (
        ("gallop", "imagenetv2", 0.675),
        ("coop", "imagenet_a", 0.499),
        ("plot", MEAN, 0.584),
    ):
        assert published_shift(method, dataset, shots=16, backbone=VIT) == Published(value, README)


def test_printed_means_are_those_of_their_rows() -> None:
    def close(values: list[Published | None], mean: Published | None) -> bool:
        numbers = [value.value for value in values if value is not None]
        assert mean is not None
        return not numbers or abs(sum(numbers) / len(numbers) - mean.value) < 0.0011

    for method, _ in published_rows("accuracy"):
        row = [published_accuracy(method, name, shots=16, backbone=VIT) for name in ELEVEN]
        assert close(row, published_accuracy(method, MEAN, shots=16, backbone=VIT)), method
    for metric in ("auroc", "fpr95"):
        for method, score in published_rows(metric):
            about: dict[str, Any] = {"score": score, "shots": 16, "backbone": VIT}
            row = [published_ood(method, name, metric, **about) for name in published_columns(metric)]
            assert close(row, published_ood(method, MEAN, metric, **about)), (method, score, metric)
    for method, _ in published_rows("shift"):
        row = [published_shift(method, name, shots=16, backbone=VIT) for name in published_columns("shift")]
        assert close(row, published_shift(method, MEAN, shots=16, backbone=VIT)), method


@pytest.mark.parametrize(
    "backbone",
    [
        BACKBONE,
        {**VIT, "name": "ViT-B-32"},
        {**VIT, "pretrained": "laion2b_s34b_b88k"},
        {**VIT, "image_size": [336, 336]},
        {},
    ],
)
def test_another_backbone_is_another_setting(backbone: dict[str, Any]) -> None:
    assert published_accuracy("coop", "dtd", shots=16, backbone=backbone) is None
    assert published_accuracy("zero-shot", "dtd", shots=0, backbone=backbone) is None
    assert published_shift("coop", "imagenet_a", shots=16, backbone=backbone) is None
    assert published_ood("gallop", "sun", "auroc", score=None, shots=16, backbone=backbone) is None


def test_the_same_backbone_by_its_other_name() -> None:
    backbone = {**VIT, "name": "ViT-B-16-quickgelu"}
    assert published_accuracy("coop", "dtd", shots=16, backbone=backbone) == Published(0.699, README)


@pytest.mark.parametrize("shots", [0, 1, 8])
def test_other_shots_are_another_setting_but_not_without_training(shots: int) -> None:
    assert published_accuracy("coop", "dtd", shots=shots, backbone=VIT) is None
    assert published_accuracy("zero-shot", "dtd", shots=shots, backbone=VIT) == Published(0.441, README)


def test_what_nobody_published() -> None:
    assert published_accuracy("coop", "birds", shots=16, backbone=VIT) is None
    assert published_accuracy("sot-glp", "dtd", shots=16, backbone=VIT) is None
    assert published_accuracy("mine", "dtd", shots=16, backbone=VIT) is None
    assert published_shift("sot-glp", "imagenet_a", shots=16, backbone=VIT) is None


def test_names_are_ours() -> None:
    assert published_columns("accuracy") == ELEVEN
    assert published_columns("auroc") == published_columns("fpr95") == ("inaturalist", "sun", "places", "textures")
    assert published_columns("shift") == ("imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r")
    kinds = ("accuracy", "auroc", "fpr95", "shift")
    assert {method for kind in kinds for method, _ in published_rows(kind)} - set(METHODS) == {"promptsrc"}
