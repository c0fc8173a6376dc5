"""TaskRes: a learned residual on each class's frozen text feature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sotglp.backbone import Backbone
from sotglp.methods.configs import TaskResConfig
from sotglp.methods.zero_shot import TEXT_LENGTH, ZeroShot
from sotglp.settings import Settings


class TaskRes(ZeroShot):
    """Compares image features with text features plus scaled residuals, ``residuals`` (C, d), which start at zero.

    Residuals are added to text features of length :data:`sotglp.methods.zero_shot.TEXT_LENGTH`, where the authors' code
    has those of the text tower as they are. Patches are compared with the text features alone. See Yu et al., "Task
    Residual for Tuning Vision-Language Models", CVPR 2023, arXiv 2211.10277, with the regular base classifier.
    """

    kind: ClassVar[str] = "task-res"
    Config: ClassVar[type[Settings]] = TaskResConfig
    kept: ClassVar[tuple[str, ...]] = ("residuals",)

    def __init__(self, backbone: Backbone, class_names: Sequence[str], seed: int = 1, **settings: object) -> None:
        super().__init__(backbone, class_names, seed, **settings)
        self.residuals = nn.Parameter(torch.zeros_like(self.class_vectors))

    @property
    def class_rows(self) -> tuple[str, ...]:
        """The residuals."""
        return self.kept

    def class_logits(self, image: Tensor, vectors: Tensor) -> Tensor:
        """Compute cosines with the text features and their residuals, (B, C)."""
        text = TEXT_LENGTH * vectors + self.config.residual_scale * self.residuals
        return image @ F.normalize(text, dim=-1).T
