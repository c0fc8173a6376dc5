"""CLIP-LoRA at three learning rates beside zero-shot and SOT-GLP, with 4 shots of photos and the backbone `photo`.

``python benchmarks/clip_lora.py --data ../shared/data`` appends rows to docs/clip_lora.jsonl, continues after those
that are there, and prints the table of docs/reproduce.md. Each fit takes 6 to 13 seconds of CPU. The accuracies of
SOT-GLP and GDA are those of docs/fused.jsonl, on the same draws.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from sotglp.backbone import Backbone
from sotglp.backbone_defaults import training_defaults
from sotglp.features.cache_folder import default_cache_dir
from sotglp.images.few_shot import draw_shots
from sotglp.images.image_set import ImageSet
from sotglp.methods.method import find_method
from sotglp.scoring.predict import predict
from sotglp.settings import Preset, Settings, TrainConfig
from sotglp.training.fit import adapt

SETS = ("ship/trash", "ship/clothing")
SHOTS = 4
SEEDS = (1, 2, 3)
RATES = (0.0002, 0.0008, 0.0032)
"""The published one first."""
DOCS = Path(__file__).parent.parent / "docs"
ROWS = DOCS / "clip_lora.jsonl"
OTHERS = DOCS / "fused.jsonl"

Row = dict[str, Any]


def settings(backbone: Backbone, seed: int, method: str = "clip-lora", **changes: Any) -> tuple[Settings, TrainConfig]:
    training = TrainConfig(**training_defaults(backbone.name), shots=None, seed=seed, remember=False)
    return find_method(method).settings_on(Preset(training=training), changes)


def drawn(data: Path, name: str, seed: int) -> ImageSet:
    train = ImageSet.from_path(data / name / "train")
    return train.take(draw_shots(train.labels or (), SHOTS, seed))


def tested(backbone: Backbone, data: Path, name: str, seed: int, method: str, **changes: Any) -> float:
    """Accuracy on the test images of a model of one draw, in percent."""
    shots, test = drawn(data, name, seed), ImageSet.from_path(data / name / "test")
    model = adapt(backbone, shots, *settings(backbone, seed, method, **changes), cache_dir=default_cache_dir()).model
    predicted = predict(model, test, cache_dir=default_cache_dir()).probabilities.argmax(axis=1)
    return round(100 * float((predicted == test.targets(shots.classes)).mean()), 2)


def measured(backbone: Backbone, data: Path, rows: list[Row]) -> Iterator[Row]:
    """Yield the rows that are missing."""

    def is_missing(**row: Any) -> bool:
        return all(row.items() - known.items() for known in rows)

    for name in SETS:
        if is_missing(set=name, method="zero-shot"):
            yield {"set": name, "method": "zero-shot", "accuracy": tested(backbone, data, name, 1, "zero-shot")}
    for seed, name, rate in product(SEEDS, SETS, RATES):
        if is_missing(set=name, seed=seed, rate=rate):
            accuracy = tested(backbone, data, name, seed, "clip-lora", learning_rate=rate)
            yield {"set": name, "seed": seed, "rate": rate, "accuracy": accuracy}


def table(rows: list[Row]) -> str:
    others = [json.loads(line) for line in OTHERS.read_text(encoding="utf-8").splitlines()]
    names = ("sot-glp", "sot-glp-gda", "gda")
    head = ("set", "draws", "zero-shot", *(f"clip-lora, rate {rate:g}" for rate in RATES), *names)
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name in SETS:
        own = [row for row in rows if row["set"] == name]
        draws = {row["seed"] for row in own if row.get("rate") == RATES[-1]}
        columns = [[row["accuracy"] for row in own if row.get("method") == "zero-shot"]]
        columns += [
            [row["accuracy"] for row in own if row.get("rate") == rate and row["seed"] in draws] for rate in RATES
        ]
        alike = [row for row in others if (row["set"], row["shots"]) == (name, SHOTS) and row["seed"] in draws]
        columns += [[row["accuracy"][other] for row in alike] for other in names]
        lines.append(f"| {name} | {len(draws)} | {' | '.join(f'{np.mean(column):.1f}' for column in columns)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of the sets; without it, only the table is printed")
    chosen = parser.parse_args()
    rows = [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()] if ROWS.exists() else []
    if chosen.data:
        for row in measured(Backbone.load("photo"), chosen.data, rows):
            rows.append(row)
            with ROWS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
