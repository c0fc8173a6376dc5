"""CLIP-Adapter: a small network on the image feature, mixed with the feature itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sotglp.backbone import Backbone
from sotglp.methods.base import AdaptedModel
from sotglp.methods.configs import ClipAdapterConfig
from sotglp.methods.zero_shot import ZeroShot
from sotglp.settings import Settings


class ClipAdapter(ZeroShot):
    """Mixes the image feature with the output of two linear layers without bias, each with a ReLU.

    The weights are ``down`` (d / reduction, d) and ``up`` (d, d / reduction); see CLIP-Adapter, arXiv 2110.04544,
    section 3.2.
    """

    kind: ClassVar[str] = "clip-adapter"
    Config: ClassVar[type[Settings]] = ClipAdapterConfig
    kept: ClassVar[tuple[str, ...]] = ("down", "up")

    def __init__(self, backbone: Backbone, class_names: Sequence[str], seed: int = 1, **settings: object) -> None:
        super().__init__(backbone, class_names, seed, **settings)
        width = backbone.embed_dim
        hidden = max(width // self.config.reduction, 1)
        generator = torch.Generator().manual_seed(seed)
        self.down = nn.Parameter(self._drawn(hidden, width, generator))
        self.up = nn.Parameter(self._drawn(width, hidden, generator))

    def class_logits(self, image: Tensor, vectors: Tensor) -> Tensor:
        """Compute cosines of the mixed features, (B, C)."""
        adapted = F.relu(F.linear(F.relu(F.linear(image, self.down)), self.up))
        mixed = self.config.mix * adapted + (1 - self.config.mix) * image
        return F.normalize(mixed, dim=-1) @ vectors.T

    def for_new_classes(self, class_names: Sequence[str]) -> AdaptedModel:
        """See :meth:`AdaptedModel.for_new_classes`."""
        return ClipAdapter(self.backbone, class_names, **self.config.model_dump())._with_state_of(self)

    def _drawn(self, rows: int, columns: int, generator: torch.Generator) -> Tensor:
        """Draw weights as torch's linear layers do, from a given generator."""
        weights = nn.init.kaiming_uniform_(torch.empty(rows, columns), a=math.sqrt(5), generator=generator)
        return weights.to(self.class_vectors)
