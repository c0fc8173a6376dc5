"""What fit loop, evaluation and model files ask of a classifier on a frozen backbone, whatever its method is."""

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
from sotglp.features.encode import EncodedImages
from sotglp.methods.shot_memory import ShotMemory
from sotglp.methods.text_features import TextFeatures
from sotglp.settings import Settings


class Outputs(NamedTuple):
    """Cosines between images and classes, or what a method has in their place; larger is more alike.

    A model without local prompts compares patches with its global ones.

    Attributes
    ----------
    global_logits : Tensor
        Mean cosine with the global prompts, (B, C).
    local_logits : Tensor
        Transported cosine with the local prompts, (B, C).
    patch_logits : Tensor
        Mean cosine of each patch with a class's local prompts, without gradient unless a loss needs one, (B, P, C).
    plan, support : Tensor or None
        See :class:`sotglp.methods.local_match.LocalMatch`; None for a model without a plan.
    """

    global_logits: Tensor
    local_logits: Tensor
    patch_logits: Tensor
    plan: Tensor | None = None
    support: Tensor | None = None


class Loss(NamedTuple):
    """Cross entropies, averaged over images: ``total`` = ``global_`` + ``local``; ``outputs`` are what they judge.

    The loss of a branch that is not learned is 0.
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
        Its settings, which no other kind shares.
    kept : tuple of str
        Parameters and buffers that a model file keeps; those that are None are left out.
    config : Settings
        The settings of this model.
    backbone : Backbone
        Encodes.
    class_names : tuple of str
        C names.
    local_projection : Parameter or None
        (W, W), learned on patch tokens; None where patches can be kept in the joint space.
    shots : ShotMemory or None
        Features of the images that it learned from, for scores that compare new images with them.
    """

    kind: ClassVar[str]
    Config: ClassVar[type[Settings]]
    kept: ClassVar[tuple[str, ...]]

    def __init__(self, backbone: Backbone, class_names: Sequence[str], config: Settings) -> None:
        super().__init__()
        self.backbone = backbone
        self.class_names = tuple(str(name) for name in class_names)
        self.config: Any = config
        self.local_projection: nn.Parameter | None = None
        self.shots: ShotMemory | None = None

    @property
    def learned(self) -> list[nn.Parameter]:
        """Parameters that training changes."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def class_index(self, name: str) -> int:
        """Where a class stands among those of the model.

        Raises
        ------
        UnknownNameError
            If there is none of that name.
        """
        if name not in self.class_names:
            raise UnknownNameError("class", name, self.class_names)
        return self.class_names.index(name)

    @property
    def needs_shot_features(self) -> bool:
        """Whether :meth:`fit_features` wants the features of the shots."""
        return False

    def fit_features(self, image_features: Tensor, targets: Tensor) -> None:
        """Start from the features (n, d) of the labelled images and their classes (n,), before any step of training."""

    def partial_fit_features(self, image_features: Tensor, targets: Tensor) -> None:
        """Go on from the features (n, d) of further labelled images and their classes (n,), after :meth:`fit_features`.

        Raises
        ------
        SotglpError
            If this kind of model learns from all images at once.
        """
        raise SotglpError(
            f"a model of kind {self.kind} learns from the images of all classes at once: fit it anew with those of the "
            "new class too"
        )

    @property
    def class_rows(self) -> tuple[str, ...]:
        """Those of ``kept`` that have a row for each class."""
        return ()

    @abstractmethod
    def encode_text(self, classes: Sequence[int] | None = None) -> TextFeatures:
        """Text features of the classes at these positions, or of all."""

    @abstractmethod
    def compare(
        self,
        encoded: EncodedImages,
        text: TextFeatures,
        *,
        drawn_prompts: Tensor | None = None,
        for_loss: bool = False,
    ) -> Outputs:
        """Compare encoded images with the classes; see :meth:`sotglp.SOTGLP.compare`."""

    def draw_prompts(self, n_images: int, dropout: float, generator: torch.Generator | None = None) -> Tensor | None:
        """Draw the global prompts that stay for each image; None where all do."""
        return None

    def compute_loss(self, outputs: Outputs, targets: Tensor) -> Loss:
        """Loss of training: here the cross entropy of scaled global cosines against the true classes (B,)."""
        logits = self.backbone.logit_scale * outputs.global_logits
        loss = F.cross_entropy(logits, targets.to(logits.device))
        return Loss(loss, loss, torch.zeros_like(loss), outputs)

    def logits(self, outputs: Outputs) -> Tensor:
        """Logits of the classes, (B, C): here scaled global cosines."""
        return self.backbone.logit_scale * outputs.global_logits

    def probabilities(self, outputs: Outputs) -> Tensor:
        """Softmax of the logits over classes, (B, C)."""
        return torch.softmax(self.logits(outputs), dim=-1)

    def for_new_classes(self, class_names: Sequence[str]) -> AdaptedModel:
        """A model of classes that were not trained on, with what was learned for all classes alike.

        Raises
        ------
        OldClassesOnlyError
            If all that was learned belongs to the old classes.
        """
        raise OldClassesOnlyError(self.kind)

    def forward(self, images: Tensor) -> Outputs:
        """Cosines of preprocessed images (B, 3, H, W) with all classes, in evaluation form."""
        return self.compare(self._encode_image(images), self.encode_text())

    @torch.no_grad()
    def predict_proba(self, images: Tensor) -> Tensor:
        """Class probabilities of preprocessed images, (B, C)."""
        return self.probabilities(self(images))

    @torch.no_grad()
    def _encode_image(self, images: Tensor) -> EncodedImages:
        return EncodedImages(*self.backbone.encode_image(images))

    def kept_tensors(self) -> dict[str, Tensor]:
        """What a model file keeps of what was learned, by name."""
        return {name: tensor.detach() for name in self.kept if (tensor := getattr(self, name)) is not None}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what a model file keeps, by name.

        Raises
        ------
        SotglpError
            If something is missing or has another shape than the settings say.
        """
        for name in self.kept:
            own, value = getattr(self, name), tensors.get(name)
            if own is None:
                continue
            if value is None or value.shape != own.shape or not value.is_floating_point():
                raise SotglpError(f"its {name} is missing or has another shape than its settings say")
            with torch.no_grad():
                own.copy_(value)

    def inherit(self, other: Self, origins: Sequence[int | None]) -> Self:
        """Take over what a model of the same kind and settings has learned for other classes, and return this one.

        Parameters
        ----------
        other : AdaptedModel
            The model; it stays as it is.
        origins : sequence of int or None
            For each class of this model, the position of the class there that it goes on from; None for a new one,
            which starts from the mean of all rows there.
        """
        rows = {name: getattr(other, name) for name in other.class_rows}
        moved = {
            name: torch.stack([old.mean(dim=0) if place is None else old[place] for place in origins])
            for name, old in rows.items()
        }
        self.restore(other.kept_tensors() | moved)
        return self.eval()

    def _with_state_of(self, other: AdaptedModel) -> Self:
        """Take over the tensors of another model that this one keeps too, and return this one."""
        self.restore(other.kept_tensors())
        return self.eval()


def unit_patches(backbone: Backbone, encoded: EncodedImages) -> Tensor:
    """Patches in the joint space, of unit length, (B, P, d), in full precision."""
    patches = full_precision(encoded.patch_tokens)
    return F.normalize(patches if encoded.projected else backbone.project_patches(patches), dim=-1)


def full_precision(features: Tensor) -> Tensor:
    """Half precision lifted to float32; float64 stays."""
    return features if features.dtype == torch.float64 else features.float()
