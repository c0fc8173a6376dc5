"""The interface of a classifier on a frozen backbone, which the fit loop, evaluation and model files use."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Self

from sotglp.backbone import Backbone
from sotglp.errors import OldClassesOnlyError, SotglpError, UnknownNameError
from sotglp.features.rows import EncodedImages
from sotglp.images.value_range import ValueRanges
from sotglp.methods.configs import check_needs_no_text
from sotglp.methods.shot_memory import ShotMemory
from sotglp.methods.text_features import TextFeatures
from sotglp.settings import Settings, TrainConfig


class Outputs(NamedTuple):
    """Cosines between images and classes, or a method's own scores in their place.

    ``global_logits`` (B, C) are mean cosines with the global prompts, ``local_logits`` (B, C) transported cosines with
    the local prompts, and ``patch_logits`` (B, P, C) mean cosines of each patch with a class's local prompts, without
    gradient unless a loss needs one. A model without local prompts compares patches with its global ones. ``plan`` and
    ``support`` are those of :class:`sotglp.methods.local_match.LocalMatch`; None for a model without a plan.
    ``residual`` (B, C) are the scores of :mod:`sotglp.methods.residual`; None for a model without one.
    """

    global_logits: Tensor
    local_logits: Tensor
    patch_logits: Tensor
    plan: Tensor | None = None
    support: Tensor | None = None
    residual: Tensor | None = None


class Loss(NamedTuple):
    """Cross entropies averaged over images, and the outputs they were computed from.

    ``total`` is ``global_`` + ``local``. The loss of a branch that is not learned is 0.
    """

    total: Tensor
    global_: Tensor
    local: Tensor
    outputs: Outputs


class AdaptedModel(nn.Module, ABC):
    """A classifier of C classes on a frozen backbone.

    Attributes
    ----------
    kind : str
        Name of this kind of model in model files.
    Config : type
        Class of its settings; each kind has its own.
    kept : tuple of str
        Parameters and buffers that model files store; those that are None are skipped.
    traceable : bool
        Compute with operations that ``torch.export`` can trace; set only for export.
    config : Settings
        Settings of this model.
    backbone : Backbone
        The frozen backbone.
    class_names : tuple of str
        C names.
    local_projection : Parameter or None
        (W, W), learned on patch tokens; None where patches can be stored in the joint space.
    shots : ShotMemory or None
        Features of the training images, for OOD scores that compare new images with them.
    value_ranges : mapping
        Black and white of gray training images with more than 8 bits, by kind; see :mod:`sotglp.images.value_range`.
    """

    kind: ClassVar[str]
    Config: ClassVar[type[Settings]]
    kept: ClassVar[tuple[str, ...]]
    traceable: bool = False

    def __init__(self, backbone: Backbone, class_names: Sequence[str], config: Settings) -> None:
        super().__init__()
        if not backbone.has_text:
            check_needs_no_text(self.kind, backbone.name)
        self.backbone = backbone
        self.class_names = tuple(str(name) for name in class_names)
        self.config: Any = config
        self.local_projection: nn.Parameter | None = None
        self.shots: ShotMemory | None = None
        self.value_ranges: ValueRanges = {}

    @property
    def learned(self) -> list[nn.Parameter]:
        """Parameters that training changes."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def class_index(self, name: str) -> int:
        """Return the index of a class; raise an UnknownNameError if the model has none of that name."""
        if name not in self.class_names:
            raise UnknownNameError("class", name, self.class_names)
        return self.class_names.index(name)

    @property
    def needs_shot_features(self) -> bool:
        """Whether this kind of model has its own :meth:`fit_features`."""
        return type(self).fit_features is not AdaptedModel.fit_features

    def fit_features(self, image_features: Tensor, targets: Tensor) -> None:
        """Initialise from image features (n, d) and class indices (n,), before any training step."""

    def partial_fit_features(self, image_features: Tensor, targets: Tensor) -> None:
        """Add image features (n, d) and class indices (n,) after :meth:`fit_features`.

        Raise a SotglpError if this kind of model has to be fitted on all images at once.
        """
        raise SotglpError(
            f"a model of kind {self.kind} is fitted on the images of all classes at once: fit it again with the new "
            "class included"
        )

    @property
    def class_rows(self) -> tuple[str, ...]:
        """Those of ``kept`` that have a row for each class."""
        return ()

    @abstractmethod
    def encode_text(self, classes: Sequence[int] | None = None) -> TextFeatures:
        """Encode the prompts of the classes with these indices, or of all."""

    @abstractmethod
    def compare(
        self, encoded: EncodedImages, text: TextFeatures, *, drawn_prompts: Tensor | None = None, for_loss: bool = False
    ) -> Outputs:
        """Compare B encoded images with encoded classes.

        For preprocessed images, ``encoded`` is ``EncodedImages(*backbone.encode_image(images))``. ``drawn_prompts`` are
        the indices of the global prompts used for each image, from :meth:`draw_prompts`; None uses all. ``for_loss``
        skips what the loss does not use; NaN takes its place.
        """

    @abstractmethod
    def global_cosines(self, image_features: Tensor, text: TextFeatures) -> Tensor:
        """Compute ``Outputs.global_logits`` of image features (B, d) alone, (B, C)."""

    def check_training(self, config: TrainConfig) -> None:
        """Emit a SotglpWarning for what a run with these settings leaves out; here nothing."""

    def begin_step(self, seed: int) -> None:
        """Set the seed of what the model itself draws in the next training step; here nothing."""

    def draw_prompts(self, n_images: int, dropout: float, generator: torch.Generator | None = None) -> Tensor | None:
        """Draw the global prompts used for each image; None uses all."""
        return None

    def compute_loss(self, outputs: Outputs, targets: Tensor) -> Loss:
        """Compute the training loss for class indices (B,): here the cross entropy of the scaled global cosines."""
        logits = self.backbone.logit_scale * outputs.global_logits
        loss = F.cross_entropy(logits, targets.to(logits.device))
        return Loss(loss, loss, torch.zeros_like(loss), outputs)

    def logits(self, outputs: Outputs) -> Tensor:
        """Compute the logits of the classes, (B, C): here the scaled global cosines."""
        return self.backbone.logit_scale * outputs.global_logits

    def probabilities(self, outputs: Outputs) -> Tensor:
        """Compute the softmax of the logits over classes, (B, C)."""
        return torch.softmax(self.logits(outputs), dim=-1)

    def for_new_classes(self, class_names: Sequence[str]) -> AdaptedModel:
        """Return a model of other classes with the parameters that do not belong to single classes.

        Raise an OldClassesOnlyError if all learned parameters belong to single classes.
        """
        raise OldClassesOnlyError(self.kind)

    def for_export(self) -> AdaptedModel:
        """Return a model of the same outputs whose parameters are all in its modules: here this one."""
        return self

    def forward(self, images: Tensor) -> Outputs:
        """Compare preprocessed images (B, 3, H, W) with all classes."""
        return self.compare(self._encode_image(images), self.encode_text())

    @torch.no_grad()
    def predict_proba(self, images: Tensor) -> Tensor:
        """Class probabilities of preprocessed images, (B, C)."""
        return self.probabilities(self(images))

    @torch.no_grad()
    def _encode_image(self, images: Tensor) -> EncodedImages:
        return EncodedImages(*self.backbone.encode_image(images))

    def kept_tensors(self) -> dict[str, Tensor]:
        """Return the tensors that model files store, by name."""
        return {name: tensor.detach() for name in self.kept if (tensor := getattr(self, name)) is not None}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy the tensors of a model file into this model; raise a SotglpError if they do not fit its settings."""
        for name in self.kept:
            own, value = getattr(self, name), tensors.get(name)
            if own is None:
                continue
            if value is None or value.shape != own.shape or not value.is_floating_point():
                raise SotglpError(f"its {name} is missing or has another shape than in its settings")
            with torch.no_grad():
                own.copy_(value)

    def inherit(self, other: Self, origins: Sequence[int | None]) -> Self:
        """Copy what a model of the same kind and settings learned for other classes, and return this model.

        ``origins`` holds for each class of this model its index in ``other``; None for a new class, which starts from
        the mean of all rows there.
        """
        self.restore(other.moved_tensors(origins))
        return self.eval()

    def moved_tensors(self, origins: Sequence[int | None]) -> dict[str, Tensor]:
        """Return the kept tensors for classes of these origins; see :meth:`inherit`."""
        rows = {name: getattr(self, name) for name in self.class_rows}
        moved = {
            name: torch.stack([old.mean(dim=0) if index is None else old[index] for index in origins])
            for name, old in rows.items()
        }
        return self.kept_tensors() | moved

    def _with_state_of(self, other: AdaptedModel) -> Self:
        """Copy the kept tensors of another model, and return this one."""
        self.restore(other.kept_tensors())
        return self.eval()


def check_every_class(model: AdaptedModel, targets: Tensor) -> None:
    """Raise a SotglpError if a class has no shot among class indices (n,)."""
    with_features = set(targets.tolist())
    if empty := [name for index, name in enumerate(model.class_names) if index not in with_features]:
        raise SotglpError(
            f"a model of kind {model.kind} has no image of the class {empty[0]!r}: add one or remove the class"
        )


def unit_patches(backbone: Backbone, encoded: EncodedImages) -> Tensor:
    """Return patches in the joint space, of unit length, in full precision, (B, P, d)."""
    patches = full_precision(encoded.patch_tokens)
    return F.normalize(patches if encoded.projected else backbone.project_patches(patches), dim=-1)


def full_precision(features: Tensor) -> Tensor:
    """Convert half precision to float32; float64 stays."""
    return features if features.dtype == torch.float64 else features.float()


def exact_units(image_features: Tensor) -> Tensor:
    """Scale image features to length 1, in float64 on the CPU, for closed-form fits."""
    return F.normalize(image_features.detach().double().cpu(), dim=-1)
