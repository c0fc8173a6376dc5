"""Predictions of one shard, by a model that each process loads once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sotglp.backbone.precision import choose_device, half_dtype
from sotglp.console.output import UNKNOWN
from sotglp.engines.threads import map_ahead, products_on_one_thread
from sotglp.errors import SotglpError, UnreadableImageError
from sotglp.features.shards import decode_shard
from sotglp.features.views import encode_pixels
from sotglp.methods.base import AdaptedModel
from sotglp.methods.text_features import TextFeatures
from sotglp.model_file.load import load_model
from sotglp.scoring.calibration import Calibration
from sotglp.scoring.decide import decide
from sotglp.scoring.predict import predict_encoded, text_of
from sotglp.settings import InferenceConfig
from sotglp.shards.notes import ShardNotes
from sotglp.shards.pixels import PixelBatch
from sotglp.shards.shard import Shard

_HASH_BYTES = 2**20


@dataclass(frozen=True)
class BulkSettings:
    """All that predictions of shards depend on besides the images; it can be sent to another process.

    Attributes
    ----------
    model_file : str
        The model.
    inference : InferenceConfig
        How images are read and scored; ``workers`` are threads that decode.
    pretrained : str or None
        Tag or file of the backbone's weights, in place of the one that the file names.
    device : str
        See :func:`sotglp.backbone.precision.choose_device`.
    label_unknown : bool
        Whether rejected images get the label "unknown".
    coverage : float or None
        Share of images whose set should contain the true class; None computes no sets.
    sets : dict
        Arguments of :meth:`sotglp.scoring.calibration.Calibration.sets`.
    skip_unreadable : bool
        Skip images that can't be read.
    """

    model_file: str
    inference: InferenceConfig
    pretrained: str | None = None
    device: str = "auto"
    label_unknown: bool = True
    coverage: float | None = None
    sets: dict[str, Any] = field(default_factory=dict)
    skip_unreadable: bool = False

    def fingerprint(self) -> dict[str, Any]:
        """Return what equal rows need: a digest of the model file, and the settings that change a row."""
        digest = hashlib.sha256()
        with open(self.model_file, "rb") as file:
            while block := file.read(_HASH_BYTES):
                digest.update(block)
        device = choose_device(self.device)
        half = half_dtype(device, self.inference.precision)
        return {
            "model": f"sha256:{digest.hexdigest()}",
            "ood_method": self.inference.ood_method,
            "temperature": self.inference.temperature,
            "batch_size": self.inference.batch_size,
            "device": device.type,
            "arithmetic": "float32" if half is None else str(half).removeprefix("torch."),
            "label_unknown": self.label_unknown,
            "coverage": self.coverage,
            "sets": self.sets if self.coverage is not None else None,
        }


@dataclass(frozen=True)
class BulkContext:
    """A loaded model with the texts of its classes, for any number of shards of one process.

    ``n_threads`` threads predict, each a batch of its own.
    """

    settings: BulkSettings
    models: tuple[AdaptedModel, ...]
    texts: tuple[TextFeatures, ...]
    classes: tuple[str, ...]
    calibration: Calibration | None
    n_threads: int = 1


@dataclass(frozen=True)
class ShardPredictions:
    """Predictions of the n images of a shard that could be read, in order, and what is left out of it.

    Attributes
    ----------
    paths : list of str
        Path or key of each image.
    most_probable : NDArray
        Class index, (n,).
    probabilities, ood_scores : NDArray
        Probability of that class, and the score, larger for more familiar images, (n,).
    is_unknown : NDArray or None
        Whether each image is rejected, (n,); None without a threshold.
    sets : list of tuples of int, or None
        Class indices of each prediction set.
    unreadable : list of UnreadableImageError
        Images that can't be read.
    notes : ShardNotes
        Other files, and images that lose values or pages.
    """

    paths: list[str]
    most_probable: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    ood_scores: NDArray[np.float32]
    is_unknown: NDArray[np.bool_] | None
    sets: list[tuple[int, ...]] | None
    unreadable: list[UnreadableImageError]
    notes: ShardNotes

    def labels(self, settings: BulkSettings, classes: tuple[str, ...]) -> list[str]:
        """Return the label of each image: its class, or "unknown"."""
        rejected = np.zeros(len(self.paths), bool) if self.is_unknown is None else self.is_unknown
        hides = settings.label_unknown
        pairs = zip(self.most_probable.tolist(), rejected.tolist(), strict=True)
        return [UNKNOWN if hides and is_unknown else classes[index] for index, is_unknown in pairs]


def load_context(settings: BulkSettings) -> BulkContext:
    """Load the model, once for all shards of a process."""
    n_threads = torch.get_num_threads()
    with products_on_one_thread():
        loaded = load_model(
            Path(settings.model_file), pretrained=settings.pretrained, device=choose_device(settings.device)
        )
        folds = loaded.calibration.fold_models if loaded.calibration and settings.coverage is not None else ()
        if folds and loaded.model.backbone.adapts_images:
            raise SotglpError(
                f"{settings.model_file} is a {loaded.model.kind} model calibrated by cross-fitting, whose folds have "
                "their own image towers, and shards are encoded once: calibrate on held-out images for prediction sets"
            )
        models = (loaded.model, *folds)
        texts = tuple(text_of(model, settings.inference) for model in models)
    if loaded.model.backbone.device.type != "cpu":
        n_threads = 1
    classes = tuple(map(str, loaded.record.classes))
    return BulkContext(settings, models, texts, classes, loaded.calibration, n_threads)


def predict_shard(context: BulkContext, shard: Shard, report: Callable[[int], None] | None = None) -> ShardPredictions:
    """Predict the images of a shard, in batches of a fixed size from its first image on.

    The rows therefore depend on the shard and the settings alone, whatever the process and its number of threads:
    products of matrices, whose last bits depend on theirs, run on one, and each thread predicts a batch of its own.
    ``report`` is called with the number of images of each batch. Raise an UnreadableImageError at the first image that
    can't be read unless ``skip_unreadable`` is set.
    """
    settings, model = context.settings, context.models[0]
    inference = settings.inference
    notes, unreadable, paths = ShardNotes(), list[UnreadableImageError](), list[str]()
    columns: list[tuple[NDArray[Any], ...]] = []
    sets: list[tuple[int, ...]] = []
    batches = decode_shard(
        model.backbone,
        shard,
        inference,
        ranges=model.value_ranges,
        notes=notes,
        unreadable=unreadable if settings.skip_unreadable else None,
    )
    predicted = map_ahead(
        partial(_predict_batch, context), batches, n_threads=context.n_threads, n_ahead=context.n_threads + 1
    )
    with products_on_one_thread(), closing(batches), closing(predicted):
        for names, row_columns, members in predicted:
            paths += names
            columns.append(row_columns)
            sets += members
            if report is not None:
                report(len(names))
    empty = (np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.float32), np.empty(0, bool))
    best, probabilities, scores, rejected = map(np.concatenate, zip(empty, *columns, strict=True))
    has_threshold = inference.threshold_of(context.calibration) is not None
    return ShardPredictions(
        paths,
        best,
        probabilities,
        scores,
        rejected if has_threshold else None,
        None if settings.coverage is None else sets,
        unreadable,
        notes,
    )


def _predict_batch(
    context: BulkContext, decoded: tuple[PixelBatch, Tensor]
) -> tuple[list[str], tuple[NDArray[Any], ...], list[tuple[int, ...]]]:
    """Return the names of images, their columns (class index, probability, score, is_unknown) and their sets."""
    batch, pixels = decoded
    settings, n = context.settings, len(batch.names)
    inference = settings.inference
    encoded = encode_pixels(context.models[0].backbone, pixels, inference.precision)
    by_model = predict_encoded(context.models, context.texts, np.arange(n), encoded, inference, n_scored=1)
    decided = decide(by_model, context.calibration, inference, settings.coverage, settings.sets)
    rejected = decided.is_unknown if decided.is_unknown is not None else np.zeros(n, bool)
    best = decided.probabilities.argmax(axis=1)
    sets = [] if decided.sets is None else [tuple(members.nonzero()[0].tolist()) for members in decided.sets]
    return batch.names, (best, decided.probabilities.max(axis=1), by_model[0].ood_scores, rejected), sets


def shard_predictor(
    settings: BulkSettings, report: Callable[[int], None] | None = None
) -> Callable[[Shard], ShardPredictions]:
    """Load the model, once for all shards of a process, and return the function that predicts one."""
    return partial(predict_shard, load_context(settings), report=report)
