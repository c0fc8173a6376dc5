"""OOD score neglabel beside scores of the class names alone, zero-shot, on the photos of the demo and the shared ones.

Run ``python benchmarks/negative_labels.py --data ../shared/data`` to write docs/negative_labels_measured.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from shared_sets import OTHERS, load_shared
from sotglp.backbone import Backbone
from sotglp.features.cache_folder import default_cache_dir
from sotglp.images.image_set import ImageSet
from sotglp.methods.zero_shot import ZeroShot
from sotglp.scoring.metrics import ood_metrics
from sotglp.scoring.predict import predict
from sotglp.settings import InferenceConfig, OodMethod

METHODS: tuple[OodMethod, ...] = ("mcm", "gl-mcm", "max-logit", "energy", "neglabel")
N_IMAGES = 200
ROOT = Path(__file__).parent.parent
DEMO = ROOT / "src" / "sotglp" / "demo" / "photos"
SETS = ("caltech101", "pacs_photo")

HEAD = f"""# Negative labels

`benchmarks/negative_labels.py` writes this file: zero-shot classifier on `photo`, AUROC / FPR at 95 % TPR in %, at most
{N_IMAGES} images of each set, temperature 1. No score uses images of the classes. [Unknown images](unknown.md) explains
the scores.

"""


def sampled(images: ImageSet) -> ImageSet:
    return images.take(sorted(np.random.default_rng(0).permutation(len(images))[:N_IMAGES]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache-dir", type=Path, default=default_cache_dir())
    chosen = parser.parse_args()
    pairs = {"demo": (ImageSet.from_path(DEMO / "test"), {"unknown": ImageSet.from_flat_folder(DEMO / "unknown")})}
    for name in SETS:
        shared = load_shared(chosen.data, name)
        pairs[name] = shared.test, {other: shared.others[other] for other in OTHERS[name]}
    backbone = Backbone.load("photo")
    rows: dict[str, list[str]] = {method: [] for method in METHODS}
    header = []
    for name, (test, others) in pairs.items():
        model = ZeroShot(backbone, test.classes).eval()
        header += [f"{name} / {other}" for other in others]
        for method in METHODS:
            inference = InferenceConfig(ood_method=method)
            own = predict(model, sampled(test), inference, cache_dir=chosen.cache_dir).ood_scores
            for other in others.values():
                theirs = predict(model, sampled(other), inference, cache_dir=chosen.cache_dir).ood_scores
                found = ood_metrics(own, theirs)
                rows[method].append(f"{found['auroc']:.1%} / {found['fpr95']:.0%}".replace("%", ""))
    lines = [f"| score | {' | '.join(header)} |\n", "|---" * (len(header) + 1) + "|\n"]
    lines += [f"| {method} | {' | '.join(values)} |\n" for method, values in rows.items()]
    (ROOT / "docs" / "negative_labels_measured.md").write_text(HEAD + "".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
