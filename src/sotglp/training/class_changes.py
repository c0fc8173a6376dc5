"""Classes that come, go and change their names in a trained model, while what it learned for the others stays."""

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
from sotglp.features.encode import EncodedImages, encode_image_features
from sotglp.images.check import readable_images
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel, Loss, Outputs
from sotglp.methods.registry import build_model
from sotglp.methods.shot_features import build_shot_memory
from sotglp.methods.text_features import TextFeatures
from sotglp.settings import Precision, TrainConfig
from sotglp.training.fit import drawn_shots, train

STEPS_ALONE = 5
"""Steps on images of the new class alone, unless epochs are set; see docs/class_changes.md for longer runs."""


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
    """A model that knows one class more, the last one; all that was learned for the others stays bit for bit.

    Where each class has prompts of its own, as in SOT-GLP, those of the new class start from the mean of the others'
    and are learned, and nothing else is. Tip-Adapter keeps the images' features as further keys, which are not trained
    further, and needs no ``others``. Where all that was learned belongs to all classes alike, the name is enough. A
    model that remembers its shots remembers the new images too.

    Parameters
    ----------
    model : AdaptedModel
        A trained model of C classes; it stays as it is.
    name : str
        The new class.
    images : ImageSet
        Images of it; labels are not looked at.
    config : TrainConfig
        Settings of the run; ``shots`` images of each class are drawn. Without ``epochs`` there are about 100 steps
        with ``others``, and ``STEPS_ALONE`` without: nothing then keeps the new class from taking images of the old
        ones, and the longer it learns, the more it takes.
    others : ImageSet or None
        Labelled images of old classes.
    cache_dir : Path or None
        Folder where encoded views are kept for this and other runs; None keeps them in memory for this one.
    unreadable : list or None
        Collects drawn images that can't be decoded, which are then left out; None raises at the first.
    show_progress : bool, default False
        Show progress bars on a terminal.

    Raises
    ------
    SotglpError
        If there is such a class already, or one that gives the same prompt, if the kind of model learns from all images
        at once, or if images or settings can't be used.
    """
    _refuse_twin(model, name)
    names = [*model.class_names, name]
    grown = _moved(model, names, [*range(len(names) - 1), None])
    own = ImageSet(images.images, (name,) * len(images))
    if grown.class_rows or grown.needs_shot_features:
        shots = own
        if others is not None and not grown.needs_shot_features:
            others.targets(model.class_names)  # refuses other labels
            shots = ImageSet(own.images + others.images, (*(own.labels or ()), *(others.labels or ())))
        shots = readable_images(drawn_shots(shots, config), unreadable)
        own = shots.take(np.array(shots.labels) == name)
        grown = _learned(grown, shots, config, others is None, cache_dir, show_progress)
    elif model.shots:
        own = readable_images(drawn_shots(own, config), unreadable)
    if model.shots:
        grown.shots = model.shots.joined(build_shot_memory(grown, own, config.inference_config(), cache_dir=cache_dir))
    return grown


def _learned(
    grown: AdaptedModel,
    shots: ImageSet,
    config: TrainConfig,
    alone: bool,
    cache_dir: Path | None,
    show_progress: bool,
) -> AdaptedModel:
    """The grown model, after it has learned its last class from the shots."""
    if grown.needs_shot_features:
        features = encode_image_features(grown.backbone, shots, config.inference_config(), cache_dir)
        grown.partial_fit_features(features, torch.from_numpy(shots.targets(grown.class_names)))
        return grown
    if alone and config.epochs is None:
        steps = len(shots) // min(config.batch_size, len(shots))
        config = config.model_copy(update={"epochs": math.ceil(STEPS_ALONE / steps)})
    _leave_only_last_rows(grown)
    train(_LastClass(grown, config.precision), shots, config, cache_dir=cache_dir, show_progress=show_progress)
    return _moved(grown, grown.class_names, range(len(grown.class_names)))


