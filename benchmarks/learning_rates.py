"""Which learning rate each trained method gets in benchmarks/shared.yaml: `make rates`, about five minutes.

Only training images are used: shots of a seed that the suite does not use, and the rest of the training images to
judge by. The table goes to docs/learning_rates.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from sotglp.backbone import Backbone
from sotglp.benchmark.suite import load_suite
from sotglp.console.progress import progress_bar
from sotglp.features.cache_folder import default_cache_dir
from sotglp.images.few_shot import draw_shots
from sotglp.images.image_set import ImageSet
from sotglp.scoring.evaluate import evaluate
from sotglp.training.fit import adapt

OF_PROMPTS = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0)
RATES = {
    "tip-adapter-f": (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02),
    "clip-adapter": (0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
    "coop": OF_PROMPTS,
    "locoop": OF_PROMPTS,
    "plot": OF_PROMPTS,
    "gallop": OF_PROMPTS,
    "sot-glp": OF_PROMPTS,
    "sot-glp-projection-free": OF_PROMPTS,
}
SHOTS = 8
SEED = 11
SUITE = Path(__file__).parent / "shared.yaml"
DATASETS = ("cifar10", "rsscn7")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("docs/learning_rates.md"))
    arguments = parser.parse_args()
    suite = load_suite(str(SUITE))
    choice = suite.backbone
    backbone = Backbone.load(choice.name, choice.pretrained)
    accuracies: dict[tuple[str, float], list[float]] = {}
    total = len(DATASETS) * sum(map(len, RATES.values()))
    with progress_bar("learning rates", total, "fits", show=True) as advance:
        for dataset in DATASETS:
            images = ImageSet.from_path(arguments.data / dataset / "train")
            drawn = draw_shots(images.labels or (), SHOTS, SEED)
            rest = images.take(np.setdiff1d(np.arange(len(images)), drawn))
            for label, rates in RATES.items():
                for rate in rates:
                    settings = {**suite.methods[label].settings, "learning_rate": rate, "shots": None, "seed": SEED}
                    model, training = suite.method(label).settings_on(suite.preset(dataset), settings)
                    fitted = adapt(backbone, images.take(drawn), model, training, cache_dir=default_cache_dir())
                    result = evaluate(fitted.model, rest, cache_dir=default_cache_dir())
                    accuracies.setdefault((label, rate), []).append(result["accuracy"])
                    advance(1, f"{dataset}, {label}, {rate}: {result['accuracy']:.3f}")
    lines = [
        f"Mean accuracy in % on training images that were not drawn ({' and '.join(DATASETS)}; {SHOTS} shots, "
        f"seed {SEED}); the best rate of each method is bold and set in benchmarks/shared.yaml.",
        "",
        "| method | rate: accuracy |",
        "|---|---|",
    ]
    for label, rates in RATES.items():
        means = [100 * float(np.mean(accuracies[label, rate])) for rate in rates]
        fields = [f"{rate}: {mean:.1f}" for rate, mean in zip(rates, means, strict=True)]
        best = int(np.argmax(means))
        fields[best] = f"**{fields[best]}**"
        lines.append(f"| {label} | {', '.join(fields)} |")
    arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
