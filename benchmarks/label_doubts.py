"""How many wrong labels `sotglp data check` finds, and how many right ones it doubts: about a minute.

Of each training set, 5 % of the labels are changed to another class at random. The table goes to docs/label_doubts.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from sotglp.backbone import Backbone
from sotglp.demo.task import draw_class_pictures, image_set
from sotglp.features.cache_folder import default_cache_dir
from sotglp.images.image_set import ImageSet
from sotglp.scoring.label_doubts import find_doubts, out_of_fold, unit_features
from sotglp.settings import InferenceConfig

DATASETS = (
    *("caltech101", "cifar10", "eurosat", "flowers102", "pacs_photo", "rsscn7"),
    *("ship/clothing", "ship/grocery", "ship/trash"),
)
SEEDS = (1, 2, 3)
WRONG = 0.05
PAINTED = "painted world"
PAINTED_PER_CLASS = 20
PAINTED_SEED = 4_000_000
WORSTS = (0.5, 0.9)
SMALLEST = 1e-9
"""All images whose own class is not the first, as doubts."""

INTRODUCTION = """# Doubtful labels

`benchmarks/label_doubts.py` writes this page. Backbone `photo`, and
`tiny` for the painted world; 5 % of the labels of each training set were replaced
at random; mean ± standard deviation over three seeds. *Accuracy*: out-of-fold accuracy of the regression against
the true labels. *Reported*: images whose given class ranks in the lower half (`worst=0.5`, the default) or the last
tenth (0.9). *Precision* and *recall* refer to the replaced labels; *average precision* to the whole ranking;
*chance* to a random ranking.

Where the accuracy is 0.95 or more, at least four of five flagged labels are wrong; from 0.65 to 0.8, two of three
or more; on trash, with 0.53, one of five. Trust the flags as far as the accuracy is high.

| set | classes | images | changed | accuracy | average precision | chance | worst | reported | precision | recall |
|---|---|---|---|---|---|---|---|---|---|---|"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("docs/label_doubts.md"))
    arguments = parser.parse_args()
    lines = [INTRODUCTION]
    pictures, drawn = draw_class_pictures(PAINTED_PER_CLASS, PAINTED_SEED)
    sets = {name: ImageSet.from_path(arguments.data / name / "train") for name in DATASETS}
    for dataset, images in {**sets, PAINTED: image_set(pictures.images, drawn)}.items():
        backbone = Backbone.load("tiny" if dataset == PAINTED else "photo")
        features = unit_features(backbone, images, InferenceConfig(), default_cache_dir())
        truth = images.targets(images.classes)
        n_wrong = round(WRONG * len(truth))
        columns = np.array([run(features, truth, seed) for seed in SEEDS]).T
        spread = [f"{column.mean():.2f} ± {column.std(ddof=1):.2f}" for column in columns]
        about = [
            dataset.removeprefix("ship/"),
            len(images.classes),
            len(truth),
            n_wrong,
            *spread[:2],
            f"{n_wrong / len(truth):.2f}",
        ]
        for index, worst in enumerate(WORSTS):
            start = 2 + 3 * index
            fields = [*about, worst, f"{columns[start].mean():.1f}", *spread[start + 1 : start + 3]]
            lines.append(f"| {' | '.join(map(str, fields))} |")
            about = [""] * len(about)
    arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


def run(features: NDArray[np.float64], truth: NDArray[np.int64], seed: int) -> tuple[float, ...]:
    """Accuracy and average precision; then reported images, precision and recall for each of WORSTS."""
    rng = np.random.default_rng(seed)
    n_classes = int(truth.max()) + 1
    wrong = rng.choice(len(truth), round(WRONG * len(truth)), replace=False)
    labels = truth.copy()
    labels[wrong] = (truth[wrong] + rng.integers(1, n_classes, len(wrong))) % n_classes
    probabilities = out_of_fold(features, labels, seed)
    is_wrong = np.isin(np.arange(len(truth)), wrong)
    scores = np.zeros(len(truth))
    ranked = [doubt.index for doubt in find_doubts(probabilities, labels, worst=SMALLEST)]
    scores[ranked] = np.arange(len(ranked), 0, -1)
    numbers = [(probabilities.argmax(axis=1) == truth).mean(), average_precision_score(is_wrong, scores)]
    for worst in WORSTS:
        reported = [doubt.index for doubt in find_doubts(probabilities, labels, worst)]
        found = is_wrong[reported].sum()
        numbers += [len(reported), found / max(len(reported), 1), found / len(wrong)]
    return tuple(map(float, numbers))


if __name__ == "__main__":
    main()
