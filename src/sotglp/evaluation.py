"""What a model says of images, and how right it is: the one way that every part of the library evaluates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sotglp import ood
from sotglp.adapted import AdaptedModel
from sotglp.arithmetic import autocast
from sotglp.config import Reading
from sotglp.dataset import ImageSet
from sotglp.encoded import encoded
from sotglp.errors import SotglpError
from sotglp.images import UnreadableImageError
from sotglp.metrics import ood_metrics
from sotglp.progress import progress_bar


@dataclass(frozen=True)
class Predictions:
    """What a model says of n images.

    Attributes
    ----------
    indices : NDArray
        Positions of the images that could be read, (n,).
    probabilities, global_logits, local_logits : NDArray
        (n, C).
    ood_scores : NDArray
        Larger is more in-distribution, (n,).
    """

    indices: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    global_logits: NDArray[np.float32]
    local_logits: NDArray[np.float32]
    ood_scores: NDArray[np.float32]


@torch.no_grad()
def predict(
    model: AdaptedModel,
    images: ImageSet,
    reading: Reading = Reading(),  # noqa: B008 - frozen
    *,
    cache_dir: Path | None = None,
    unreadable: list[UnreadableImageError] | None = None,
    title: str = "predicting",
) -> Predictions:
    """Run a model over images.

    Parameters
    ----------
    model : AdaptedModel
        A trained model.
    images : ImageSet
        n images; labels are not looked at.
    reading : Reading
        How they are read and scored.
    cache_dir : Path or None
        Folder where encoded images are kept for other runs, their patches in half precision; None keeps none.
    unreadable : list or None
        Collects images that can't be decoded, which are then left out; None raises at the first.
    title : str
        Text of the progress bar.

    Raises
    ------
    UnreadableImageError
        At an image that can't be decoded, unless ``unreadable`` collects it.
    SotglpError
        If no image at all can be decoded.
    """
    model.eval()
    backbone = model.backbone
    with autocast(backbone.device, reading.precision):
        text = model.encode_text()
    rows: list[tuple[NDArray[Any], ...]] = []
    with progress_bar(title, len(images), "images", show=reading.show_progress) as advance:
        for indices, *features in encoded(backbone, images, reading, cache_dir, unreadable):
            image_features, patch_tokens = (feature.to(backbone.device) for feature in features)
            outputs = model.compare(image_features, patch_tokens, text)
            scores = ood.score(outputs, method=reading.ood_method, temperature=reading.temperature)
            numbers = (model.probabilities(outputs), outputs.global_logits, outputs.local_logits, scores)
            rows.append((indices, *(tensor.cpu().numpy() for tensor in numbers)))
            advance(len(indices), "")
    if not rows:
        raise SotglpError(
            f"none of the {len(images)} images can be read: {unreadable[0] if unreadable else 'no images'}"
        )
    return Predictions(*(np.concatenate(column) for column in zip(*rows, strict=True)))


def evaluate(
    model: AdaptedModel,
    images: ImageSet,
    ood_sets: Mapping[str, ImageSet] | None = None,
    reading: Reading = Reading(),  # noqa: B008 - frozen
    *,
    among: Sequence[str] | None = None,
    cache_dir: Path | None = None,
    unreadable: list[UnreadableImageError] | None = None,
) -> dict[str, Any]:
    """Accuracy of a model on labelled images, and how well it tells them from out-of-distribution ones.

    Parameters
    ----------
    model : AdaptedModel
        A trained model.
    images : ImageSet
        Labelled images of its classes.
    ood_sets : mapping of str to ImageSet, optional
        Images of none of its classes, by name.
    reading : Reading
        How images are read and scored.
    among : sequence of str or None
        Classes that come into question, where the images are known to be of some alone; None takes all.
    cache_dir : Path or None
        See :func:`predict`.
    unreadable : list or None
        Collects images that can't be decoded, which are then left out; None raises at the first.

    Returns
    -------
    dict
        ``accuracy`` (of the prediction), ``accuracy_global``, ``accuracy_local`` (of either branch alone), ``n``, and
        under ``ood`` for each set ``auroc``, ``fpr95``, ``aupr_in``, ``aupr_out`` and ``n``; fractions from 0 to 1.

    Raises
    ------
    SotglpError
        If images have no labels or other ones than the model's classes.
    """
    names = model.class_names if among is None else among
    if strange := [name for name in names if name not in model.class_names]:
        raise SotglpError(f"{strange[0]!r} is none of the {len(model.class_names)} classes of the model: leave it out")
    columns = [model.class_names.index(name) for name in names]
    all_targets = images.targets(names)
    said = predict(model, images, reading, cache_dir=cache_dir, unreadable=unreadable, title="evaluating")
    targets = all_targets[said.indices]

    def accuracy(scores: NDArray[np.float32]) -> float:
        return float((scores[:, columns].argmax(axis=1) == targets).mean())

    result: dict[str, Any] = {
        "accuracy": accuracy(said.probabilities),
        "accuracy_global": accuracy(said.global_logits),
        "accuracy_local": accuracy(said.local_logits),
        "n": len(targets),
        "ood": {},
    }
    for name, others in (ood_sets or {}).items():
        others_said = predict(
            model, others, reading, cache_dir=cache_dir, unreadable=unreadable, title=f"scoring {name}"
        )
        scores = others_said.ood_scores
        result["ood"][name] = {**ood_metrics(said.ood_scores, scores), "n": len(scores)}
    return result
