"""Accuracy with 1, 4 and 16 stored views against freshly drawn ones: `python benchmarks/views.py TRAIN TEST`.

Prints a Markdown table: test accuracy over seeds (mean and standard deviation) and seconds of a fit.
"""

from __future__ import annotations

import argparse
import statistics
import time

from sotglp import Backbone
from sotglp.images.image_set import ImageSet
from sotglp.scoring.evaluate import evaluate
from sotglp.settings import ModelConfig, TrainConfig
from sotglp.training.fit import adapt


def main() -> None:
    """Fit and evaluate for each number of views and each seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("train")
    parser.add_argument("test")
    parser.add_argument("--backbone", default="ViT-S-32-alt")
    parser.add_argument("--pretrained", default="none")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--learning-rate", type=float, default=0.005)
    parser.add_argument("--seeds", type=int, default=3)
    chosen = parser.parse_args()
    backbone = Backbone.load(chosen.backbone, chosen.pretrained)
    train, test = ImageSet.from_path(chosen.train), ImageSet.from_path(chosen.test)
    print("| views | accuracy | seconds a fit |\n|---|---|---|")
    for n_views in (1, 4, 16, 0):
        accuracies, times = [], []
        for seed in range(1, 1 + chosen.seeds):
            config = TrainConfig(epochs=chosen.epochs, learning_rate=chosen.learning_rate, views=n_views, seed=seed)
            start = time.perf_counter()
            fitted = adapt(backbone, train, ModelConfig(), config)
            times.append(time.perf_counter() - start)
            accuracies.append(evaluate(fitted.model, test)["accuracy"])
        spread = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
        name = f"{n_views} stored" if n_views else "redrawn each epoch"
        print(
            f"| {name} | {statistics.mean(accuracies):.3f} ± {spread:.3f} | {statistics.median(times):.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
