"""Choose an OOD score by leaving classes out in turn: their shots are the unknown images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from sotglp.backbone import Backbone
from sotglp.features.encode import encode_images
from sotglp.features.view_cache import CacheDir
from sotglp.images.few_shot import deal_folds
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel
from sotglp.scoring.choice import Choice, choose
from sotglp.scoring.choose_method import n_steps as steps_of_fit
from sotglp.scoring.metrics import ood_metrics
from sotglp.scoring.ood import Evidence, score_evidence
from sotglp.scoring.predict import text_of
from sotglp.settings import SHOT_SCORES, InferenceConfig, OodMethod, Settings, TrainConfig
from sotglp.training.fit import adapt

GROUPS = 3
"""Groups of classes that are left out in turn, and folds of the shots."""

CANDIDATES: tuple[OodMethod, ...] = (
    *("gl-mcm", "mcm", "msp", "max-logit", "energy", "gen"),
    *("knn", "mahalanobis", "mahalanobis-patches", "subspace"),
)
"""Scores that are compared; the others are variants, or can't be exported."""

LEAST_CLASSES = 4
"""With fewer, a model of the classes that are left could have a single class."""


def choose_score(
    backbone: Backbone,
    images: ImageSet,
    model_config: Settings,
    config: TrainConfig,
    inference: InferenceConfig,
    *,
    cache_dir: CacheDir = None,
    show_progress: bool = False,
) -> Choice:
    """Choose the OOD score with the largest mean AUROC over groups of left-out classes.

    For each group, a model of the other classes is trained on two of three folds of their shots. Their third fold are
    images of known classes, all shots of the group those of unknown ones: the model has seen neither. (Classes that are
    only removed from a trained model were negatives of the others, which raised the AUROC of the energy by 13 points or
    more in a trial.) With fewer than ``LEAST_CLASSES`` classes or a class with a single shot, the preferred score is
    chosen.

    Parameters
    ----------
    backbone, images
        The backbone, and n labelled shots.
    model_config, config
        Settings of the model and of its training.
    inference : InferenceConfig
        How images are read; its score, at its temperature, is the preferred one.
    cache_dir, show_progress
        See :func:`sotglp.training.fit.adapt`.
    """
    preferred, classes = inference.ood_method, images.classes
    targets = images.targets(classes)
    folds = deal_folds(targets, GROUPS)
    group_of = np.arange(len(classes)) % GROUPS
    if len(classes) < LEAST_CLASSES or not folds.any():
        return choose("ood_method", {preferred: np.empty(0)}, preferred, measure="AUROC")
    names = [name for name in CANDIDATES if config.remember or name not in SHOT_SCORES]
    names = [preferred, *(name for name in names if name != preferred)]
    areas: dict[str, list[float]] = {name: [] for name in names}
    n_steps = 0
    for group in range(GROUPS):
        is_unknown = group_of[targets] == group
        is_held_out = folds == group % (folds.max() + 1)
        shots = images.take(~is_unknown & ~is_held_out)
        model = adapt(
            backbone,
            shots,
            model_config,
            config.model_copy(update={"shots": None}),
            classes=[name for index, name in enumerate(classes) if group_of[index] != group],
            cache_dir=cache_dir,
            show_progress=show_progress,
            title=f"choosing a score, {group + 1} of {GROUPS}",
        ).model
        n_steps += steps_of_fit(config, len(shots)) if model.learned else 0
        known, unknown = (
            _scores(model, images.take(mask), names, inference, cache_dir)
            for mask in (~is_unknown & is_held_out, is_unknown)
        )
        for name in names:
            areas[name].append(float(ood_metrics(known[name], unknown[name])["auroc"]))
    results = {name: np.array(own) for name, own in areas.items()}
    cost = n_steps / steps_of_fit(config, len(images))
    return choose("ood_method", results, preferred, measure="AUROC", cost=cost)


@torch.no_grad()
def _scores(
    model: AdaptedModel,
    images: ImageSet,
    names: Sequence[OodMethod],
    inference: InferenceConfig,
    cache_dir: CacheDir,
) -> dict[str, NDArray[np.float64]]:
    """Scores of n images by name, (n,), from one pass."""
    text = text_of(model, inference)
    scores: dict[str, NDArray[np.float64]] = {name: np.empty(len(images)) for name in names}
    for indices, encoded in encode_images(model.backbone, images, inference, cache_dir):
        encoded = encoded.to(model.backbone.device)
        evidence = Evidence(model.compare(encoded, text), model, encoded, text)
        for name in names:
            scores[name][indices] = score_evidence(evidence, name, inference.temperature).cpu().numpy()
    return scores
