"""Compare methods on the photographs of the demo, with the same backbone, shots, encoded views and evaluation."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from sotglp.backbone import Backbone
from sotglp.backbone_defaults import PHOTO, default_method, default_ood_method
from sotglp.demo.comparison import variant
from sotglp.demo.photo_set import UNKNOWN, PhotoSets
from sotglp.features.distributed import Processes
from sotglp.features.encode import encode_image_features
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel
from sotglp.methods.method import find_method
from sotglp.methods.registry import build_model
from sotglp.methods.sot_glp import SOTGLP
from sotglp.scoring.evaluate import evaluate_predictions
from sotglp.scoring.intervals import auroc_interval, share
from sotglp.scoring.predict import Predictions, predict_each
from sotglp.settings import SHOT_SCORES, InferenceConfig, Preset, Settings, TrainConfig
from sotglp.training.batches import FeatureSource
from sotglp.training.fit import Fitted, adapt, drawn_shots
from sotglp.training.fusion import add_residual

METHODS = {
    "zero-shot": find_method("zero-shot"),
    "global prompts only": variant("global prompts only", branches="global"),
    "per-prompt top-k": variant("per-prompt top-k", matching="per-prompt", learn_projection=False),
    "linear probe": find_method("linear-probe"),
    "SOT-GLP, projection-free": find_method("sot-glp-projection-free"),
    "SOT-GLP": find_method("sot-glp"),
    "SOT-GLP + GDA": find_method(default_method(PHOTO)),
}
"""The methods by their names in the table; the last one, that of ``sotglp fit``, is written as the demo's model.

Per-prompt top-k is compared with projection-free SOT-GLP: a projection takes most of the time of a fit.
"""


class Comparison(NamedTuple):
    """Results by method, the last model with its history, and the seconds in which the shots were encoded."""

    results: dict[str, dict[str, Any]]
    fitted: Fitted
    encoding_seconds: float


def compare_methods(
    backbone: Backbone,
    photos: PhotoSets,
    settings: TrainConfig,
    inference: InferenceConfig,
    *,
    show_progress: bool = False,
) -> Comparison:
    """Fit all methods on the shots and evaluate them.

    Encoded views of the shots are stored once in a temporary folder and shared by all methods, and test photos are
    encoded once for all that have the same score. Results are those of :func:`sotglp.scoring.evaluate.evaluate` with
    ``interval`` (95 %, Wilson), ``auroc_interval`` (95 %, DeLong) of the unknown photos, ``ood_method``, and
    ``seconds`` of fitting without encoding.
    """
    settings_of = {name: method.settings_on(Preset(training=settings), {}) for name, method in METHODS.items()}
    fitted: dict[str, Fitted] = {}
    seconds = dict.fromkeys(METHODS, 0.0)
    with TemporaryDirectory(prefix="sotglp-demo-") as folder:
        cache = Path(folder)
        started = time.perf_counter()
        _encode_shots(backbone, photos.train, settings_of, cache, show_progress=show_progress)
        encoding_seconds = time.perf_counter() - started
        for name, method in METHODS.items():
            config, training = settings_of[name]
            started = time.perf_counter()
            if getattr(config, "residual", None) is not None:
                fitted[name] = _with_residual(fitted["SOT-GLP"], config, training, cache)
                seconds[name] = seconds["SOT-GLP"] + time.perf_counter() - started
            elif method.uses_shots:
                fitted[name] = adapt(
                    backbone, photos.train, config, training, cache_dir=cache, show_progress=show_progress, title=name
                )
                seconds[name] = time.perf_counter() - started
            else:
                model = build_model(backbone, photos.train.classes, config).eval()
                fitted[name] = Fitted(model, [], photos.train)
    models = {name: one.model for name, one in fitted.items()}
    results = evaluate_models(models, photos, inference)
    return Comparison(
        {name: {**results[name], "seconds": seconds[name]} for name in METHODS}, fitted[name], encoding_seconds
    )


def _with_residual(trained: Fitted, config: Settings, training: TrainConfig, cache: Path) -> Fitted:
    """Add a residual to a copy of a trained model, as a fit would: its training is the same without one."""
    plain = trained.model
    model = build_model(plain.backbone, plain.class_names, config).inherit(plain, range(len(plain.class_names)))
    assert isinstance(model, SOTGLP)
    model.shots, model.value_ranges = plain.shots, plain.value_ranges
    add_residual(model, trained.images, training.inference_config(), cache_dir=cache)
    return Fitted(model.eval(), trained.history, trained.images)


def evaluate_models(
    models: Mapping[str, AdaptedModel], photos: PhotoSets, inference: InferenceConfig
) -> dict[str, dict[str, Any]]:
    """Evaluate models of one backbone on test photos and unknown photos; see :func:`compare_methods`."""
    results: dict[str, dict[str, Any]] = {}
    scored = {name: scored_by(model, inference) for name, model in models.items()}
    for one in dict.fromkeys(scored.values()):
        names = [name for name in models if scored[name] == one]
        alike = [models[name] for name in names]
        test = predict_each(alike, photos.test, one, title="evaluating")
        unknown = predict_each(alike, photos.unknown, one, title="scoring unknown photos")
        for name, inside, outside in zip(names, test, unknown, strict=True):
            results[name] = _result(inside, outside, photos.test.targets(models[name].class_names), one)
    return results


def scored_by(model: AdaptedModel, inference: InferenceConfig) -> InferenceConfig:
    """Return ``inference``, with a score that needs no shots if the model has none."""
    if model.shots is None and inference.ood_method in SHOT_SCORES:
        return inference.model_copy(update={"ood_method": default_ood_method(model.backbone.name, has_shots=False)})
    return inference


def _result(
    inside: Predictions, outside: Predictions, targets: np.ndarray[Any, np.dtype[np.int64]], inference: InferenceConfig
) -> dict[str, Any]:
    result = evaluate_predictions(inside, targets, {UNKNOWN: outside}, inference)
    accuracy = share(int((inside.probabilities.argmax(axis=1) == targets).sum()), len(targets))
    area = auroc_interval(inside.ood_scores, outside.ood_scores)
    result["ood"][UNKNOWN]["auroc_interval"] = None if area is None else list(area)
    result["interval"] = None if accuracy.interval is None else list(accuracy.interval)
    result["ood_method"] = inference.ood_method
    return result


def _encode_shots(
    backbone: Backbone,
    train: ImageSet,
    settings_of: Mapping[str, tuple[Settings, TrainConfig]],
    cache: Path,
    *,
    show_progress: bool,
) -> None:
    """Fill the cache with all that the methods look up: centre crops and training views of the shots."""
    for config, training in settings_of.values():
        shots = drawn_shots(train, training)
        encode_image_features(backbone, shots, training.inference_config(), cache)
        model = build_model(backbone, train.classes, config, training.seed)
        if model.learned:
            FeatureSource(
                model, shots, training, Processes(backbone.device), cache_dir=cache, show_progress=show_progress
            )
