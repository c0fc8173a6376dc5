"""The folds of `fit --calibrate`, shortened and as long as the fit: `python benchmarks/fold_training.py`.

For each set of photos, number of shots and seed, the packaged model `photo` is fitted with its defaults, calibrated on
its shots by folds of both kinds, and judged on the test photos. Rows are appended to `--rows` as they are measured, so
that an interrupted measurement can be resumed; docs/fold_training.md is written from them. Seconds are CPU seconds on
one thread, with features that are encoded already.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from shared_sets import model_of, settings_of
from sotglp.backbone import Backbone
from sotglp.backbone_defaults import crossed_ood_method
from sotglp.features.cache_folder import default_cache_dir
from sotglp.features.view_cache import ViewCache
from sotglp.images.image_set import ImageSet
from sotglp.scoring.conformal import cross_sets
from sotglp.scoring.cross_fit import cross_fit
from sotglp.scoring.metrics import expected_calibration_error
from sotglp.scoring.predict import Predictions, predict, predict_each
from sotglp.scoring.rejection import reject_below
from sotglp.scoring.temperature import fit_temperature, tempered
from sotglp.settings import InferenceConfig
from sotglp.training.fit import adapt

TPR, COVERAGE = 0.95, 0.9
SETS = {
    "ship/trash": "ship/ood/other_things",
    "eurosat": "ood/dtd_textures",
    "ship/grocery": "ship/ood/other_things",
    "flowers102": "ood/imagenet_samples",
    "pacs_photo": "ood/imagenet_samples",
    "cifar10": "ood/imagenet_things_32",
    "ship/clothing": "ship/ood/other_things",
    "rsscn7": "ood/imagenet_samples",
    "caltech101": "ood/imagenet_samples",
}
"""Sets, and photos of none of their classes."""

GENERAL = "gl-mcm"
"""A score of the trained prompts; that of `photo` is of the shots alone, whatever is trained."""

N_FOLDS = 5
MOST_TESTS = 200

INTRODUCTION = f"""# Training of the folds

`python benchmarks/fold_training.py --shots 4` and the same with `--shots 16` wrote this page from
`docs/fold_training.jsonl`.

`fit --calibrate` and `calibrate(folds=)` train a model for each fold of the shots. Together these models take half the
steps of the fit: with 5 folds, each takes an eighth of its epochs, with 4 folds (4 shots) a sixth, at a step size
larger by so much that the sum of step sizes is half that of the fit. A fold whose training diverges is trained as the
fit was. The table compares them with folds that take all epochs of the fit. Both calibrate the same fitted model
(`photo` with its defaults), which is judged on at most {MOST_TESTS} test photos and photos of no class: {{cells}}.

- *cost*: CPU seconds of the cross-fit in units of the fit's, on one thread, both without encoding images or loading a
  backbone, which a calibration does not repeat;
