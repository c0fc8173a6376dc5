from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sotglp import Backbone
from sotglp.benchmark import protocols as module
from sotglp.benchmark.data import BenchmarkData
from sotglp.benchmark.protocols import Outcome, run_cell
from sotglp.datasets.entry import Splits
from sotglp.images.image_set import ImageSet
from sotglp.methods.method import find_method
from sotglp.scoring.evaluate import evaluate
from sotglp.settings import Preset, Settings, TrainConfig
from sotglp.training.fit import adapt
from support.samples import make_class_folders

TRAINING: dict[str, Any] = {"epochs": 2, "augment": False, "shots": 4, "batch_size": 6, "seed": 2}


@pytest.fixture
def data(tmp_path: Path) -> BenchmarkData:
    train = ImageSet.from_path(make_class_folders(tmp_path / "train", per_class=5, seed=0))
    test = ImageSet.from_path(make_class_folders(tmp_path / "test", per_class=4, seed=1))
    rng = np.random.default_rng(3)
    others = [Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)) for _ in range(5)]
    two = test.take([i for i, label in enumerate(test.labels or ()) if label != "red_brick"])
    renamed = ImageSet(two.images, tuple(f"a {label}" for label in two.labels or ()))
    return BenchmarkData(
        train.classes,
        train,
        test,
        {"noise": ImageSet.from_items(others)},
        {"two": Splits(two.classes, two)},
        {"renamed": Splits(renamed.classes, renamed)},
    )


def settings_of(name: str) -> tuple[Settings, TrainConfig]:
    has_top_k = name != "plot" and "top_k" in find_method(name).config_class.model_fields
    return find_method(name).settings_on(Preset(), TRAINING | ({"top_k": 4} if has_top_k else {}))


def run(backbone: Backbone, data: BenchmarkData, name: str, protocol: Any = "few-shot") -> Outcome:
    return run_cell(protocol, backbone, data, *settings_of(name))


@pytest.mark.parametrize("name", ["zero-shot", "linear-probe", "plot", "sot-glp"])
def test_a_cell_says_what_fit_and_evaluation_say(tiny_backbone: Backbone, data: BenchmarkData, name: str) -> None:
    settings = settings_of(name)
    outcome = run_cell("few-shot", tiny_backbone, data, *settings)
    fitted = adapt(tiny_backbone, data.train, *settings, classes=data.classes)
    model = fitted.model
    expected = evaluate(model, data.test, data.ood)
    assert {key: outcome.metrics[key] for key in expected} == expected
    assert (outcome.metrics["prompts"] is None) == (
        name not in ("plot", "gallop", "sot-glp", "sot-glp-projection-free")
    )
    assert outcome.metrics["transfer"]["renamed"]["n"] == 8
    assert (outcome.metrics["transfer"]["renamed"]["accuracy"] is None) == (name == "linear-probe")
    assert outcome.cost["fit_seconds"] > 0
    curves = outcome.metrics.get("curves", {"loss": []})
    assert curves["loss"] == pytest.approx([epoch["loss"] for epoch in fitted.history], abs=1e-6)


def test_a_shifted_set_of_fewer_classes_is_judged_among_those(tiny_backbone: Backbone, data: BenchmarkData) -> None:
    settings = find_method("linear-probe").settings_on(Preset(), TRAINING)
    outcome = run_cell("few-shot", tiny_backbone, data, *settings)
    model = adapt(tiny_backbone, data.train, *settings, classes=data.classes).model
    two = data.shift["two"].test
    with torch.no_grad():
        pixels = torch.stack([tiny_backbone.preprocess(Image.open(image)) for image in two.images])  # type: ignore[arg-type]
        best = model.predict_proba(pixels)[:, :2].argmax(dim=1).numpy()  # the red one comes last
    expected = float((best == two.targets(data.classes)).mean())
    assert outcome.metrics["shift"]["two"] == {"accuracy": expected, "n": 8}


@pytest.mark.parametrize("name", ["zero-shot", "coop", "sot-glp", "linear-probe"])
def test_base_to_new_trains_on_the_first_half_and_tests_either_half_alone(
    tiny_backbone: Backbone, data: BenchmarkData, name: str
) -> None:
    data = BenchmarkData((*data.classes, "void"), *_with_void(data))
    halves = run(tiny_backbone, data, name, "base-to-new").metrics["base_to_new"]
    assert (halves["n_base"], halves["n_new"]) == (8, 8)
    if name == "linear-probe":
        assert halves["new"] is None
        assert halves["harmonic_mean"] is None
        return
    base, new = halves["base"], halves["new"]
    assert halves["harmonic_mean"] == pytest.approx(2 * base * new / (base + new) if base and new else 0.0)
    # What was trained on the first two classes alone, so the cell's accuracy on them is that of such a model.
    first = data.classes[:2]
    settings = settings_of(name)

    def of(images: ImageSet, classes: tuple[str, ...]) -> ImageSet:
        return images.take([i for i, label in enumerate(images.labels or ()) if label in classes])

    model = adapt(tiny_backbone, of(data.train, first), *settings, classes=first).model
    assert base == evaluate(model, of(data.test, first))["accuracy"]
    others = data.classes[2:]
    assert new == evaluate(model.for_new_classes(others), of(data.test, others))["accuracy"]


def _with_void(data: BenchmarkData) -> tuple[ImageSet, ImageSet]:
    """Training and test images with a fourth class, black ones."""

    def more(images: ImageSet, n: int) -> ImageSet:
        black = tuple(Image.new("RGB", (40, 40), (3 * index, 0, 0)) for index in range(n))
        return ImageSet((*images.images, *black), (*(images.labels or ()), *["void"] * n))

    return more(data.train, 5), more(data.test, 4)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux resets a peak")
def test_peak_memory_is_that_since_the_reset() -> None:
    peaks = []
    for size in (1, 2**25, 1):
        if not module.reset_peak_memory():
            pytest.skip("this system does not let a process reset its peak")
        np.ones(size).sum()
        peaks.append(module.peak_memory_mb())
    idle, busy, again = peaks
    assert busy > idle + 200  # of 256 MiB
    assert again < busy - 100


def test_peak_memory_is_none_where_the_system_has_no_reset(
    tiny_backbone: Backbone, data: BenchmarkData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PROCESS", Path("/absent"))
    assert run(tiny_backbone, data, "zero-shot").cost["peak_memory_mb"] is None


def test_stored_features_change_numbers_by_no_more_than_half_precision(
    tiny_backbone: Backbone, data: BenchmarkData, tmp_path: Path
) -> None:
    settings = find_method("tip-adapter").settings_on(Preset(), TRAINING)
    plain = run_cell("few-shot", tiny_backbone, data, *settings)
    for _ in range(2):
        stored = run_cell("few-shot", tiny_backbone, data, *settings, cache_dir=tmp_path / "cache")
        assert stored.metrics["accuracy"] == plain.metrics["accuracy"]
