"""Methods side by side on the demonstration's task: the same backbone, pictures, training and evaluation."""

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
from sotglp.demo.task import draw_class_pictures, draw_far, draw_mid, draw_near, few_shot_task, image_set
from sotglp.demo.world import NO_PART, Pictures, slot_shares
from sotglp.images.image_set import ImageSet
from sotglp.methods.method import Method
from sotglp.methods.sot_glp import SOTGLP
from sotglp.scoring.evaluate import evaluate
from sotglp.settings import Preset, TrainConfig
from sotglp.training.fit import adapt
from sotglp.transport.plans import class_mass, prompt_overlap, prompt_similarity

SETTINGS = TrainConfig(epochs=20, learning_rate=0.2, augment=False)
"""Training of the demonstration; the learning rate was chosen on pictures of other seeds (docs/demo.md)."""

PICTURES_AT_ONCE = 100


def variant(name: str, *, uses_shots: bool = True, **settings: Any) -> Method:
    """SOT-GLP with other settings, as a method of its own; one that uses no shots stays as it starts."""
    return Method(name, name, "arXiv 2603.08347", SOTGLP.kind, settings=settings, uses_shots=uses_shots)


METHODS = (
    variant("zero-shot", branches="global", n_global_prompts=1, uses_shots=False),
    variant("global only", branches="global"),
    variant("per-prompt top-k", matching="per-prompt"),
    variant("SOT-GLP, projection-free", learn_projection=False),
    variant("SOT-GLP"),
)


class DemoSets(NamedTuple):
    """Pictures to test on: of the classes, with their truth, and of none of them, by name."""

    pictures: Pictures
    targets: NDArray[np.int64]
    images: ImageSet
    others: dict[str, ImageSet]


def draw_shots_of_task(shots: int, seed: int) -> ImageSet:
    """Labelled training pictures, ``shots`` of each class."""
    pictures, targets = draw_class_pictures(shots, seed)
    return image_set(pictures.images, targets)


def draw_test_sets(per_class: int, n_others: int, seed: int) -> DemoSets:
    """Test pictures that no training seed below ``seed`` draws, and near, mid and far ones of no class."""
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
    """The method's model, trained on all of ``train`` if it is one to train."""
    names = few_shot_task().names
    config, _ = method.settings_on(Preset(), {})
    if not method.uses_shots:
        return SOTGLP(backbone, names, **config.model_dump()).eval()
    fitted = adapt(backbone, train, config, settings, classes=names, show_progress=show_progress)
    return cast(SOTGLP, fitted.model)


def evaluate_method(model: SOTGLP, sets: DemoSets) -> dict[str, Any]:
    """Accuracy with its interval, out-of-distribution measures, and, with local prompts, what those looked at.

    Returns
    -------
    dict
        What :func:`sotglp.scoring.evaluate.evaluate` gives, ``interval`` (95 %, Wilson's), and ``local``: see
        :func:`look_at_prompts`; None without local prompts.
    """
    result = evaluate(model, sets.images, sets.others)
    n_correct = round(result["accuracy"] * result["n"])
    interval = binomtest(n_correct, result["n"]).proportion_ci(method="wilson")
    result["interval"] = (float(interval.low), float(interval.high))
    result["local"] = look_at_prompts(model, sets) if model.local_prompts is not None else None
    return result


@torch.no_grad()
def look_at_prompts(model: SOTGLP, sets: DemoSets) -> dict[str, float]:
    """Where the local prompts of the true class look, averaged over the class pictures.

    Returns
    -------
    dict
        ``mass_on_parts``: mean share of true parts' pixels in the patches, weighted by the plan's mass; ``chance``: the
        same with equal mass on all patches; ``overlap``: of the prompts' patches; ``similarity``: mean cosine between
        the prompts of a class; fractions from 0 to 1, the cosine from -1.
    """
    backbone = model.backbone
    shares = part_shares(sets.pictures, sets.targets, backbone.patch_grid)
    on_parts, overlaps = [], []
    for start in range(0, len(sets.targets), PICTURES_AT_ONCE):
        chosen = slice(start, start + PICTURES_AT_ONCE)
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
    """Mass that the plan of one class for each image puts on its patches, from each of the class's prompts.

    Parameters
    ----------
    model : SOTGLP
        With local prompts.
    pixels : Tensor
        Preprocessed images, (B, 3, H, W).
    classes : Tensor
        The class to look at for each image, (B,).

    Returns
    -------
    Tensor
        (B, P, N).
    """
    plan, support = model.transport(pixels)
    return class_mass(plan, support, classes, model.backbone.n_patches)


def pixels_of(backbone: Backbone, pictures: Iterable[Any]) -> Tensor:
    """PIL images as the backbone takes them, (B, 3, H, W)."""
    return torch.stack([backbone.preprocess(picture) for picture in pictures])


def part_shares(pictures: Pictures, targets: NDArray[np.int64], grid: tuple[int, int]) -> Tensor:
    """Share of each patch's pixels that show a part of the picture's class, (n, P)."""
    belongs = parts_of_class(pictures, targets)[:, None]  # (n, 1, S)
    return torch.from_numpy((slot_shares(pictures, grid) * belongs).sum(axis=-1)).float()


def parts_of_class(pictures: Pictures, targets: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which slots of a picture hold a part of its class, and not a stranger, (n, S)."""
    wanted = few_shot_task().parts[targets]  # (n, 3, 3)
    alike = (pictures.parts[:, :, None] == wanted[:, None]).all(axis=-1).any(axis=-1)
    result: NDArray[np.bool_] = alike & (pictures.parts[:, :, 0] != NO_PART)
    return result


def compare_methods(
    backbone: Backbone, train: ImageSet, sets: DemoSets, settings: TrainConfig, *, show_progress: bool = False
) -> tuple[dict[str, dict[str, Any]], SOTGLP]:
    """Fit and judge every method; returns the results by name, with ``seconds`` of fitting, and the last model."""
    results = {}
    for method in METHODS:
        started = time.perf_counter()
        model = fit_method(method, backbone, train, settings, show_progress=show_progress)
        seconds = time.perf_counter() - started
        results[method.name] = {**evaluate_method(model, sets), "seconds": seconds if method.uses_shots else 0.0}
    return results, model