- *temperature*, and the expected calibration error on the test photos at this temperature;
- *coverage* and mean size of prediction sets for {COVERAGE:.0%};
- *known* and *unknown*: share of the test photos that a threshold for {TPR:.0%} accepts, and of the photos of no class
  that it rejects, by `{GENERAL}`, a score of the trained prompts, and by the default of `--calibrate` with `photo`
  (`subspace`), which compares images with the shots and does not depend on the training.

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--rows", type=Path, default=Path("docs/fold_training.jsonl"))
    parser.add_argument("--out", type=Path, default=Path("docs/fold_training.md"))
    parser.add_argument("--shots", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    chosen = parser.parse_args()
    backbone = Backbone.load("photo")
    for seed, shots, name in itertools.product(chosen.seeds, chosen.shots, chosen.sets):
        cell = {"set": name, "shots": shots, "seed": seed}
        if any(cell.items() <= row.items() for row in read_rows(chosen.rows)):
            continue
        rows = measure(backbone, chosen.data, name, shots, seed)
        with chosen.rows.open("a") as file:
            file.writelines(json.dumps(cell | row) + "\n" for row in rows)
        print(cell, rows, flush=True)
    chosen.out.write_text(page(read_rows(chosen.rows)))


def measure(backbone: Backbone, data: Path, name: str, shots: int, seed: int) -> list[dict[str, Any]]:
    """Fit once and calibrate by each variant."""
    train, test = (ImageSet.from_path(data / name / part) for part in ("train", "test"))
    test = at_most(test, MOST_TESTS)
    others = ImageSet.from_flat_folder(data / SETS[name])
    # Things of metal, which is a class of trash.
    others = others.take(np.array(["azure_" not in others.name(index) for index in range(len(others))]))
    others = at_most(others, MOST_TESTS // 2)
    config = settings_of(backbone, seed).model_copy(update={"shots": shots})
    own = InferenceConfig(ood_method=crossed_ood_method(backbone.name, has_shots=True, smallest=shots))
    general = InferenceConfig(ood_method=GENERAL)
    cache = ViewCache(default_cache_dir())
    adapt(backbone, train, model_of(backbone), config.model_copy(update={"epochs": 1}), cache_dir=cache)
    start = time.process_time()
    fitted = adapt(backbone, train, model_of(backbone), config, cache_dir=cache)
    of_fit = time.process_time() - start
    model, images = fitted.model, fitted.images
    labels, targets = images.targets(model.class_names), test.targets(model.class_names)
    known, unknown = (
        {one.ood_method: predict(model, part, one, cache_dir=cache) for one in (own, general)}
        for part in (test, others)
    )
    probabilities = known[GENERAL].probabilities
    rows: list[dict[str, Any]] = []
    for shorten in (False, True):
        start = time.process_time()
        most = min(N_FOLDS, shots)
        crossed = cross_fit(model, images, config, own, n_folds=most, shorten=shorten, cache_dir=cache)
        seconds = time.process_time() - start
        held_out = crossed.predictions.probabilities
        general_scores = np.empty(len(images))
        for fold, one in enumerate(crossed.models):
            members = np.flatnonzero(crossed.folds == fold)
            general_scores[members] = predict(one, images.take(members), general, cache_dir=cache).ood_scores
        by_fold = predict_each(crossed.models, test, own, cache_dir=cache, score_all=False)
        true = held_out[np.arange(len(labels)), labels]
        sets = cross_sets(np.stack([each.probabilities for each in by_fold]), true, crossed.folds, COVERAGE)
        # As in a calibration, which has no temperature to fit then.
        is_right = held_out.argmax(axis=1) == labels
        temperature = 1.0 if is_right.all() else fit_temperature(held_out, labels)
        row: dict[str, Any] = {
            "shortened": shorten,
            "fit_seconds": of_fit,
            "seconds": seconds,
            "accuracy": float((probabilities.argmax(axis=1) == targets).mean()),
            "held_out_accuracy": float(is_right.mean()),
            "temperature": temperature,
            "error": expected_calibration_error(tempered(probabilities, temperature), targets),
            "coverage": float(sets[np.arange(len(targets)), targets].mean()),
            "size": float(sets.sum(axis=1).mean()),
        }
        for inference, fold_scores in ((own, crossed.predictions.ood_scores), (general, general_scores)):
            threshold = reject_below(fold_scores, TPR).threshold
            which = "own" if inference is own else "general"
            row[f"accepted_{which}"] = accepted(known[inference.ood_method], threshold)
            row[f"rejected_{which}"] = 1 - accepted(unknown[inference.ood_method], threshold)
        rows.append(row)
    best = fit_temperature(probabilities, targets)
    of_tests = {
        "best_temperature": best,
        "best_error": expected_calibration_error(tempered(probabilities, best), targets),
        "raw_error": expected_calibration_error(probabilities, targets),
    }
    return [row | of_tests for row in rows]


COLUMNS = {
    "temperature": ("temperature", 2, 1),
    "error": ("calibration error, %", 1, 100),
    "coverage": ("coverage, %", 1, 100),
    "size": ("size", 2, 1),
    "accepted_general": ("known, gl-mcm, %", 1, 100),
    "rejected_general": ("unknown, gl-mcm, %", 1, 100),
    "accepted_own": ("known, subspace, %", 1, 100),
    "rejected_own": ("unknown, subspace, %", 1, 100),
}
"""Heading, decimals and factor of the values of a row."""


def page(rows: list[dict[str, Any]]) -> str:
    """The table of rows, with means of each number of shots and the differences of the pairs."""
    lines = ["| set | shots | folds | cost | " + " | ".join(title for title, *_ in COLUMNS.values()) + " |"]
    lines.append("|---" * (4 + len(COLUMNS)) + "|")
    for shots in sorted({row["shots"] for row in rows}):
        whole, short = ([row for row in rows if (row["shots"], row["shortened"]) == (shots, kind)] for kind in (0, 1))
        for pair in zip(whole, short, strict=True):
            lines += [line(row["set"], shots, name_of(row), [row]) for row in pair]
        if len(whole) == 1:
            continue
        label = f"mean of {len(whole)}"
        lines += [line(label, shots, f"**{name_of(own[0])}**", own) for own in (whole, short)]
        differences = []
        for key, (_, decimals, factor) in COLUMNS.items():
            of_pairs = factor * np.array([a[key] - b[key] for a, b in zip(short, whole, strict=True)])
            error = of_pairs.std(ddof=1) / len(of_pairs) ** 0.5
            differences.append(f"{of_pairs.mean():+.{decimals}f} ± {error:.{decimals}f}")
        lines.append(f"| {label} | {shots} | difference ± standard error | | {' | '.join(differences)} |")
    counts = {
        shots: sum(row["shots"] == shots for row in rows) // 2 for shots in sorted({row["shots"] for row in rows})
    }
    cells = (
        ", ".join(f"{n} {'set' if n == 1 else 'sets'} with {shots} shots" for shots, n in counts.items())
        + ", one draw each"
    )
    return INTRODUCTION.format(cells=cells) + "\n".join(lines) + "\n"


def line(label: str, shots: int, kind: str, rows: list[dict[str, Any]]) -> str:
    cost = sum(row["seconds"] for row in rows) / sum(row["fit_seconds"] for row in rows)
    values = [
        f"{factor * np.mean([row[key] for row in rows]):.{decimals}f}" for key, (_, decimals, factor) in COLUMNS.items()
    ]
    return f"| {label} | {shots} | {kind} | {cost:.2f} | {' | '.join(values)} |"


def name_of(row: dict[str, Any]) -> str:
    return "shortened" if row["shortened"] else "as the fit"


def at_most(images: ImageSet, n: int) -> ImageSet:
    """Every k-th image, so that at most ``n`` are left of all classes alike."""
    return images.take(np.arange(0, len(images), -(-len(images) // n)))


def accepted(predictions: Predictions, threshold: float) -> float:
    return float((predictions.ood_scores >= threshold).mean())


def read_rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


if __name__ == "__main__":
    main()
