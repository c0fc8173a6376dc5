"""Add, remove and rename classes of a trained model without changing what it learned for the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from sotglp.backbone.precision import autocast
from sotglp.errors import SotglpError, UnreadableImageError
from sotglp.features.encode import encode_image_features
from sotglp.features.rows import EncodedImages
from sotglp.images.check import readable_images, warn_of_two_labels
from sotglp.images.image_set import ImageSet
from sotglp.images.labels import warn_if_reserved
from sotglp.methods.base import AdaptedModel, Loss, Outputs
from sotglp.methods.registry import build_model
from sotglp.methods.shot_features import build_shot_memory
from sotglp.methods.text_features import TextFeatures
from sotglp.settings import Precision, TrainConfig
from sotglp.training.fit import drawn_shots, train

STEPS_ALONE = 5
"""Steps on images of the new class alone, unless epochs are set."""


def with_class(
    model: AdaptedModel,
    name: str,
    images: ImageSet,
    config: TrainConfig,
    *,
    others: ImageSet | None = None,
    cache_dir: Path | None = None,
    unreadable: list[UnreadableImageError] | None = None,
    show_progress: bool = False,
) -> AdaptedModel:
    """Return a model with one more class, the last one; the parameters of the other classes stay bit for bit.

    If each class has its own prompts, as in SOT-GLP, only those of the new class are learned, starting from the mean of
    the others'. Tip-Adapter stores the images' features as further keys and ignores ``others``. Methods without
    parameters of single classes need only the name. A shot memory is extended with the new images. Raise a SotglpError
    if the class exists or has the same prompt as another, the kind of model has to be fitted on all classes at once, or
    images or settings are invalid.

    Parameters
    ----------
    model, name
        A trained model of C classes, which is not changed, and the new class.
    images : ImageSet
        Images of the new class; labels are ignored.
    config : TrainConfig
        Settings of the run; ``shots`` images of each class are drawn. Without ``epochs`` there are about 100 steps
        with ``others``, but only ``STEPS_ALONE`` without, since nothing then keeps the new class from attracting
        images of the others.
    others : ImageSet or None
        Labelled images of old classes.
    cache_dir, unreadable, show_progress
        See :func:`sotglp.training.fit.adapt`.
    """
    _check_new_name(model, name)
    names = [*model.class_names, name]
    grown = _moved(model, names, [*range(len(names) - 1), None])
    own = ImageSet(images.images, (name,) * len(images), ranges=model.value_ranges)
    if grown.class_rows or grown.needs_shot_features:
        shots = own
        if others is not None and not grown.needs_shot_features:
            others.targets(model.class_names)  # rejects other labels
            labels = (*(own.labels or ()), *(others.labels or ()))
            shots = ImageSet(own.images + others.images, labels, ranges=model.value_ranges)
        shots = readable_images(drawn_shots(shots, config), unreadable)
        warn_of_two_labels(shots)
        own = shots.take(np.array(shots.labels) == name)
        grown.value_ranges = shots.ranges
        grown = _learn_last_class(grown, shots, config, others is None, cache_dir, show_progress)
    elif model.shots:
        own = readable_images(drawn_shots(own, config), unreadable)
        grown.value_ranges = own.ranges
    if model.shots:
        grown.shots = model.shots.joined(build_shot_memory(grown, own, config.inference_config(), cache_dir=cache_dir))
    return grown


def _learn_last_class(
    grown: AdaptedModel,
    shots: ImageSet,
    config: TrainConfig,
    alone: bool,
    cache_dir: Path | None,
    show_progress: bool,
) -> AdaptedModel:
    if grown.needs_shot_features:
        features = encode_image_features(grown.backbone, shots, config.inference_config(), cache_dir)
        grown.partial_fit_features(features, torch.from_numpy(shots.targets(grown.class_names)))
        return grown
    if alone and config.epochs is None:
        steps = len(shots) // min(config.batch_size, len(shots))
        config = config.model_copy(update={"epochs": math.ceil(STEPS_ALONE / steps)})
    _freeze_old_rows(grown)
    train(_LastClass(grown, config.precision), shots, config, cache_dir=cache_dir, show_progress=show_progress)
    return _moved(grown, grown.class_names, range(len(grown.class_names)))


def without_class(model: AdaptedModel, name: str) -> AdaptedModel:
    """Return a model without one of its classes; the others stay as they are, in their order.

    Raise a SotglpError if there is no such class, or only one would be left.
    """
    removed = model.class_index(name)
    left = [index for index in range(len(model.class_names)) if index != removed]
    if len(left) < 2:
        raise SotglpError(f"the class {name!r} can't be removed, since a classifier needs two: add another class first")
    return _moved(model, [model.class_names[index] for index in left], left)


def renamed(model: AdaptedModel, old: str, new: str) -> AdaptedModel:
    """Return a model with another name for one of its classes; class indices and learned parameters stay.

    Predictions change with the text features of the name, unless the method uses no text. Raise a SotglpError if there
    is no class ``old``, or another class is called ``new`` or has the same prompt.
    """
    index = model.class_index(old)
    _check_new_name(model, new)
    names = [*model.class_names[:index], new, *model.class_names[index + 1 :]]
    return _moved(model, names, range(len(names)))


def _moved(model: AdaptedModel, names: Sequence[str], origins: Sequence[int | None]) -> AdaptedModel:
    """Build a model of these classes with the learned rows and shots of their origins."""
    moved = build_model(model.backbone, names, model.config).inherit(model, origins)
    moved.shots = model.shots.of_classes(origins) if model.shots else None
    moved.value_ranges = model.value_ranges
    return moved


def _check_new_name(model: AdaptedModel, name: str) -> None:
    """Reject an equal name, and warn of odd ones; building a model rejects names with equal prompts."""
    if name in model.class_names:
        raise SotglpError(f"the model already has a class {name!r}: choose another name")
    warn_if_reserved(name)


class _OldRowsBefore(nn.Module):
    """Prepends the fixed rows of old classes to learned rows."""

    def __init__(self, old: Tensor) -> None:
        super().__init__()
        self.register_buffer("old", old)
        self.old: Tensor

    def forward(self, new: Tensor) -> Tensor:
        return torch.cat([self.old, new])

    def right_inverse(self, rows: Tensor) -> Tensor:
        return rows[len(self.old) :].clone()


def _freeze_old_rows(model: AdaptedModel) -> None:
    """Make only the rows of the last class learnable; momentum and weight decay don't change others either."""
    for name, own in model.named_parameters():
        if name not in model.class_rows:
            own.requires_grad_(False)
    for name in model.class_rows:
        old = getattr(model, name).detach()[:-1].clone()
        parametrize.register_parametrization(model, name, _OldRowsBefore(old))


