"""CLAP: a linear probe that starts from text features and is kept near them, class by class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from sotglp.backbone import Backbone
from sotglp.methods.base import AdaptedModel, Loss, Outputs, check_every_class
from sotglp.methods.configs import ClapConfig
from sotglp.methods.zero_shot import TEXT_LENGTH, ZeroShot
from sotglp.settings import Settings


class CLAP(ZeroShot):
    """Compares image features with ``prototypes`` (C, d) by cosine, which start as text features.

    The loss adds to the cross entropy the squared distance of each prototype from its text feature, times its entry of
    ``multipliers`` (C,), averaged over classes. A multiplier is the mean zero-shot probability of the class for its own
    shots: what zero-shot CLIP knows well is kept. Without ``constrained`` this is the paper's ZS-LP. Text features have
    the length :data:`sotglp.methods.zero_shot.TEXT_LENGTH`, where the authors' code has those of the text tower as they
    are. Patches are compared with the text features.

    See Silva-Rodriguez et al., "A Closer Look at the Few-Shot Adaptation of Large Vision-Language Models", CVPR 2024,
    arXiv 2312.12730. The authors' code computes multipliers on augmented views, here on centre crops.
    """

    kind: ClassVar[str] = "clap"
    Config: ClassVar[type[Settings]] = ClapConfig
    kept: ClassVar[tuple[str, ...]] = ("prototypes", "multipliers")

    def __init__(self, backbone: Backbone, class_names: Sequence[str], seed: int = 1, **settings: object) -> None:
        super().__init__(backbone, class_names, seed, **settings)
        self.prototypes = nn.Parameter(self._text())
        self.register_buffer("multipliers", self.class_vectors.new_zeros(len(self.class_names)))
        self.multipliers: Tensor

    @property
    def class_rows(self) -> tuple[str, ...]:
        """All kept tensors."""
        return self.kept

    def fit_features(self, image_features: Tensor, targets: Tensor) -> None:
        """Compute the multipliers from features (n, d) and class indices (n,).

        Raise a SotglpError if a class has no features.
        """
        check_every_class(self, targets)
        image = F.normalize(image_features.detach().to(self.class_vectors), dim=-1)
        own = F.one_hot(targets.to(image.device), len(self.class_names)).to(image)
        probabilities = (self.backbone.logit_scale * image @ self.class_vectors.T).softmax(dim=1)
        self.multipliers.copy_((own * probabilities).sum(dim=0) / own.sum(dim=0))

    def class_logits(self, image: Tensor, vectors: Tensor) -> Tensor:
        """Compute cosines with the prototypes, (B, C)."""
        return image @ F.normalize(self.prototypes, dim=-1).T

    def compute_loss(self, outputs: Outputs, targets: Tensor) -> Loss:
        """Add the constraint to the cross entropy."""
        loss = super().compute_loss(outputs, targets)
        if not self.config.constrained:
            return loss
        distances = (self.prototypes - self._text()).square().sum(dim=1)
        constraint = (self.multipliers * distances).mean()
        return Loss(loss.total + constraint, loss.global_, loss.local + constraint, outputs)

    def for_new_classes(self, class_names: Sequence[str]) -> AdaptedModel:
        """Raise OldClassesOnlyError, since every prototype belongs to an old class."""
        return AdaptedModel.for_new_classes(self, class_names)

    def _text(self) -> Tensor:
        """Text features that prototypes start from, (C, d)."""
        return TEXT_LENGTH * self.class_vectors
