"""Compare methods on the task of the demo, with the same backbone, pictures, training and evaluation."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binomtest
from torch import Tensor

from sotglp.backbone import Backbone
from sotglp.backbone_defaults import preset_for
from sotglp.demo.task import draw_class_pictures, draw_far, draw_mid, draw_near, few_shot_task, image_set
from sotglp.demo.world import NO_PART, Pictures, slot_shares
from sotglp.images.image_set import ImageSet
from sotglp.methods.method import Method
from sotglp.methods.sot_glp import SOTGLP
from sotglp.scoring.evaluate import evaluate
from sotglp.settings import Preset, TrainConfig
from sotglp.training.fit import adapt
from sotglp.transport.plans import class_mass, prompt_overlap, prompt_similarity

SETTINGS = preset_for("tiny", Preset()).training
"""Training of the demo: the defaults of its backbone."""

BATCH_SIZE = 100


def variant(name: str, *, uses_shots: bool = True, **settings: Any) -> Method:
    """Return SOT-GLP with other settings as a method; without shots it keeps its initial weights."""
    return Method(name, name, "arXiv 2603.08347", SOTGLP.kind, settings=settings, uses_shots=uses_shots)


METHODS = (
    variant("zero-shot", branches="global", n_global_prompts=1, uses_shots=False),
    variant("global only", branches="global"),
    variant("per-prompt top-k", matching="per-prompt"),
    variant("SOT-GLP, projection-free", learn_projection=False),
    variant("SOT-GLP"),
)


class DemoSets(NamedTuple):
    """Test pictures of the classes, with their ground truth, and out-of-distribution sets by name."""

    pictures: Pictures
    targets: NDArray[np.int64]
    images: ImageSet
    others: dict[str, ImageSet]


def draw_shots_of_task(shots: int, seed: int) -> ImageSet:
    """Draw labelled training pictures, ``shots`` per class."""
    pictures, targets = draw_class_pictures(shots, seed)
    return image_set(pictures.images, targets)


def draw_test_sets(per_class: int, n_others: int, seed: int) -> DemoSets:
    """Draw test pictures, and near, mid and far OOD pictures; smaller seeds are those of training."""
    pictures, targets = draw_class_pictures(per_class, seed)
    others = {
        "near": image_set(draw_near(n_others, seed).images),
        "mid": image_set(draw_mid(n_others, seed).images),
        "far": image_set(draw_far(n_others, seed)),
    }
    return DemoSets(pictures, targets, image_set(pictures.images, targets), others)


def fit_method(
    method: Method, backbone: Backbone, train: ImageSet, settings: TrainConfig, *, show_progress: bool = False
) -> SOTGLP:
    """Return the model of a method, trained on ``train`` if the method uses shots."""
    names = few_shot_task().names
    config, _ = method.settings_on(Preset(), {})
    if not method.uses_shots:
        return SOTGLP(backbone, names, **config.model_dump()).eval()
    fitted = adapt(backbone, train, config, settings, classes=names, show_progress=show_progress)
    return cast(SOTGLP, fitted.model)


def evaluate_method(model: SOTGLP, sets: DemoSets) -> dict[str, Any]:
    """Evaluate a model: :func:`sotglp.scoring.evaluate.evaluate`, the Wilson ``interval`` (95 %) of the accuracy, and
    ``local`` from :func:`measure_prompts`, None without local prompts.
    """
    result = evaluate(model, sets.images, sets.others)
    n_correct = round(result["accuracy"] * result["n"])
    interval = binomtest(n_correct, result["n"]).proportion_ci(method="wilson")
    result["interval"] = (float(interval.low), float(interval.high))
    result["local"] = measure_prompts(model, sets) if model.local_prompts is not None else None
    return result


@torch.no_grad()
def measure_prompts(model: SOTGLP, sets: DemoSets) -> dict[str, float]:
    """Measure where the local prompts of the true class put their mass, averaged over pictures.

    ``mass_on_parts``: share of true parts in the patches, weighted by transport mass; ``chance``: the same for uniform
    mass; ``overlap`` of two prompts; ``similarity``: mean cosine between the prompts of a class.
    """
    backbone = model.backbone
    shares = part_shares(sets.pictures, sets.targets, backbone.patch_grid)
    on_parts, overlaps = [], []
    for start in range(0, len(sets.targets), BATCH_SIZE):
        chosen = slice(start, start + BATCH_SIZE)
        pixels = pixels_of(backbone, sets.images.images[chosen])
        mass = mass_of_class(model, pixels, torch.from_numpy(sets.targets[chosen]))
        overlaps.append(prompt_overlap(mass))
        on_parts.append((mass.sum(dim=-1) / mass.sum(dim=(1, 2))[:, None] * shares[chosen]).sum(dim=-1))
    return {
        "mass_on_parts": float(torch.cat(on_parts).mean()),
        "chance": float(shares.mean()),
        "overlap": float(torch.cat(overlaps).mean()),
        "similarity": float(prompt_similarity(model.encode_text().local).mean()),
    }


def mass_of_class(model: SOTGLP, pixels: Tensor, classes: Tensor) -> Tensor:
    """Return the mass of each prompt on each patch (B, P, N), in the plan of one class per image, (B,)."""
    plan, support = model.transport(pixels)
    return class_mass(plan, support, classes, model.backbone.n_patches)


def pixels_of(backbone: Backbone, pictures: Iterable[Any]) -> Tensor:
    """Preprocess PIL images, (B, 3, H, W)."""
    return torch.stack([backbone.preprocess(picture) for picture in pictures])


def part_shares(pictures: Pictures, targets: NDArray[np.int64], grid: tuple[int, int]) -> Tensor:
    """Return the share of each patch's pixels that show a part of the picture's class, (n, P)."""
    belongs = parts_of_class(pictures, targets)[:, None]  # (n, 1, S)
    return torch.from_numpy((slot_shares(pictures, grid) * belongs).sum(axis=-1)).float()


def parts_of_class(pictures: Pictures, targets: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which slots contain a part of the picture's class, not a distractor, (n, S)."""
    wanted = few_shot_task().parts[targets]  # (n, 3, 3)
    alike = (pictures.parts[:, :, None] == wanted[:, None]).all(axis=-1).any(axis=-1)
    result: NDArray[np.bool_] = alike & (pictures.parts[:, :, 0] != NO_PART)
    return result


def compare_methods(
    backbone: Backbone, train: ImageSet, sets: DemoSets, settings: TrainConfig, *, show_progress: bool = False
) -> tuple[dict[str, dict[str, Any]], SOTGLP]:
    """Fit and evaluate all methods; return results by name, with ``seconds`` of fitting, and the last model."""
    results = {}
    for method in METHODS:
        started = time.perf_counter()
        model = fit_method(method, backbone, train, settings, show_progress=show_progress)
        seconds = time.perf_counter() - started
        results[method.name] = {**evaluate_method(model, sets), "seconds": seconds if method.uses_shots else 0.0}
    return results, model