def without_class(model: AdaptedModel, name: str) -> AdaptedModel:
    """A model without one of its classes; what was learned for the others stays, and so does their order.

    Raises
    ------
    SotglpError
        If there is no such class, or only one would be left.
    """
    place = model.class_index(name)
    left = [other for other in range(len(model.class_names)) if other != place]
    if len(left) < 2:
        raise SotglpError(f"the class {name!r} can't be removed, since a classifier needs two: add another one first")
    names = [model.class_names[other] for other in left]
    return _moved(model, names, left)


def renamed(model: AdaptedModel, old: str, new: str) -> AdaptedModel:
    """A model with another name for one of its classes; its place and all that was learned stay.

    Predictions change with the name's text features, where the kind of model looks at any.

    Raises
    ------
    SotglpError
        If there is no class ``old``, or another one is called ``new`` or gives the same prompt.
    """
    place = model.class_index(old)
    _refuse_twin(model, new)
    names = [*model.class_names[:place], new, *model.class_names[place + 1 :]]
    return _moved(model, names, range(len(names)))


def _moved(model: AdaptedModel, names: Sequence[str], origins: Sequence[int | None]) -> AdaptedModel:
    """A model of these classes, each with what the class at its origin has learned and remembers."""
    moved = build_model(model.backbone, names, model.config).inherit(model, origins)
    moved.shots = model.shots.of_classes(origins) if model.shots else None
    return moved


def _refuse_twin(model: AdaptedModel, name: str) -> None:
    """Refuse the very same name; those that only read alike are refused wherever a model is built."""
    if name in model.class_names:
        raise SotglpError(f"the model has a class {name!r} already: give another name")


class _OldRowsBefore(nn.Module):
    """Rows of old classes, which never change, before those that are learned."""

    def __init__(self, old: Tensor) -> None:
        super().__init__()
        self.register_buffer("old", old)
        self.old: Tensor

    def forward(self, new: Tensor) -> Tensor:
        return torch.cat([self.old, new])

    def right_inverse(self, rows: Tensor) -> Tensor:
        return rows[len(self.old) :].clone()


def _leave_only_last_rows(model: AdaptedModel) -> None:
    """Let a model learn the rows of its last class alone: no momentum or weight decay reaches other values."""
    for name, own in model.named_parameters():
        if name not in model.class_rows:
            own.requires_grad_(False)
    for name in model.class_rows:
        old = getattr(model, name).detach()[:-1].clone()
        parametrize.register_parametrization(model, name, _OldRowsBefore(old))


class _LastClass(AdaptedModel):
    """A model whose last class alone changes: the text of the others is encoded once, not at every step."""

    def __init__(self, model: AdaptedModel, precision: Precision) -> None:
        super().__init__(model.backbone, model.class_names, model.config)
        self.model = model
        self.local_projection = model.local_projection
        with torch.no_grad(), autocast(model.backbone.device, precision):
            self._old_text = model.encode_text(range(len(model.class_names) - 1))

    def encode_text(self, classes: Sequence[int] | None = None) -> TextFeatures:
        wanted = slice(None) if classes is None else list(classes)
        new = self.model.encode_text([len(self.class_names) - 1])
        whole = (torch.cat(parts)[wanted] for parts in zip(self._old_text, new, strict=True))
        return TextFeatures(*whole)

    def draw_prompts(self, n_images: int, dropout: float, generator: torch.Generator | None = None) -> Tensor | None:
        return self.model.draw_prompts(n_images, dropout, generator)

    def compare(
        self,
        encoded: EncodedImages,
        text: TextFeatures,
        *,
        drawn_prompts: Tensor | None = None,
        for_loss: bool = False,
    ) -> Outputs:
        return self.model.compare(encoded, text, drawn_prompts=drawn_prompts, for_loss=for_loss)

    def compute_loss(self, outputs: Outputs, targets: Tensor) -> Loss:
        return self.model.compute_loss(outputs, targets)

    def logits(self, outputs: Outputs) -> Tensor:
        return self.model.logits(outputs)
