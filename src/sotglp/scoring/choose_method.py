"""Choose a method or a learning rate by cross-fitting on the shots; closed forms are fitted on shared features."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sotglp.backbone import Backbone
from sotglp.errors import SotglpError, SotglpWarning
from sotglp.features.encode import encode_image_features
from sotglp.features.view_cache import CacheDir
from sotglp.images.few_shot import deal_folds
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel
from sotglp.methods.registry import build_model
from sotglp.methods.zero_shot import ZeroShot
from sotglp.scoring.choice import Choice, choose, clear_among
from sotglp.scoring.cross_fit import cross_fit, fold_training
from sotglp.scoring.kept_choices import KeptChoices
from sotglp.settings import Settings, TrainConfig

FOLDS = 3
"""Most folds. The models of trained candidates take half the steps of a fit for all folds, by ``fold_training``."""

FACTORS = (1.0, 0.25, 4.0)
"""Candidates for the learning rate, as multiples of the configured one."""

RATE_FOLDS = 2

REPEATS = 2
"""Splits into folds that closed forms are averaged over; each takes a fraction of a second."""


def choose_settings(
    backbone: Backbone,
    images: ImageSet,
    candidates: Mapping[str, tuple[Settings, TrainConfig]],
    *,
    rate_is_open: bool,
    kept: KeptChoices | None = None,
    cache_dir: CacheDir = None,
    show_progress: bool = False,
) -> tuple[Settings, TrainConfig, tuple[Choice, ...]]:
    """Choose the method if there are several candidates, then the learning rate of its training if that is open.

    Return the settings of model and training, and what was chosen. A method without training has no learning rate to
    choose, with a SotglpWarning. ``kept`` holds choices that were made before; other arguments are as for
    :func:`choose_method`.
    """
    kept = kept or KeptChoices()
    options: dict[str, Any] = {"cache_dir": cache_dir, "show_progress": show_progress}
    choices = []
    name, (model_config, config) = next(iter(candidates.items()))
    if len(candidates) > 1:
        by_method = partial(choose_method, backbone, images, candidates, **options)
        choices.append(kept.get("method", backbone, images, candidates, by_method))
        name = choices[-1].chosen
        model_config, config = candidates[name]
    if rate_is_open and not build_model(backbone, images.classes, model_config).learned:
        warnings.warn(
            f"the method {name} has no training, so that no learning rate is chosen (--lr auto, learning_rate='auto')",
            SotglpWarning,
            stacklevel=2,
        )
    elif rate_is_open:
        by_rate = partial(choose_rate, backbone, images, model_config, config, **options)
        choices.append(kept.get("learning_rate", backbone, images, {name: (model_config, config)}, by_rate))
        config = config.model_copy(update={"learning_rate": float(choices[-1].chosen)})
    return model_config, config, tuple(choices)


def choose_method(
    backbone: Backbone,
    images: ImageSet,
    candidates: Mapping[str, tuple[Settings, TrainConfig]],
    *,
    cache_dir: CacheDir = None,
    show_progress: bool = False,
) -> Choice:
    """Choose the method for labelled shots by the accuracy on shots that its models were not fitted on.

    Methods without training are fitted on folds of features that are encoded once. Methods with training are trained on
    the folds, for half the steps of one fit (:func:`sotglp.scoring.cross_fit.fold_training`). If a class has a single
    image, nothing can be held out: the preferred method is chosen, with a SotglpWarning.

    Parameters
    ----------
    backbone, images
        The backbone, and the n shots.
    candidates : mapping of str to (Settings, TrainConfig)
        Settings of each method by its name; the first one is preferred. All have the same seed.
    cache_dir, show_progress
        See :func:`sotglp.training.fit.adapt`.
    """
    preferred, (_, first) = next(iter(candidates.items()))
    targets = images.targets(images.classes)
    n_folds = n_folds_or_warn("method", preferred, targets, FOLDS)
    if n_folds == 1:
        return choose("method", {preferred: np.empty(0)}, preferred)
    features = encode_image_features(backbone, images, first.inference_config(), cache_dir)
    correct: dict[str, NDArray[np.float64]] = {}
    steps: dict[str, int] = {}
    of_folds: dict[str, int] = {}
    for name, (model_config, config) in candidates.items():
        model = build_model(backbone, images.classes, model_config, config.seed)
        if isinstance(model, ZeroShot) and not model.learned:
            correct[name] = closed_form_correct(model, features, targets, config.seed)
            continue
        steps[name] = n_steps(config, len(images))
        shortened = fold_training(config, len(images), n_folds)
        of_folds[name] = n_folds * n_steps(shortened, len(images) - len(images) // n_folds)
        correct[name] = trained_correct(
            model, images, config, n_folds, shorten=True, cache_dir=cache_dir, show_progress=show_progress
        )
    whole = max(steps.values(), default=0)
    cost = sum(of_folds.values()) / whole if whole else 0.0
    return choose("method", correct, preferred, cost=cost, clear=clear_among(len(correct) - 1))


def choose_rate(
    backbone: Backbone,
    images: ImageSet,
    model_config: Settings,
    config: TrainConfig,
    *,
    cache_dir: CacheDir = None,
    show_progress: bool = False,
) -> Choice:
    """Choose the learning rate for labelled shots among ``FACTORS`` times the configured one, which is preferred.

    Each rate is cross-fitted in ``RATE_FOLDS`` folds; one that diverges has no correct shot. With images of two shots
    of each class, this takes as many more fits' steps as there are rates. Arguments are as for :func:`choose_method`.
    """
    targets = images.targets(images.classes)
    preferred = str(config.learning_rate)
    n_folds = n_folds_or_warn("learning rate", preferred, targets, RATE_FOLDS)
    if n_folds == 1:
        return choose("learning_rate", {preferred: np.empty(0)}, preferred)
    results = {}
    for factor in FACTORS:  # the preferred one first, whose errors are those of any fit
        rate = factor * config.learning_rate
        model = build_model(backbone, images.classes, model_config, config.seed)
        changed = config.model_copy(update={"learning_rate": rate})
        try:
            results[str(rate)] = trained_correct(
                model, images, changed, n_folds, cache_dir=cache_dir, show_progress=show_progress
            )
        except SotglpError:
            if factor == 1:
                raise
            results[str(rate)] = np.zeros(len(images))
    return choose("learning_rate", results, preferred, cost=len(FACTORS) * (n_folds - 1))


def n_folds_or_warn(what: str, preferred: str, targets: NDArray[np.int64], most: int) -> int:
    """Return the number of folds for class indices (n,), or 1 with a SotglpWarning if a class has a single image."""
    n_folds = int(deal_folds(targets, most).max()) + 1
    if n_folds == 1:
        warnings.warn(
            f"a class has a single image, so that none can be held out to choose a {what}: {preferred} is used, as "
            f"where no {what} is clearly better; give two images of each class, or name a {what}",
            SotglpWarning,
            stacklevel=3,
        )
    return n_folds


@torch.no_grad()
def closed_form_correct(
    model: ZeroShot, features: Tensor, targets: NDArray[np.int64], seed: int
) -> NDArray[np.float64]:
    """Compute the share of splits in which each shot is predicted correctly when it is held out, (n,).

    The model is fitted on image features (n, d) and class indices (n,) of the other folds; it ends as that of the last
    fold.
    """
    truth = torch.from_numpy(targets)
    total = np.zeros(len(targets))
    for repeat in range(REPEATS):
        order = np.random.default_rng([seed, repeat]).permutation(len(targets))
        folds = np.empty_like(targets)
        folds[order] = deal_folds(targets[order], FOLDS)
        for fold in range(int(folds.max()) + 1):
            learned, held_out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            model.fit_features(features[learned], truth[learned])
            cosines = model.global_cosines(features[held_out].to(model.backbone.device), model.encode_text())
            total[held_out] += cosines.argmax(dim=1).cpu().numpy() == targets[held_out]
    return total / REPEATS


def trained_correct(
    model: AdaptedModel,
    images: ImageSet,
    config: TrainConfig,
    n_folds: int,
    *,
    shorten: bool = False,
    cache_dir: CacheDir,
    show_progress: bool,
) -> NDArray[np.float64]:
    """Compute whether each of n shots is predicted correctly by a model like this one, trained on other folds, (n,).

    ``shorten`` is that of :func:`sotglp.scoring.cross_fit.cross_fit`; learning rates are compared without it.
    """
    model.value_ranges = images.ranges
    crossed = cross_fit(
        model,
        images,
        config.model_copy(update={"remember": False}),
        config.inference_config().model_copy(update={"show_progress": show_progress}),
        n_folds=n_folds,
        shorten=shorten,
        cache_dir=cache_dir,
    )
    is_correct: NDArray[np.bool_] = crossed.predictions.probabilities.argmax(axis=1) == images.targets(images.classes)
    return is_correct.astype(np.float64)


def n_steps(config: TrainConfig, n_images: int) -> int:
    """Return the number of steps of a fit on ``n_images``."""
    return config.n_epochs(n_images) * config.steps_per_epoch(n_images)
