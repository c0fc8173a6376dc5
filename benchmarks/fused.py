"""SOT-GLP with a closed-form residual beside its two parts and the linear probe, on the shared photos.

``python benchmarks/fused.py --data ../shared/data`` appends a row for each set, number of shots and seed to
docs/fused.jsonl, continues after the rows that are there, and writes docs/fused_measured.md. It takes about three hours
on two cores.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sotglp.backbone import Backbone
from sotglp.backbone_defaults import training_defaults
from sotglp.benchmark.statistics import summary
from sotglp.console.table import counted
from sotglp.features.cache_folder import default_cache_dir
from sotglp.images.few_shot import draw_shots
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel
from sotglp.methods.method import find_method
from sotglp.methods.sot_glp import SOTGLP
from sotglp.scoring.predict import predict
from sotglp.settings import Preset, Residual, TrainConfig
from sotglp.training.fit import adapt
from sotglp.training.fusion import add_residual

SETS = (
    "ship/trash",
    "ship/clothing",
    "ship/grocery",
    "pacs_photo",
    "rsscn7",
    "flowers102",
    "eurosat",
    "cifar10",
    "caltech101",
)
SHOTS = (1, 2, 4, 16)
SEEDS = (1, 2, 3)
RESIDUALS: tuple[Residual, ...] = ("gda", "proker")
CLOSED_FORM = ("linear-probe", "gda", "proker")
COLUMNS = (*CLOSED_FORM, "sot-glp", *(f"sot-glp-{kind}" for kind in RESIDUALS))
DOCS = Path(__file__).parent.parent / "docs"
ROWS = DOCS / "fused.jsonl"
PAGE = DOCS / "fused_measured.md"


def measure(backbone: Backbone, data: Path, name: str, shots: int, seed: int) -> dict[str, Any]:
    """Return the accuracies of one draw in percent."""
    train, test = (ImageSet.from_path(data / name / part) for part in ("train", "test"))
    drawn = train.take(draw_shots(train.labels or (), shots, seed))
    truth, cache = test.targets(train.classes), default_cache_dir()

    def accuracy(model: AdaptedModel) -> float:
        predicted = predict(model.eval(), test, cache_dir=cache).probabilities.argmax(axis=1)
        return round(100 * float((predicted == truth).mean()), 2)

    preset = Preset(training=TrainConfig(**training_defaults(backbone.name), shots=None, seed=seed, remember=False))
    found = {}
    for method in (*CLOSED_FORM, "sot-glp"):
        fitted = adapt(backbone, drawn, *find_method(method).settings_on(preset, {}), cache_dir=cache)
        found[method] = accuracy(fitted.model)
    model = fitted.model
    assert isinstance(model, SOTGLP)
    for kind in RESIDUALS:  # the trained part is the same, so it is trained once
        model.residual, model.config = None, model.config.model_copy(update={"residual": kind, "fusion": None})
        add_residual(model, drawn, preset.training.inference_config(), cache_dir=cache)
        found[f"sot-glp-{kind}"] = accuracy(model)
    return {"set": name, "shots": shots, "seed": seed, "accuracy": found}


def table(rows: Sequence[dict[str, Any]], shots: int) -> str:
    """Means over the seeds of each set, and differences over the sets."""
    of_set: dict[str, list[dict[str, float]]] = defaultdict(list)
    for row in rows:
        if row["shots"] == shots:
            of_set[row["set"]].append(row["accuracy"])
    sets = [name for name in SETS if name in of_set]
    means = {name: {column: np.mean([row[column] for row in of_set[name]]) for column in COLUMNS} for name in sets}
    lines = [f"| {counted(shots, 'shot')} | draws | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 2) + "|"]
    for name in sets:
        values = " | ".join(f"{means[name][column]:.1f}" for column in COLUMNS)
        lines.append(f"| {name} | {len(of_set[name])} | {values} |")
    over_sets = [np.mean([means[name][column] for name in sets]) for column in COLUMNS]
    lines.append(f"| mean | | {' | '.join(f'{value:.1f}' for value in over_sets)} |")
    lines.append("")
    for fused in COLUMNS[-len(RESIDUALS) :]:
        for other in ("sot-glp", "linear-probe", "gda"):
            result = summary([means[name][fused] - means[name][other] for name in sets])
            interval = "" if result.low is None else f" (95 % interval over sets {result.low:.1f} to {result.high:.1f})"
            lines.append(f"- `{fused}` less `{other}`, {counted(shots, 'shot')}: {result.mean:+.1f} points{interval}")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of the sets; without it, only the page is written")
    parser.add_argument("--sets", nargs="+", default=SETS)
    chosen = parser.parse_args()
    rows = [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()] if ROWS.exists() else []
    done = {(row["set"], row["shots"], row["seed"]) for row in rows}
    if chosen.data:
        backbone = Backbone.load("photo")
        cells = [(name, shots, seed) for shots in SHOTS for seed in SEEDS for name in chosen.sets]
        for cell in cells:
            if cell not in done:
                rows.append(measure(backbone, chosen.data, *cell))
                with ROWS.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    start, end = "<!-- tables -->\n", "<!-- end of tables -->\n"
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(start)
    after = rest.partition(end)[2]
    tables = "\n".join(table(rows, shots) for shots in SHOTS)
    PAGE.write_text(before + start + "\n" + tables + "\n" + end + after, encoding="utf-8")


if __name__ == "__main__":
    main()
