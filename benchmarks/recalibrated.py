"""The calibration of a model to which a class is added: part of benchmarks/class_changes.py, which runs it.

A model is fitted and calibrated without one class, the class is added and the calibration repeated on the shots that
the model stores; a new fit of all classes is calibrated on the photos.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from shared_sets import model_of, settings_of
from sotglp.backbone import Backbone
from sotglp.backbone_defaults import crossed_ood_method
from sotglp.features.cache_folder import default_cache_dir
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel
from sotglp.scoring.calibration import Calibration, calibrate_crossed
from sotglp.scoring.cross_fit import cross_fit
from sotglp.scoring.predict import predict, predict_each
from sotglp.scoring.recalibrate import recalibrate
from sotglp.settings import InferenceConfig
from sotglp.training.class_changes import with_class
from sotglp.training.fit import adapt

CELLS = (
    ("ship/clothing", "t-shirt", 4, 1, "ship/ood/other_things"),
    ("ship/grocery", "avocado", 4, 1, "ship/ood/other_things"),
    ("pacs_photo", "guitar", 4, 1, "ood/imagenet_samples"),
)
"""Set, class that is added, shots, seed, and photos of none of the classes."""

TPR, COVERAGE = 0.95, 0.9

INTRODUCTION = f"""
## The calibration after a class is added

Models were fitted with `--calibrate` without the new class; `sotglp classes add` then repeats the calibration on the
stored shots. The new fit has `--calibrate` on the photos of all classes. *old*, *new* and *others* are the test photos
that are rejected as unknown, in %: of the old classes, of the new class, and of photos of no class
(`imagenet_samples` beside `pacs_photo`, `other_things` beside the others), by `subspace`, which `--calibrate`
uses from 3 shots on. The threshold is meant to accept {TPR:.0%} of the photos of the classes. *coverage* is the share
of test photos whose prediction set for {COVERAGE:.0%} holds the true class, in %; *size* is the mean number
of classes in a set. One run each. *without the class* should reject its *new*, which it does not know.

| set | shots | new class | model | old | new | others | coverage | size |
|---|---|---|---|---|---|---|---|---|
"""


def run(backbone: Backbone, data: Path, dataset: str, new: str, shots: int, seed: int, others: str) -> dict[str, Any]:
    """Share of rejected old, new and other photos in %, coverage in % and size of sets, of each model."""
    train, test = (ImageSet.from_path(data / dataset / part) for part in ("train", "test"))
    unknown = ImageSet.from_flat_folder(data / others)
    config = settings_of(backbone, seed).model_copy(update={"shots": shots})
    inference = InferenceConfig(ood_method=crossed_ood_method(backbone.name, has_shots=True, smallest=shots))
    is_new, is_new_test = (np.array(images.labels) == new for images in (train, test))
    order = [*train.take(~is_new).classes, new]
    cache_dir = default_cache_dir()

    def fit(images: ImageSet, classes: list[str]) -> tuple[AdaptedModel, Calibration]:
        fitted = adapt(backbone, images, model_of(backbone), config, classes=classes, cache_dir=cache_dir)
        crossed = cross_fit(fitted.model, fitted.images, config, inference, cache_dir=cache_dir)
        return fitted.model, calibrate_crossed(crossed, fitted.images, inference, TPR)

    def measured(model: AdaptedModel, calibration: Calibration) -> tuple[float, ...]:
        models = [model, *calibration.fold_models]
        found = predict_each(models, test, inference, cache_dir=cache_dir)
        rejected = calibration.rejects(found[0].ood_scores)
        rejected_others = calibration.rejects(predict(model, unknown, inference, cache_dir=cache_dir).ood_scores)
        known = test.take(~is_new_test) if new not in model.class_names else test
        rows = np.flatnonzero(~is_new_test) if new not in model.class_names else np.arange(len(test))
        sets = calibration.sets(np.stack([one.probabilities[rows] for one in found]), COVERAGE)
        covered = sets[np.arange(len(rows)), known.targets(model.class_names)].mean()
        shares = (rejected[~is_new_test].mean(), rejected[is_new_test].mean(), rejected_others.mean(), covered)
        return *(100 * float(share) for share in shares), float(sets.sum(axis=1).mean())

    before, calibration = fit(train.take(~is_new), order[:-1])
    added = with_class(before, new, train.take(is_new), config, cache_dir=cache_dir)
    again = recalibrate(calibration, before, added, None, config, cache_dir=cache_dir).calibration
    assert again is not None, "the model stores its shots"
    return {
        "without the class": measured(before, calibration),
        "new fit": measured(*fit(train, order)),
        "added": measured(added, again),
    }


def section(done: list[dict[str, Any]]) -> str:
    """Return the part of the page on calibrations."""
    lines = []
    for row in done:
        dataset, new, shots, _, _ = row["cell"]
        for model, numbers in row["numbers"].items():
            cells = (dataset, shots, new, model, *(f"{one:.1f}" for one in numbers[:-1]), f"{numbers[-1]:.2f}")
            lines.append(f"| {' | '.join(map(str, cells))} |")
    means = {model: np.mean([row["numbers"][model] for row in done], axis=0) for model in done[0]["numbers"]}
    parts = [f"{model} {' / '.join(f'{one:.1f}' for one in means[model][:4])}" for model in ("new fit", "added")]
    summary = f"Mean over the {len(done)} sets, old / new / others / coverage: {', '.join(parts)}."
    return INTRODUCTION + "\n".join([*lines, "", summary]) + "\n"
