"""Tip-Adapter: a cache of shot features added to zero-shot CLIP, frozen or fine-tuned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Self

from sotglp.backbone import Backbone
from sotglp.errors import SotglpError
from sotglp.methods.configs import TipAdapterConfig
from sotglp.methods.zero_shot import ZeroShot
from sotglp.settings import Settings


class TipAdapter(ZeroShot):
    """Adds to the zero-shot logits a vote of each shot for its class, which decays with the feature distance.

    ``keys`` (n, d) are unit features of the shots, frozen unless they are learned, and ``key_classes`` (n,) their class
    indices; there are none before :meth:`fit_features`. See Tip-Adapter, arXiv 2111.03930, sections 3.2 and 3.3.
    """

    kind: ClassVar[str] = "tip-adapter"
    Config: ClassVar[type[Settings]] = TipAdapterConfig
    kept: ClassVar[tuple[str, ...]] = ("keys", "key_classes")

    def __init__(self, backbone: Backbone, class_names: Sequence[str], seed: int = 1, **settings: object) -> None:
        super().__init__(backbone, class_names, seed, **settings)
        self._set_keys(self.class_vectors.new_empty(0, backbone.embed_dim), torch.empty(0, dtype=torch.long))

    def fit_features(self, image_features: Tensor, targets: Tensor) -> None:
        """Store features (n, d) and class indices (n,) as keys."""
        self._set_keys(F.normalize(image_features.to(self.class_vectors), dim=-1), targets)

    def partial_fit_features(self, image_features: Tensor, targets: Tensor) -> None:
        """Append features (n, d) and class indices (n,) to the keys."""
        further = F.normalize(image_features.to(self.class_vectors), dim=-1)
        self._set_keys(
            torch.cat([self.keys.detach(), further]), torch.cat([self.key_classes, targets.to(self.key_classes)])
        )

    def inherit(self, other: Self, origins: Sequence[int | None]) -> Self:
        """Copy the keys of the remaining classes; a new class has none."""
        class_index = {origin: index for index, origin in enumerate(origins)}
        classes = [class_index.get(origin) for origin in other.key_classes.tolist()]
        stays = [index is not None for index in classes]
        left = torch.tensor([index for index in classes if index is not None], dtype=torch.long)
        self._set_keys(other.keys.detach()[torch.tensor(stays, dtype=torch.bool)], left)
        return self.eval()

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy the keys of a model file, any number of them; see :meth:`AdaptedModel.restore`."""
        keys, classes = (tensors.get(name, torch.empty(0)) for name in self.kept)
        fits = keys.ndim == 2 and keys.shape[1] == self.backbone.embed_dim and classes.shape == keys.shape[:1]
        fits = fits and keys.is_floating_point() and not classes.is_floating_point()
        if not fits or not ((classes >= 0) & (classes < len(self.class_names))).all():
            raise SotglpError("its keys and key_classes do not fit each other, the backbone or the classes")
        self._set_keys(keys.to(self.class_vectors), classes)

    def class_logits(self, image: Tensor, vectors: Tensor) -> Tensor:
        """Add the votes of the keys, divided by the backbone's scale, to the cosines, (B, C)."""
        closeness = torch.exp(-self.config.sharpness * (1 - image @ self.keys.T))  # (B, n)
        votes = closeness @ F.one_hot(self.key_classes, len(self.class_names)).to(closeness)
        weight: float = self.config.cache_weight
        return image @ vectors.T + weight * votes / self.backbone.logit_scale

    def _set_keys(self, keys: Tensor, classes: Tensor) -> None:
        self.keys = nn.Parameter(keys.clone(), requires_grad=self.config.learn_keys)
        self.register_buffer("key_classes", classes.to(keys.device, torch.long))
        self.key_classes: Tensor
