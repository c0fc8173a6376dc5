"""LoCoOp: CoOp with a regularisation that makes patches without the true class unlike every class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from sotglp.backbone import Backbone
from sotglp.features.rows import EncodedImages
from sotglp.methods.base import Loss, Outputs, full_precision, unit_patches
from sotglp.methods.configs import LoCoOpConfig
from sotglp.methods.sot_glp import SOTGLP
from sotglp.methods.text_features import TextFeatures
from sotglp.settings import Settings


class LoCoOp(SOTGLP):
    """Global prompts, trained so that patches where the true class ranks low are unlike every class.

    ``rank`` is a share of the classes; the paper uses rank 200 of ImageNet's 1,000 (LoCoOp, arXiv 2306.01293, section
    3.3).
    """

    kind: ClassVar[str] = "locoop"
    Config: ClassVar[type[Settings]] = LoCoOpConfig

    def __init__(self, backbone: Backbone, class_names: Sequence[str], seed: int = 1, **settings: object) -> None:
        super(SOTGLP, self).__init__(backbone, class_names, seed, **settings)  # SOTGLP's takes its own settings only

    def compare(
        self, encoded: EncodedImages, text: TextFeatures, *, drawn_prompts: Tensor | None = None, for_loss: bool = False
    ) -> Outputs:
        """Compare as :meth:`SOTGLP.compare` does; for the loss, cosines of patches take gradients."""
        outputs = super().compare(encoded, text, drawn_prompts=drawn_prompts, for_loss=for_loss)
        if not for_loss:
            return outputs
        with torch.autocast(self.backbone.device.type, enabled=False):
            prompts = F.normalize(full_precision(text.global_), dim=-1)
            patch_logits = (
                torch.einsum("bpd,cmd->bpc", unit_patches(self.backbone, encoded), prompts) / prompts.shape[1]
            )
        return outputs._replace(patch_logits=patch_logits)

    def compute_loss(self, outputs: Outputs, targets: Tensor) -> Loss:
        """Add the weighted negative entropy of patches without the true class to the cross entropy."""
        loss = super().compute_loss(outputs, targets)
        negative_entropy = ood_patch_loss(
            self.backbone.logit_scale * outputs.patch_logits, targets.to(outputs.patch_logits.device), self.config.rank
        )
        regularisation = self.config.ood_weight * negative_entropy
        return Loss(loss.total + regularisation, loss.global_, loss.local + regularisation, outputs)


def ood_patch_loss(logits: Tensor, targets: Tensor, rank: float) -> Tensor:
    """Compute the mean negative entropy of the patches where the true class is not among the first.

    ``logits`` (B, P, C) are scaled cosines of patches with classes, ``targets`` (B,) class indices, and ``rank`` the
    share of the C classes that count as first, at least one class (LoCoOp, arXiv 2306.01293, equations 5 and 6).
    """
    n_first = max(round(rank * logits.shape[-1]), 1)
    own = logits.gather(-1, targets[:, None, None].expand(-1, logits.shape[1], 1))
    is_outside = (logits > own).sum(dim=-1) >= n_first  # (B, P)
    negative_entropy = (logits.softmax(dim=-1) * logits.log_softmax(dim=-1)).sum(dim=-1)
    return (negative_entropy * is_outside).sum() / is_outside.sum().clamp(min=1)
