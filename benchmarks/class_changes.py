"""Adding a class to a trained model, compared with a new fit of all classes: about half an hour.

Of each set, three classes are left out in turn: the first, the middle and the last one. Rows are written as JSON lines
when they are finished; the same command resumes an interrupted run. The tables go to docs/class_changes.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from shared_sets import settings_of
from sotglp.backbone import Backbone
from sotglp.console.progress import progress_bar
from sotglp.features.cache_folder import default_cache_dir
from sotglp.features.encode import encode_images
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel
from sotglp.scoring.predict import predict
from sotglp.settings import InferenceConfig, ModelConfig
from sotglp.training.class_changes import STEPS_ALONE, with_class
from sotglp.training.fit import adapt

DATASETS = ("pacs_photo", "rsscn7", "cifar10", "caltech101")
SEEDS = (1, 2, 3)
N_LEFT_OUT = 3

Numbers = tuple[float, float, float, float]
"""Accuracy of all images, of those of old classes, of those of the new class, in %; seconds."""

BEFORE = "without the class"
AGAIN = "full refit"
ADDED = "added, with images of old classes"
ALONE = {f"added alone, {steps} steps": steps for steps in (STEPS_ALONE, 20, 60)}

INTRODUCTION = """# Class changes

`benchmarks/class_changes.py` writes this page. Backbone `photo` with its own settings, SOT-GLP, 16
shots. Three classes of each set were left out in turn, with three seeds: mean ± standard deviation over
runs, in % of the test images. *Old* and *new* are accuracies on images of the old classes and of the new one.
Seconds are CPU time on one core, without encoding.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--rows", type=Path, default=Path("build/class_changes.jsonl"))
    parser.add_argument("--out", type=Path, default=Path("docs/class_changes.md"))
    arguments = parser.parse_args()
    arguments.rows.parent.mkdir(parents=True, exist_ok=True)
    arguments.rows.touch()
    done = [json.loads(line) for line in arguments.rows.read_text(encoding="utf-8").splitlines()]
    backbone = Backbone.load("photo")
    # One run of each class and each seed comes first, so that an interrupted run covers all sets.
    cells = [
        (dataset, position, seed)
        for shift in range(len(SEEDS))
        for dataset in DATASETS
        for position in range(N_LEFT_OUT)
        for seed in [SEEDS[(position + shift) % len(SEEDS)]]
    ]
    with progress_bar("class changes", len(cells), "classes", show=True) as advance:
        for dataset, position, seed in cells:
            cell = {"dataset": dataset, "place": position, "seed": seed}
            if not any(row["cell"] == cell for row in done):
                train, test = (ImageSet.from_path(arguments.data / dataset / part) for part in ("train", "test"))
                classes = train.classes
                new = classes[round(position * (len(classes) - 1) / (N_LEFT_OUT - 1))]
                for _ in encode_images(backbone, train, InferenceConfig(), default_cache_dir()):
                    pass
                row = {"cell": cell, "new": new, "numbers": run(backbone, train, test, new, seed)}
                done.append(row)
                with arguments.rows.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
            advance(1, f"{dataset}, {position}, seed {seed}")
            arguments.out.write_text(document(done), encoding="utf-8")


def document(done: list[dict[str, Any]]) -> str:
    lines = [INTRODUCTION]
    for dataset in DATASETS:
        runs = [row["numbers"] for row in done if row["cell"]["dataset"] == dataset]
        if len(runs) > 1:
            lines += table(f"{dataset}, {len(runs)} runs", {label: [one[label] for one in runs] for label in runs[0]})
    return "\n".join(lines)


def run(backbone: Backbone, train: ImageSet, test: ImageSet, new: str, seed: int) -> dict[str, Numbers]:
    """All rows for one class that is left out at first."""
    config = settings_of(backbone, seed)
    is_new = np.array(train.labels) == new
    old_images, new_images = train.take(~is_new), train.take(is_new)
    order = [*old_images.classes, new]
    targets = test.targets(order)
    cache_dir = default_cache_dir()

    def measured(make: Callable[[], AdaptedModel]) -> tuple[AdaptedModel, Numbers]:
        start = time.process_time()
        model = make()
        seconds = time.process_time() - start
        right = predict(model, test, cache_dir=cache_dir).probabilities.argmax(axis=1) == targets
        is_last = targets == len(order) - 1
        return model, (*(100 * float(part.mean()) for part in (right, right[~is_last], right[is_last])), seconds)

    before, numbers = measured(lambda: adapt(backbone, old_images, ModelConfig(), config, cache_dir=cache_dir).model)
    rows = {BEFORE: numbers}
    whole = measured(lambda: adapt(backbone, train, ModelConfig(), config, classes=order, cache_dir=cache_dir).model)
    rows[AGAIN] = whole[1]
    usual = config.model_copy(update={"epochs": None})
    added = measured(lambda: with_class(before, new, new_images, usual, others=old_images, cache_dir=cache_dir))
    rows[ADDED] = added[1]
    for label, steps in ALONE.items():
        # Sixteen images are one batch: an epoch is a step.
        alone = config.model_copy(update={"epochs": steps})
        rows[label] = measured(lambda alone=alone: with_class(before, new, new_images, alone, cache_dir=cache_dir))[1]
    return rows


def table(title: str, rows: dict[str, list[Numbers]]) -> list[str]:
    lines = [f"## {title}", "", "| model | all | old | new | seconds |", "|---|---|---|---|---|"]
    for label, numbers in rows.items():
        columns = np.array(numbers).T
        accuracies = [f"{column.mean():.1f} ± {column.std(ddof=1):.1f}" for column in columns[:3]]
        if label == BEFORE:
            accuracies[2] = "-"
        lines.append(f"| {label} | {' | '.join(accuracies)} | {columns[3].mean():.1f} |")
    return [*lines, ""]


if __name__ == "__main__":
    main()
