"""Transport plans in training: `python benchmarks/plan_training.py --data ../shared/data`.

There are 54 pairs of a variant and a set, each of which takes 2 to 7 CPU minutes.

Follows the second part of docs/plan_protocol.md and prints its tables. Each variant of SOT-GLP is trained with a rate
that is chosen by cross-fitting on the shots of seed 1. Fits are appended to `--rows`, so that an interrupted run
continues; `--sets` divides the work among processes with rows of their own.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
from torch import Tensor

from sotglp.backbone import Backbone
from sotglp.backbone_defaults import training_defaults
from sotglp.benchmark.statistics import summary
from sotglp.demo.comparison import SETTINGS, draw_shots_of_task, draw_test_sets, measure_prompts
from sotglp.demo.painted import SHOTS, TEST_PER_CLASS, TEST_SEED
from sotglp.demo.task import few_shot_task
from sotglp.features.cache_folder import default_cache_dir
from sotglp.images.few_shot import draw_shots
from sotglp.images.image_set import ImageSet
from sotglp.methods.registry import build_model
from sotglp.methods.sot_glp import SOTGLP
from sotglp.scoring.choose_method import trained_correct
from sotglp.scoring.evaluate import evaluate
from sotglp.settings import ModelConfig, TrainConfig
from sotglp.training.fit import adapt
from sotglp.transport import sinkhorn

DOCS = Path(__file__).parent.parent / "docs"
SETS = ("ship/trash", "ship/clothing", "ship/grocery", "pacs_photo", "rsscn7", "flowers102", "eurosat", "cifar10")
PAINTED = "painted"
SEEDS = (1, 2, 3)
PAINTED_SEEDS = (1, 2, 3, 4, 5)
RATES = (0.5, 1.0, 2.0, 4.0)
FOLDS = 2
ANNEALED = "annealed"
VARIANTS: dict[str, dict[str, Any]] = {
    "published": {},
    "uniform": {"matching": "uniform"},
    "per-prompt": {"matching": "per-prompt"},
    "one local prompt": {"n_local_prompts": 1},
    "no local branch": {"branches": "global"},
    ANNEALED: {},
}
FIRST_EPSILON, LAST_EPSILON = 1.0, 0.03


class Annealing:
    """Epsilon in units of the standard deviation of the costs of a problem, smaller in each epoch."""

    def __init__(self) -> None:
        self.epsilon = LAST_EPSILON

    def set_progress(self, progress: float) -> None:
        """Set epsilon for a share of the epochs, 0 to 1."""
        self.epsilon = FIRST_EPSILON * (LAST_EPSILON / FIRST_EPSILON) ** progress

    def plans(self, cost: Tensor, epsilon: float, **arguments: Any) -> Tensor:
        """Stand in for :func:`sotglp.transport.sinkhorn`."""
        spread = cost.std(dim=(-2, -1), keepdim=True).clamp(min=1e-6)
        return sinkhorn(cost / spread, self.epsilon, **arguments)


ANNEALING = Annealing()


class AnnealedConfig(TrainConfig):
    """Training that tells the annealing its progress, where each epoch asks for its learning rate."""

    def rate(self, epoch: int, epochs: int) -> float:
        """Tell the annealing of the epoch."""
        ANNEALING.set_progress(epoch / max(epochs - 1, 1))
        return super().rate(epoch, epochs)


@contextmanager
def plans_of(variant: str) -> Iterator[None]:
    if variant != ANNEALED:
        yield
        return
    with patch("sotglp.methods.local_match.sinkhorn", ANNEALING.plans):
        yield


class Task(NamedTuple):
    """A set to train on and its training settings."""

    backbone: Backbone
    train: ImageSet
    classes: tuple[str, ...]
    training: dict[str, Any]
    cache: Path | None

    def config(self, variant: str, seed: int, rate: float) -> TrainConfig:
        """Settings of a fit."""
        values = {**self.training, "seed": seed, "learning_rate": rate, "remember": False}
        return (AnnealedConfig if variant == ANNEALED else TrainConfig)(**values)


def choose_rate(task: Task, variant: str, shots: ImageSet) -> float:
    """The rate with the most shots right in models that were trained on the other fold; the smaller one if equal."""
    model = build_model(task.backbone, task.classes, ModelConfig(**VARIANTS[variant]), 1)
    correct = [
        trained_correct(model, shots, task.config(variant, 1, rate), FOLDS, cache_dir=task.cache, show_progress=False)
        for rate in RATES
    ]
    return RATES[int(np.argmax([one.mean() for one in correct]))]


def fit(task: Task, variant: str, shots: ImageSet, seed: int, rate: float) -> SOTGLP:
    config = task.config(variant, seed, rate)
    model_config = ModelConfig(**VARIANTS[variant])
    model = adapt(task.backbone, shots, model_config, config, classes=task.classes, cache_dir=task.cache).model
    assert isinstance(model, SOTGLP)
    return model


def on_photos(data: Path, name: str, variant: str) -> Iterator[dict[str, Any]]:
    """A row for each seed."""
    train, test = (ImageSet.from_path(data / name / part) for part in ("train", "test"))
    training = training_defaults("photo")
    task = Task(Backbone.load("photo"), train, tuple(train.classes), training, default_cache_dir())
    rate = None
    for seed in SEEDS:
        shots = train.take(draw_shots(train.labels or (), 16, seed))
        if rate is None:
            rate = choose_rate(task, variant, shots)
        result = evaluate(fit(task, variant, shots, seed, rate), test, cache_dir=task.cache)
        yield {"seed": seed, "rate": rate, "accuracy": 100 * result["accuracy"]}


def on_painted(variant: str) -> Iterator[dict[str, Any]]:
    """A row for each seed, with the mass on the parts of the true class."""
    sets = draw_test_sets(TEST_PER_CLASS, 1, TEST_SEED)
    backbone = Backbone.load("tiny")
    training = SETTINGS.model_dump()
    for seed in PAINTED_SEEDS:
        shots = draw_shots_of_task(SHOTS, seed)
        task = Task(backbone, shots, few_shot_task().names, training, None)
        model = fit(task, variant, shots, seed, SETTINGS.learning_rate)
        row = {"seed": seed, "rate": SETTINGS.learning_rate, "accuracy": 100 * evaluate(model, sets.images)["accuracy"]}
        if model.local_prompts is not None:
            row |= measure_prompts(model, sets)
        yield row


def tables(rows: list[dict[str, Any]]) -> str:
    """Accuracy on photos, differences from the published plan over sets, and localisation."""
    names = [name for name in SETS if any(row["set"] == name for row in rows)]
    means = {
        (variant, name): np.mean([row["accuracy"] for row in rows if (row["variant"], row["set"]) == (variant, name)])
        for variant in VARIANTS
        for name in names
    }
    lines = [f"| variant | {' | '.join(names)} | mean | less published (95 %) |", "|---" * (len(names) + 3) + "|"]
    for variant in VARIANTS:
        values = np.array([means[variant, name] for name in names])
        less = values - np.array([means["published", name] for name in names])
        found = summary(less)
        gain = "" if variant == "published" else f"{found.mean:+.2f}"
        if gain and found.low is not None:
            gain += f" ({found.low:.2f} to {found.high:.2f})"
        lines.append(f"| {variant} | {' | '.join(f'{v:.1f}' for v in values)} | {values.mean():.2f} | {gain} |")
    lines += ["", "| variant | painted accuracy | mass on parts | overlap |", "|---|---|---|---|"]
    for variant in VARIANTS:
        painted = [row for row in rows if (row["variant"], row["set"]) == (variant, PAINTED)]
        if painted:
            columns = [mean_with_error([row["accuracy"] for row in painted], 1)]
            for name in ("mass_on_parts", "overlap"):
                measured = [row[name] for row in painted if name in row]
                columns.append(mean_with_error(measured, 3) if measured else "-")
            lines.append(f"| {variant} | {' | '.join(columns)} |")
    return "\n".join(lines) + "\n"


def mean_with_error(values: list[float], digits: int) -> str:
    return f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1) / len(values) ** 0.5:.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument(
        "--rows", type=Path, nargs="+", default=[DOCS / "plan_training.jsonl"], help="the first is written"
    )
    parser.add_argument("--sets", nargs="+", default=[*SETS, PAINTED], choices=[*SETS, PAINTED])
    chosen = parser.parse_args()
    rows = [json.loads(line) for file in chosen.rows if file.exists() for line in file.read_text().splitlines()]
    done = {(row["set"], row["variant"]) for row in rows}
    for name in chosen.sets:
        for variant in VARIANTS:
            if (name, variant) in done:
                continue
            with plans_of(variant):
                found = list(on_painted(variant) if name == PAINTED else on_photos(chosen.data, name, variant))
            new = [{"set": name, "variant": variant, **row} for row in found]
            with chosen.rows[0].open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in new)
            rows += new
    print(tables(rows))


if __name__ == "__main__":
    main()
