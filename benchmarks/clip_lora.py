"""CLIP-LoRA beside zero-shot and SOT-GLP on the shared photos, with 4 shots and the backbone `photo`.

``python benchmarks/clip_lora.py --data ../shared/data`` appends rows to docs/clip_lora.jsonl, continues after those
that are there, and prints the table of docs/reproduce.md. Each fit takes 6 to 13 seconds of CPU. The learning rate of a
set is the best in two folds of the shots of a draw that is not measured; the accuracies of SOT-GLP and GDA are those of
docs/fused.jsonl, on the same draws.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sotglp.backbone import Backbone
from sotglp.backbone_defaults import training_defaults
from sotglp.features.cache_folder import default_cache_dir
from sotglp.images.few_shot import draw_shots
from sotglp.images.image_set import ImageSet
from sotglp.methods.method import find_method
from sotglp.methods.registry import build_model
from sotglp.scoring.cross_fit import cross_fit
from sotglp.scoring.predict import predict
from sotglp.settings import Preset, Settings, TrainConfig
from sotglp.training.fit import adapt

SETS = ("ship/trash", "ship/clothing")
SHOTS = 4
SEEDS = (1, 2)
RATE_SEED = 11
PUBLISHED = 0.0002
RATES = (PUBLISHED, 0.0008, 0.0032)
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


def held_out(backbone: Backbone, data: Path, name: str, rate: float) -> float:
    """Accuracy in two folds of the shots of RATE_SEED, in percent."""
    shots = drawn(data, name, RATE_SEED)
    model_config, training = settings(backbone, RATE_SEED, learning_rate=rate)
    model = build_model(backbone, shots.classes, model_config, RATE_SEED)
    model.value_ranges = shots.ranges
    crossed = cross_fit(model, shots, training, training.inference_config(), n_folds=2, cache_dir=default_cache_dir())
    found = crossed.predictions.probabilities.argmax(axis=1) == shots.targets(shots.classes)
    return round(100 * float(found.mean()), 2)


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
        for rate in RATES:
            if is_missing(set=name, held_out=rate):
                yield {"set": name, "held_out": rate, "accuracy": held_out(backbone, data, name, rate)}
    for seed in SEEDS:
        for name in SETS:
            for rate in dict.fromkeys((chosen_rate(rows, name), PUBLISHED)):
                if is_missing(set=name, seed=seed, rate=rate):
                    accuracy = tested(backbone, data, name, seed, "clip-lora", learning_rate=rate)
                    yield {"set": name, "seed": seed, "rate": rate, "accuracy": accuracy}


def chosen_rate(rows: list[Row], name: str) -> float:
    """Return the rate with the best accuracy on held-out shots, of equal ones the smallest."""
    of_rate = {row["held_out"]: row["accuracy"] for row in rows if row["set"] == name and "held_out" in row}
    return max(sorted(of_rate), key=lambda rate: of_rate[rate])


def table(rows: list[Row]) -> str:
    others = [json.loads(line) for line in OTHERS.read_text(encoding="utf-8").splitlines()]
    names = ("sot-glp", "sot-glp-gda", "gda")
    head = ("set", "draws", "zero-shot", "clip-lora, published rate", "clip-lora, rate by folds", *names)
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name in SETS:
        own = [row for row in rows if row["set"] == name]
        rate = chosen_rate(rows, name)
        columns = [[row["accuracy"] for row in own if row.get("method") == "zero-shot"]]
        columns += [[row["accuracy"] for row in own if row.get("rate") == one] for one in (PUBLISHED, rate)]
        draws = {row["seed"] for row in own if row.get("rate") == rate}
        alike = [
            row["accuracy"] for row in others if row["set"] == name and row["shots"] == SHOTS and row["seed"] in draws
        ]
        columns += [[row[other] for row in alike] for other in names]
        cells = [f"{np.mean(column):.1f}" for column in columns]
        cells[2] += f" ({rate:g})"
        lines.append(f"| {name} | {len(draws)} | {' | '.join(cells)} |")
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
