"""Predictions and OOD scores of models over sets of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sotglp.backbone.precision import autocast
from sotglp.console.progress import progress_bar
from sotglp.errors import SotglpError, UnreadableImageError
from sotglp.features.encode import encode_images
from sotglp.features.rows import EncodedImages
from sotglp.features.view_cache import CacheDir
from sotglp.images.image_set import ImageSet
from sotglp.images.survey import with_ranges_of
from sotglp.methods.base import AdaptedModel
from sotglp.methods.text_features import TextFeatures
from sotglp.scoring import ood
from sotglp.scoring.arrays import join_batches
from sotglp.settings import InferenceConfig


@dataclass(frozen=True)
class Predictions:
    """Predictions of a model for n images.

    Attributes
    ----------
    indices : NDArray
        Positions of the images that could be read, (n,).
    probabilities, global_logits, local_logits : NDArray
        (n, C).
    ood_scores : NDArray
        Larger is more in-distribution, (n,); (0,) if no scores were requested.
    """

    indices: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    global_logits: NDArray[np.float32]
    local_logits: NDArray[np.float32]
    ood_scores: NDArray[np.float32]


def predict(
    model: AdaptedModel,
    images: ImageSet,
    inference: InferenceConfig = InferenceConfig(),  # noqa: B008 - frozen
    *,
    text: TextFeatures | None = None,
    cache_dir: CacheDir = None,
    unreadable: list[UnreadableImageError] | None = None,
    title: str = "predicting",
) -> Predictions:
    """Run a model over images; see :func:`predict_each`. ``text`` is from :func:`text_of`; None encodes it."""
    texts = None if text is None else [text]
    return predict_each(
        [model], images, inference, texts=texts, cache_dir=cache_dir, unreadable=unreadable, title=title
    )[0]


@torch.no_grad()
def text_of(model: AdaptedModel, inference: InferenceConfig) -> TextFeatures:
    """Encode the prompts of a trained model, once for all images that are read with ``inference``."""
    with autocast(model.backbone.device, inference.precision):
        return model.eval().encode_text()


@torch.no_grad()
def predict_each(
    models: Sequence[AdaptedModel],
    images: ImageSet,
    inference: InferenceConfig = InferenceConfig(),  # noqa: B008 - frozen
    *,
    texts: Sequence[TextFeatures] | None = None,
    cache_dir: CacheDir = None,
    unreadable: list[UnreadableImageError] | None = None,
    title: str = "predicting",
    score_all: bool = True,
) -> list[Predictions]:
    """Run several models of one backbone over images, which are encoded once for all that share an image tower.

    Parameters
    ----------
    models : sequence of AdaptedModel
        Trained models.
    images : ImageSet
        n images; labels are ignored.
    inference : InferenceConfig
        How images are read and scored.
    texts : sequence of TextFeatures or None
        Of each model, from :func:`text_of`; None encodes them.
    cache_dir : Path or None
        Folder of the feature cache, with patch tokens in half precision; None caches nothing.
    unreadable : list or None
        Collects images that can't be decoded and skips them; None raises at the first.
    title : str
        Text of the progress bar.
    score_all : bool, default True
        Compute OOD scores for all models; otherwise for the first alone.

    Raises
    ------
    UnreadableImageError
        If an image can't be decoded and ``unreadable`` is None.
    SotglpError
        If no image can be decoded.
    """
    images = with_ranges_of(images, models[0].value_ranges)
    if texts is None:
        texts = [text_of(model, inference) for model in models]
    batches: list[list[Predictions]] = [[] for _ in models]
    for backbone in dict.fromkeys(model.backbone.image_backbone for model in models):
        own = [number for number, model in enumerate(models) if model.backbone.image_backbone is backbone]
        alike = [models[number] for number in own]
        failed = unreadable if own[0] == 0 or unreadable is None else []  # each image is reported once
        with progress_bar(title, len(images), "images", show=inference.show_progress) as advance:
            for indices, encoded in encode_images(backbone, images, inference, cache_dir, failed):
                found = predict_encoded(
                    alike,
                    [texts[number] for number in own],
                    indices,
                    encoded,
                    inference,
                    n_scored=None if score_all else int(own[0] == 0),
                )
                for number, part in zip(own, found, strict=True):
                    batches[number].append(part)
                advance(len(indices), "")
    if not batches[0]:
        raise SotglpError(
            f"none of the {len(images)} images can be read: {unreadable[0] if unreadable else 'no images'}"
        )
    return [join_batches(of_model) for of_model in batches]


@torch.no_grad()
def predict_encoded(
    models: Sequence[AdaptedModel],
    texts: Sequence[TextFeatures],
    indices: NDArray[np.int64],
    encoded: EncodedImages,
    inference: InferenceConfig,
    *,
    n_scored: int | None = None,
) -> list[Predictions]:
    """Compare a batch of encoded images with the classes of each model; see :func:`predict_each`.

    The first ``n_scored`` models get OOD scores; None scores all.
    """
    encoded = encoded.to(models[0].backbone.device)
    found = []
    for number, (model, text) in enumerate(zip(models, texts, strict=True)):
        outputs = model.compare(encoded, text)
        scores = outputs.global_logits.new_empty(0)
        if n_scored is None or number < n_scored:
            evidence = ood.Evidence(outputs, model, encoded, text)
            scores = ood.score_evidence(evidence, inference.ood_method, inference.temperature)
        numbers = (model.probabilities(outputs), outputs.global_logits, outputs.local_logits, scores)
        found.append(Predictions(indices, *(tensor.cpu().numpy() for tensor in numbers)))
    return found
