"""What each method of benchmarks/shared.yaml is tuned to: `make rates`, about half an hour.

Every method has a grid of its learning rate, or of what stands in its place if it isn't trained by steps; methods
that choose their numbers on the shots by themselves need none. Only training images are used: 8 shots of a seed that
the suite does not use, and the other training images to judge by, over all sets. Fits are appended to `--rows`, so that
an interrupted run continues. The table goes to docs/learning_rates.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np

from sotglp.backbone import Backbone
from sotglp.benchmark.suite import Suite, load_suite
from sotglp.console.progress import progress_bar
from sotglp.features.cache_folder import default_cache_dir
from sotglp.images.few_shot import draw_shots
from sotglp.images.image_set import ImageSet
from sotglp.scoring.evaluate import evaluate
from sotglp.training.fit import adapt

Grid = dict[str, tuple[float, ...]]

RATES_OF_PROMPTS: Grid = {"learning_rate": (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)}
RATES_OF_ONE_PROMPT: Grid = {"learning_rate": (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)}
GRIDS: dict[str, Grid] = {
    "linear-probe": {"inverse_regularisation": (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)},
    "tip-adapter": {"cache_weight": (0.3, 1.0, 3.0, 10.0, 30.0, 100.0), "sharpness": (1.0, 3.0, 10.0, 30.0)},
    "tip-adapter-f": {"learning_rate": (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)},
    "clip-adapter": {"learning_rate": (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)},
    "task-res": {"learning_rate": (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)},
    "clap": {"learning_rate": (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)},
    "coop": RATES_OF_ONE_PROMPT,
    "locoop": RATES_OF_ONE_PROMPT,
    "plot": {"learning_rate": (*RATES_OF_PROMPTS["learning_rate"], 16.0, 32.0, 64.0, 128.0)},
    "gallop": RATES_OF_PROMPTS,
    "sot-glp": RATES_OF_PROMPTS,
    "sot-glp-projection-free": RATES_OF_PROMPTS,
}
SHOTS = 8
SEED = 11
SUITE = Path(__file__).parent / "shared.yaml"
PAGE = Path(__file__).parent.parent / "docs/learning_rates.md"

Choice = tuple[str, str, tuple[float, ...]]
"""A dataset, a method, and a value for each setting of its grid."""


def choices(datasets: list[str]) -> list[Choice]:
    return [
        (dataset, method, values)
        for dataset in datasets
        for method, grid in GRIDS.items()
        for values in product(*grid.values())
    ]


def accuracies(suite: Suite, data: Path, wanted: list[Choice]) -> Iterator[tuple[Choice, float]]:
    """Accuracy in percent on the training images that were not drawn, for each choice."""
    backbone = Backbone.load(suite.backbone.name, suite.backbone.pretrained)
    halves: dict[str, tuple[ImageSet, ImageSet]] = {}
    for dataset, method, values in wanted:
        if dataset not in halves:
            images = ImageSet.from_path(data / str(suite.datasets[dataset].train))
            drawn = draw_shots(images.labels or (), SHOTS, SEED)
            halves[dataset] = images.take(drawn), images.take(np.setdiff1d(np.arange(len(images)), drawn))
        shots, rest = halves[dataset]
        tuned = dict(zip(GRIDS[method], values, strict=True))
        settings = {**suite.methods[method].settings, **tuned, "shots": None, "seed": SEED}
        model, training = suite.method(method).settings_on(suite.preset(dataset), settings)
        fitted = adapt(backbone, shots, model, training, cache_dir=default_cache_dir())
        yield (dataset, method, values), 100 * evaluate(fitted.model, rest, cache_dir=default_cache_dir())["accuracy"]


def table(found: dict[Choice, float], datasets: list[str]) -> list[str]:
    """Means over datasets; the best is bold, and a best at the edge of its grid is named as such."""
    lines = ["| method | setting | mean accuracy | best |", "|---|---|---|---|"]
    for method, grid in GRIDS.items():
        combinations = list(product(*grid.values()))
        means = [float(np.mean([found[dataset, method, values] for dataset in datasets])) for values in combinations]
        best = int(np.argmax(means))
        fields = [
            f"{'**' if i == best else ''}{', '.join(map('{:g}'.format, values))}: {mean:.1f}{'**' if i == best else ''}"
            for i, (values, mean) in enumerate(zip(combinations, means, strict=True))
        ]
        chosen = dict(zip(grid, combinations[best], strict=True))
        at_edge = [name for name, value in chosen.items() if value in (grid[name][0], grid[name][-1])]
        verdict = f"at the edge of its grid: {', '.join(at_edge)}" if at_edge else "interior"
        lines.append(f"| {method} | {', '.join(grid)} | {'; '.join(fields)} | {verdict} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--rows", type=Path, default=Path("build/learning_rates.jsonl"))
    parser.add_argument("--out", type=Path, default=PAGE)
    arguments = parser.parse_args()
    suite = load_suite(str(SUITE))
    datasets = list(suite.datasets)
    arguments.rows.parent.mkdir(parents=True, exist_ok=True)
    lines = arguments.rows.read_text(encoding="utf-8").splitlines() if arguments.rows.exists() else []
    found: dict[Choice, float] = {(d, m, tuple(v)): accuracy for d, m, v, accuracy in map(json.loads, lines)}
    wanted = [choice for choice in choices(datasets) if choice not in found]
    with (
        arguments.rows.open("a", encoding="utf-8") as rows,
        progress_bar("learning rates", len(wanted), "fits", show=True) as advance,
    ):
        for (dataset, method, values), accuracy in accuracies(suite, arguments.data, wanted):
            found[dataset, method, values] = accuracy
            rows.write(json.dumps([dataset, method, values, accuracy]) + "\n")
            rows.flush()
            advance(1, f"{dataset}, {method}, {values}: {accuracy:.1f}")
    page = [
        "# Learning rates of the comparison",
        "",
        f"`make rates` writes this page: mean accuracy in % over {len(datasets)} sets of photos, on training photos "
        f"that were not drawn ({SHOTS} shots, seed {SEED}, backbone `{suite.backbone.name}`).",
        "The best value of each method is bold and set in `benchmarks/shared.yaml` for all sets and numbers of shots.",
        "Grids were widened where the best value was at an edge. GDA, ProKeR, the pool and LP++ choose their numbers",
        "on the shots by themselves; SOT-GLP with a residual trains as SOT-GLP does.",
        "",
        *table(found, datasets),
    ]
    arguments.out.write_text("\n".join(page) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
