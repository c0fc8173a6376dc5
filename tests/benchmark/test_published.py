from __future__ import annotations

from typing import Any

import pytest

from sotglp.benchmark.published import MEAN, Kind, Published, published, published_columns, published_rows
from sotglp.methods.method import METHODS
from support.results import BACKBONE, VIT

ELEVEN = (
    *("imagenet", "caltech101", "oxford_pets", "stanford_cars", "flowers102", "food101"),
    *("fgvc_aircraft", "sun397", "dtd", "eurosat", "ucf101"),
)
README, ABSTRACT = "GalLoP's README", "SOT-GLP abstract, arXiv 2603.08347"
KINDS: tuple[Kind, ...] = ("accuracy", "auroc", "fpr95", "shift")


def of_vit(kind: Kind, method: str, dataset: str, score: Any = None, shots: int = 16) -> Published | None:
    return published(kind, method, dataset, score=score, shots=shots, backbone=VIT)


@pytest.mark.parametrize(
    ("kind", "method", "dataset", "value", "source"),
    [
        ("accuracy", "zero-shot", "eurosat", 0.483, README),
        ("accuracy", "coop", "dtd", 0.699, README),
        ("accuracy", "plot", "food101", 0.871, README),
        ("accuracy", "promptsrc", "ucf101", 0.865, README),
        ("accuracy", "gallop", "fgvc_aircraft", 0.583, README),
        ("accuracy", "gallop", MEAN, 0.844, README),
        ("accuracy", "sot-glp", MEAN, 0.851, ABSTRACT),
        ("shift", "gallop", "imagenetv2", 0.675, README),
        ("shift", "coop", "imagenet_a", 0.499, README),
        ("shift", "plot", MEAN, 0.584, README),
    ],
)
def test_accuracy_and_shift_as_printed(kind: Kind, method: str, dataset: str, value: float, source: str) -> None:
    assert of_vit(kind, method, dataset) == Published(value, source)


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
    found = [of_vit(metric, method, dataset, score) for metric in ("auroc", "fpr95")]
    assert [one and one.value for one in found] == [auroc, fpr95]


def test_printed_means_are_those_of_their_rows() -> None:
    for kind in KINDS:
        for method, score in published_rows(kind):
            row = [of_vit(kind, method, name, score) for name in published_columns(kind)]
            numbers = [one.value for one in row if one is not None]
            mean = of_vit(kind, method, MEAN, score)
            assert mean is not None
            assert not numbers or abs(sum(numbers) / len(numbers) - mean.value) < 0.0011, (kind, method, score)


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
def test_another_backbone_has_no_published_numbers(backbone: dict[str, Any]) -> None:
    cells: tuple[tuple[Kind, str, str, int], ...] = (
        ("accuracy", "coop", "dtd", 16),
        ("accuracy", "zero-shot", "dtd", 0),
        ("shift", "coop", "imagenet_a", 16),
        ("auroc", "gallop", "sun", 16),
    )
    for kind, method, dataset, shots in cells:
        assert published(kind, method, dataset, shots=shots, backbone=backbone) is None
        assert published(kind, method, dataset, shots=shots, backbone=VIT) is not None


def test_same_settings_have_published_numbers_and_others_have_none() -> None:
    renamed = {**VIT, "name": "ViT-B-16-quickgelu"}
    assert published("accuracy", "coop", "dtd", shots=16, backbone=renamed) == Published(0.699, README)
    for shots in (0, 1, 8):
        assert of_vit("accuracy", "coop", "dtd", shots=shots) is None
        assert of_vit("accuracy", "zero-shot", "dtd", shots=shots) == Published(0.441, README)
    for method, dataset in (("coop", "birds"), ("sot-glp", "dtd"), ("mine", "dtd")):
        assert of_vit("accuracy", method, dataset) is None
    assert of_vit("shift", "sot-glp", "imagenet_a") is None


def test_names_are_those_of_sotglp() -> None:
    assert published_columns("accuracy") == ELEVEN
    assert published_columns("auroc") == published_columns("fpr95") == ("inaturalist", "sun", "places", "textures")
    assert published_columns("shift") == ("imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r")
    assert {method for kind in KINDS for method, _ in published_rows(kind)} - set(METHODS) == {"promptsrc"}
