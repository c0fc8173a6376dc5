"""Every OOD score on every shared set and the painted world: `make trust`, about 15 minutes on two idle cores.

Scores that use the transport plan in other forms are measured beside those of the library. Rows are JSON lines, of
which benchmarks/ood_report.py makes docs/ood_scores.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shared_sets import OTHERS, SEEDS, fit_shared, load_shared
from sotglp.backbone import Backbone
from sotglp.console.progress import progress_bar
from sotglp.demo.comparison import SETTINGS, draw_shots_of_task, draw_test_sets
from sotglp.features.cache_folder import default_cache_dir
from sotglp.features.encode import encode_images
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel
from sotglp.methods.shot_features import region_features
from sotglp.methods.shot_memory import ClassGaussians
from sotglp.scoring.metrics import ood_metrics
from sotglp.scoring.ood import SCORES, Evidence, score_evidence
from sotglp.settings import InferenceConfig, ModelConfig
from sotglp.training.fit import adapt
from sotglp.transport.plans import plan_entropy

PAINTED = "painted"
PAINTED_SEED = 2_000_000
SHIFTS = ("pacs_art_painting", "pacs_cartoon", "pacs_sketch")


def transported(evidence: Evidence) -> Tensor:
    """Transported cosine of each class, 1 less its transport cost, (B, C)."""
    config = evidence.model.config
    return evidence.outputs.local_logits * (config.n_local_prompts if config.local_factor == "1/N" else 1)


def predicted(evidence: Evidence) -> Tensor:
    return evidence.model.logits(evidence.outputs).argmax(dim=-1)


def cost(evidence: Evidence) -> Tensor:
    return transported(evidence).gather(1, predicted(evidence)[:, None])[:, 0]


def softmax_of_cost(evidence: Evidence) -> Tensor:
    return transported(evidence).softmax(dim=-1).amax(dim=-1)


def entropy(evidence: Evidence) -> Tensor:
    plan = evidence.outputs.plan
    return -plan_entropy(plan[torch.arange(len(plan)), predicted(evidence)])


def conviction(evidence: Evidence) -> Tensor:
    """Softmax of the predicted class on the patches of its support, weighed by the plan."""
    each, classes = torch.arange(len(evidence.outputs.global_logits)), predicted(evidence)
    support, mass = evidence.outputs.support[each, classes], evidence.outputs.plan[each, classes].sum(dim=-1)
    shares = evidence.outputs.patch_logits.softmax(dim=-1)[each[:, None], support, classes[:, None]]
    return (shares * mass).sum(dim=-1)


def regions_alone(evidence: Evidence) -> Tensor:
    regions = region_features(evidence.model, evidence.encoded, evidence.outputs, predicted(evidence))
    return evidence.model.shots.mahalanobis_of_regions(regions)


FORMS: dict[str, Callable[[Evidence], Tensor]] = {
    "cost of the predicted class": lambda evidence: cost(evidence),
    "that cost and GL-MCM": lambda evidence: cost(evidence) + score_evidence(evidence, "gl-mcm", 1.0),
    "cost, less the mean over classes": lambda evidence: cost(evidence) - transported(evidence).mean(dim=-1),
    "largest softmax of costs": softmax_of_cost,
    "that softmax and GL-MCM": lambda evidence: softmax_of_cost(evidence) + score_evidence(evidence, "gl-mcm", 1.0),
    "entropy of the plan": entropy,
    "conviction of the support": conviction,
    "regions, Mahalanobis": regions_alone,
}
"""Scores that use the plan and are not in the library; larger is more in-distribution, so costs are negated."""

WITHOUT_PLAN = "all patches alike and image, Mahalanobis"


def all_scores(model: AdaptedModel, images: ImageSet, patch_means: ClassGaussians) -> dict[str, np.ndarray]:
    """Scores of a set of images by every name of the library and every form tried, and whether its label is right."""
    text = model.encode_text()
    rows = []
    for _, encoded in encode_images(model.backbone, images, InferenceConfig(), default_cache_dir()):
        evidence = Evidence(model.compare(encoded, text), model, encoded, text)
        row = {name: score_evidence(evidence, name, 1.0) for name in SCORES}
        row |= {name: form(evidence) for name, form in FORMS.items()}
        row[WITHOUT_PLAN] = row["mahalanobis"] + patch_means.nearness(unit_patch_mean(model, encoded.patch_tokens))
        row["predicted"] = predicted(evidence)
        rows.append({name: values.cpu().numpy() for name, values in row.items()})
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def unit_patch_mean(model: AdaptedModel, patch_tokens: Tensor) -> Tensor:
    patches = torch.nn.functional.normalize(model.backbone.project_patches(patch_tokens.float()), dim=-1)
    return torch.nn.functional.normalize(patches.mean(dim=1), dim=-1)


def patch_means_of(model: AdaptedModel, shots: ImageSet) -> ClassGaussians:
    """Gaussians of the mean patch of the shots, every patch alike: what the plan's choice is measured against."""
    means = [
        unit_patch_mean(model, encoded.patch_tokens)
        for _, encoded in encode_images(model.backbone, shots, InferenceConfig(), default_cache_dir())
    ]
    return ClassGaussians(torch.cat(means), torch.from_numpy(shots.targets(model.class_names)))


@torch.no_grad()
def cells(data: Path, photo: Backbone, tiny: Backbone) -> Iterator[list[dict[str, Any]]]:
    """Rows of each fit: AUROC and FPR95 of every score on every out-of-distribution set, and accuracies."""
    for name, seed in product((*OTHERS, PAINTED), SEEDS):
        shifted: dict[str, ImageSet] = {}
        with torch.enable_grad():
            if name == PAINTED:
                sets = draw_test_sets(15, 300, PAINTED_SEED)
                test, others = sets.images, sets.others
                settings = SETTINGS.model_copy(update={"seed": seed})
                fitted = adapt(
                    tiny, draw_shots_of_task(16, seed), ModelConfig(), settings, cache_dir=default_cache_dir()
                )
            else:
                train, test, others = load_shared(data, name)
                fitted = fit_shared(photo, train, seed)
                if name == "pacs_photo":
                    shifted = {shift: ImageSet.from_path(data / shift / "test") for shift in SHIFTS}
        model = fitted.model
        patch_means = patch_means_of(model, fitted.images)
        inside = all_scores(model, test, patch_means)
        about = {"set": name, "seed": seed}
        targets = test.targets(model.class_names)
        rows = [{**about, "kind": "accuracy", "on": name, "accuracy": float((inside["predicted"] == targets).mean())}]
        for shift, images in shifted.items():
            right = all_scores(model, images, patch_means)["predicted"] == images.targets(model.class_names)
            rows.append({**about, "kind": "accuracy", "on": shift, "accuracy": float(right.mean())})
        for other, images in others.items():
            outside = all_scores(model, images, patch_means)
            for score in (*SCORES, *FORMS, WITHOUT_PLAN):
                numbers = ood_metrics(inside[score], outside[score])
                rows.append({**about, "kind": "ood", "on": other, "score": score, **numbers})
        yield rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("build/ood_scores.jsonl"))
    arguments = parser.parse_args()
    photo, tiny = Backbone.load("photo"), Backbone.load("tiny")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    total = (len(OTHERS) + 1) * len(SEEDS)
    with arguments.out.open("w") as file, progress_bar("OOD scores", total, "fits", show=True) as advance:
        for rows in cells(arguments.data, photo, tiny):
            file.writelines(json.dumps(row) + "\n" for row in rows)
            file.flush()
            advance(1, f"{rows[0]['set']}, seed {rows[0]['seed']}")


if __name__ == "__main__":
    main()
