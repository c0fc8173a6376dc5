"""Adding a class to a trained model, compared with a new fit of all classes on their images: about half an hour.

Rows are written as JSON lines when they are finished; the same command resumes an interrupted run. The table goes to
docs/class_changes.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import recalibrated
from shared_sets import model_of, settings_of
from sotglp.backbone import Backbone
from sotglp.features.cache_folder import default_cache_dir
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel
from sotglp.scoring.predict import predict
from sotglp.training.class_changes import with_class
from sotglp.training.fit import adapt

CELLS = (
    ("pacs_photo", "guitar", 4, 1),
    ("flowers102", "cyclamen", 4, 1),
    ("caltech101", "grand_piano", 4, 1),
    ("ship/trash", "metal", 16, 1),
    ("ship/clothing", "t-shirt", 16, 1),
    ("ship/grocery", "avocado", 16, 2),
)
"""Set, class that is left out at first, shots and seed."""

BEFORE, AGAIN, ADDED = "without the class", "new fit", "added"

INTRODUCTION = """# Class changes

`benchmarks/class_changes.py` writes this page. Backbone `photo` with its default method and settings. One class of
each set was left out, and then added to the model by images of it alone, as `sotglp classes add` does: the other
classes come from the features that the model file stores in 8 bits. Numbers are in % of the test images,
one run each; *old* and *new* are images of the old classes and of the new one. A new class has 20 to 30 test images,
so one image is 3 to 5 points.

| set | shots | seed | new class | model | all | old | new | CPU s |
|---|---|---|---|---|---|---|---|---|
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
    for cells, measure in ((CELLS, run), (recalibrated.CELLS, recalibrated.run)):
        for cell in cells:
            if not any(row["cell"] == list(cell) for row in done):
                done.append({"cell": list(cell), "numbers": measure(backbone, arguments.data, *cell)})
                with arguments.rows.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(done[-1]) + "\n")
            write(done, arguments.out)


def write(done: list[dict[str, Any]], out: Path) -> None:
    """Write the page; rows of the two parts differ in the length of their cells."""
    accuracies, calibrations = ([row for row in done if len(row["cell"]) == n] for n in (4, 5))
    text = document(accuracies) if accuracies else ""
    out.write_text(text + (recalibrated.section(calibrations) if calibrations else ""), encoding="utf-8")


def run(
    backbone: Backbone, data: Path, dataset: str, new: str, shots: int, seed: int
) -> dict[str, tuple[float, float, float, float]]:
    """Accuracy of all, old and new images in %, and CPU seconds without encoding, of each model."""
    train, test = (ImageSet.from_path(data / dataset / part) for part in ("train", "test"))
    config = settings_of(backbone, seed).model_copy(update={"shots": shots})
    is_new = np.array(train.labels) == new
    order = [*train.take(~is_new).classes, new]
    targets, cache_dir = test.targets(order), default_cache_dir()

    def measured(make: Callable[[], AdaptedModel]) -> tuple[AdaptedModel, tuple[float, float, float, float]]:
        start = time.process_time()
        model = make()
        seconds = time.process_time() - start
        right = predict(model, test, cache_dir=cache_dir).probabilities.argmax(axis=1) == targets
        is_last = targets == len(order) - 1
        whole, old, own = (100 * float(part.mean()) for part in (right, right[~is_last], right[is_last]))
        return model, (whole, old, own, seconds)

    def fit(images: ImageSet, classes: list[str]) -> AdaptedModel:
        return adapt(backbone, images, model_of(backbone), config, classes=classes, cache_dir=cache_dir).model

    before, numbers = measured(lambda: fit(train.take(~is_new), order[:-1]))
    return {
        BEFORE: numbers,
        AGAIN: measured(lambda: fit(train, order))[1],
        ADDED: measured(lambda: with_class(before, new, train.take(is_new), config, cache_dir=cache_dir))[1],
    }


def document(done: list[dict[str, Any]]) -> str:
    lines = []
    for row in done:
        dataset, new, shots, seed = row["cell"]
        for model, (whole, old, own, seconds) in row["numbers"].items():
            of_new = "-" if model == BEFORE else f"{own:.1f}"
            cells = (dataset, shots, seed, new, model, f"{whole:.1f}", f"{old:.1f}", of_new, f"{seconds:.0f}")
            lines.append(f"| {' | '.join(map(str, cells))} |")
    again, added = (np.mean([row["numbers"][model][:3] for row in done], axis=0) for model in (AGAIN, ADDED))
    summary = (
        f"Mean over the {len(done)} runs, all / old / new: new fit {again[0]:.1f} / {again[1]:.1f} / {again[2]:.1f}, "
        f"added {added[0]:.1f} / {added[1]:.1f} / {added[2]:.1f}."
    )
    return INTRODUCTION + "\n".join([*lines, "", summary]) + "\n"


if __name__ == "__main__":
    main()
