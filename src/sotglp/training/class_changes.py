"""Add, remove and rename classes of a trained model."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from sotglp.backbone.precision import autocast
from sotglp.errors import SotglpError, SotglpWarning, UnreadableImageError, some_names
from sotglp.features.encode import encode_image_features
from sotglp.features.rows import EncodedImages
from sotglp.images.check import readable_images, warn_of_two_labels
from sotglp.images.image_set import ImageSet
from sotglp.images.labels import warn_if_reserved
from sotglp.methods.base import AdaptedModel, Loss, Outputs
from sotglp.methods.registry import build_model
from sotglp.methods.shot_features import build_shot_memory, stored_shots
from sotglp.methods.text_features import TextFeatures
from sotglp.settings import Precision, TrainConfig
from sotglp.training.fit import adapt, drawn_shots, train

STEPS_ALONE = 5
"""Steps on images of the new class alone, unless epochs are set."""


def with_class(
    model: AdaptedModel,
    name: str,
    images: ImageSet,
    config: TrainConfig,
    *,
    others: ImageSet | None = None,
    epochs: int | None = None,
    cache_dir: Path | None = None,
    unreadable: list[UnreadableImageError] | None = None,
    show_progress: bool = False,
) -> AdaptedModel:
    """Return a model with one more class, the last one.

    If classes have parameters of their own, as the prompts of SOT-GLP, the model is fitted again, on the new images and
    on those of the old classes: ``others``, and the shots that the model stores of classes without ``others``. If an
    old class has neither, only the prompts of the new class are learned, from the mean of the others', with a
    SotglpWarning: such a model may miss many images of the new class. Tip-Adapter stores the images' features as
    further keys. Methods without parameters of single classes need only the name. Raise a SotglpError if the class
    exists or has the same prompt as another, images of old classes are missing and the kind of model has to be fitted
    on all classes at once, or images or settings are invalid.

    Parameters
    ----------
    model, name
        A trained model of C classes, which is not changed, and the new class.
    images : ImageSet
        Images of the new class; labels are ignored.
    config : TrainConfig
        Settings of the run that fitted the model; ``shots`` images of each class are drawn. Stored shots have no views,
        so that beside them images are not augmented.
    others : ImageSet or None
        Labelled images of old classes.
    epochs : int or None
        Passes over the images; None takes those of ``config``, but only ``STEPS_ALONE`` steps on images of the new
        class alone, since nothing then keeps it from attracting images of the others.
    cache_dir, unreadable, show_progress
        See :func:`sotglp.training.fit.adapt`.
    """
    _check_new_name(model, name)
    names = [*model.class_names, name]
    own = ImageSet(images.images, (name,) * len(images), ranges=model.value_ranges)
    if epochs is not None:
        config = config.model_copy(update={"epochs": epochs})
    if others is not None and model.class_rows:
        others.targets(model.class_names)  # rejects other labels
        own = _together(others, own)
    if not (model.class_rows or model.needs_shot_features or model.shots):
        return _moved(model, names, [*range(len(names) - 1), None])
    shots = drawn_shots(own, config)
    warn_of_two_labels(shots)
    missing: list[str] = []
    if model.class_rows:
        shots, config = _with_stored_shots(model, shots, config)
        missing = [old for old in model.class_names if old not in shots.classes]
        if not missing:
            return adapt(
                model.backbone,
                shots,
                model.config,
                config,
                classes=names,
                cache_dir=cache_dir,
                unreadable=unreadable,
                show_progress=show_progress,
            ).model
    grown = _moved(model, names, [*range(len(names) - 1), None])
    shots = readable_images(shots, unreadable)
    grown.value_ranges = shots.ranges
    own = shots.take(np.array(shots.labels) == name)
    if grown.needs_shot_features:
        features = encode_image_features(grown.backbone, own, config.inference_config(), cache_dir)
        grown.partial_fit_features(features, torch.from_numpy(own.targets(names)))
    elif grown.class_rows:
        _warn_of_missing(name, missing)
        if len(shots.classes) == 1 and epochs is None:
            epochs_alone = math.ceil(STEPS_ALONE / config.steps_per_epoch(len(shots)))
            config = config.model_copy(update={"epochs": epochs_alone})
        _freeze_old_rows(grown)
        train(_LastClass(grown, config.precision), shots, config, cache_dir=cache_dir, show_progress=show_progress)
        grown = _moved(grown, names, range(len(names)))
    if model.shots:
        added = build_shot_memory(grown, own, config.inference_config(), cache_dir=cache_dir)
        grown.shots = model.shots.joined(added)
    return grown


def _with_stored_shots(model: AdaptedModel, shots: ImageSet, config: TrainConfig) -> tuple[ImageSet, TrainConfig]:
    """Add the shots that the model stores of classes without images, and return settings to train on them all."""
    config = config.model_copy(update={"shots": None})
    stored = stored_shots(model)
    missing = [index for index, label in enumerate(stored.labels or ()) if label not in shots.classes] if stored else []
    if stored is None or not missing:
        return shots, config
    return _together(stored.take(missing), shots), config.model_copy(update={"augment": False})


def _together(one: ImageSet, other: ImageSet) -> ImageSet:
    labels = (*(one.labels or ()), *(other.labels or ()))
    return ImageSet(one.images + other.images, labels, ranges=other.ranges)


def _warn_of_missing(name: str, missing: list[str]) -> None:
    warnings.warn(
        f"only the prompts of {name!r} were learned, and many of its images may be missed, since the model stores no "
        f"shots of {some_names(missing)}: give images of all old classes (--others, others=)",
        SotglpWarning,
        stacklevel=3,
    )


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
