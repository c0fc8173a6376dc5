"""Evaluate a model on labelled images in shards, one shard after another."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sotglp.backbone import Backbone
from sotglp.console.progress import progress_bar
from sotglp.engines.threads import map_on_cores
from sotglp.errors import SotglpError, SotglpWarning, UnreadableImageError
from sotglp.features.rows import EncodedImages
from sotglp.features.shards import decode_shard
from sotglp.features.views import encode_pixels
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel
from sotglp.scoring.arrays import join_batches
from sotglp.scoring.baseline import warn_if_weak, zero_shot_beside
from sotglp.scoring.calibration import Calibration
from sotglp.scoring.evaluate import accuracy_by_class, evaluate_outcomes
from sotglp.scoring.outcomes import Outcomes, outcomes_of
from sotglp.scoring.predict import predict, predict_encoded, text_of
from sotglp.settings import InferenceConfig, Precision
from sotglp.shards.notes import ShardNotes
from sotglp.shards.pixels import PixelBatch
from sotglp.shards.shard import Shard


def evaluate_shards(
    model: AdaptedModel,
    shards: Sequence[Shard],
    ood_sets: Mapping[str, ImageSet],
    inference: InferenceConfig,
    *,
    calibration: Calibration | None = None,
    unreadable: list[UnreadableImageError] | None = None,
) -> dict[str, Any]:
    """Evaluate a model as :func:`sotglp.scoring.evaluate.evaluate` does by class and with its baseline.

    Of each image, :class:`sotglp.scoring.outcomes.Outcomes` keeps some numbers. Raise a SotglpError if an image has no
    label, or one that isn't a class of the model.
    """
    zero_shot = zero_shot_beside(model)
    if zero_shot and model.backbone.adapts_images:
        warnings.warn(
            f"a {model.kind} model has its own image tower and shards are encoded once, so they are not classified by "
            "zero-shot beside it: evaluate a folder for that",
            SotglpWarning,
            stacklevel=2,
        )
        zero_shot = None
    models = [model, *([zero_shot] if zero_shot else [])]
    texts = [text_of(one, inference) for one in models]
    index_of = {name: index for index, name in enumerate(model.class_names)}
    notes = ShardNotes()
    parts: list[Outcomes] = []
    beside: list[NDArray[np.bool_]] = []
    n_images = 0
    with progress_bar("evaluating", len(shards), "shards", show=inference.show_progress) as advance:
        for shard in shards:
            batches = decode_shard(
                model.backbone, shard, inference, ranges=model.value_ranges, notes=notes, unreadable=unreadable
            )
            encode = partial(_encode, model.backbone, inference.precision)
            for batch, encoded in map_on_cores(encode, batches, model.backbone.device):
                targets = _targets(batch, shard, index_of)
                own, *others = predict_encoded(models, texts, np.arange(len(targets)), encoded, inference, n_scored=1)
                parts.append(outcomes_of(own, targets, calibration=calibration))
                beside += [other.probabilities.argmax(axis=1) == targets for other in others]
                n_images += len(targets)
                advance(0, f"{n_images} images")
            advance(1, f"{n_images} images")
    if not parts:
        raise SotglpError(f"none of the images can be read: {unreadable[0] if unreadable else 'there are none'}")
    notes.warn()
    outcomes = join_batches(parts)
    scores = {
        name: predict(model, some, inference, text=texts[0], unreadable=unreadable, title=f"scoring {name}").ood_scores
        for name, some in ood_sets.items()
    }
    result = evaluate_outcomes(outcomes, scores, inference, calibration=calibration)
    zero_shot_right = np.concatenate(beside) if beside else None
    warn_if_weak(outcomes.is_right, zero_shot_right, outcomes.targets)
    result["accuracy_zero_shot"] = None if zero_shot_right is None else float(zero_shot_right.mean())
    result["per_class"] = accuracy_by_class(outcomes.predicted, outcomes.targets, model.class_names)
    return result


def _encode(
    backbone: Backbone, precision: Precision, decoded: tuple[PixelBatch, Tensor]
) -> tuple[PixelBatch, EncodedImages]:
    batch, pixels = decoded
    return batch, encode_pixels(backbone, pixels, precision)


def _targets(batch: PixelBatch, shard: Shard, index_of: Mapping[str, int]) -> NDArray[np.int64]:
    for name, label in zip(batch.names, batch.labels, strict=True):
        if label is None:
            raise SotglpError(
                f"{shard.name_of(name)} has no label: evaluate needs .cls, .json or .txt beside each image of an "
                "archive, a column label of a table (or --label-column), or class folders"
            )
        if label not in index_of:
            raise SotglpError(
                f"{shard.name_of(name)} has the label {label}, which isn't among the {len(index_of)} classes of the "
                "model; rename it, or name numbers in a file classnames.txt beside the archives"
            )
    return np.array([index_of[str(label)] for label in batch.labels], dtype=np.int64)