class _LastClass(AdaptedModel):
    """A model whose last class alone is trained, so that the text of the others is encoded only once."""

    def __init__(self, model: AdaptedModel, precision: Precision) -> None:
        super().__init__(model.backbone, model.class_names, model.config)
        self.model = model
        self.local_projection = model.local_projection
        with torch.no_grad(), autocast(model.backbone.device, precision):
            self._old_text = model.encode_text(range(len(model.class_names) - 1))

    def encode_text(self, classes: Sequence[int] | None = None) -> TextFeatures:
        chosen = slice(None) if classes is None else list(classes)
        new = self.model.encode_text([len(self.class_names) - 1])
        whole = (torch.cat(parts)[chosen] for parts in zip(self._old_text, new, strict=True))
        return TextFeatures(*whole)

    def draw_prompts(self, n_images: int, dropout: float, generator: torch.Generator | None = None) -> Tensor | None:
        return self.model.draw_prompts(n_images, dropout, generator)

    def compare(
        self, encoded: EncodedImages, text: TextFeatures, *, drawn_prompts: Tensor | None = None, for_loss: bool = False
    ) -> Outputs:
        return self.model.compare(encoded, text, drawn_prompts=drawn_prompts, for_loss=for_loss)

    def global_cosines(self, image_features: Tensor, text: TextFeatures) -> Tensor:
        return self.model.global_cosines(image_features, text)

    def compute_loss(self, outputs: Outputs, targets: Tensor) -> Loss:
        return self.model.compute_loss(outputs, targets)

    def logits(self, outputs: Outputs) -> Tensor:
        return self.model.logits(outputs)
