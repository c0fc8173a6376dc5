"""GalLoP: global prompts, and local ones that each keep patches of their own, at a scale of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from sotglp.backbone import Backbone
from sotglp.errors import SotglpError
from sotglp.features.encode import EncodedImages
from sotglp.methods.base import Loss, Outputs
from sotglp.methods.configs import GalLoPConfig
from sotglp.methods.local_match import LocalMatch, match_patches
from sotglp.methods.sot_glp import SOTGLP
from sotglp.methods.text_features import TextFeatures
from sotglp.settings import Settings, checked


class PromptOutputs(Outputs):
    """Outputs that know the cosine with each local prompt too: ``prompt_logits``, (B, C, N)."""

    prompt_logits: Tensor


class GalLoP(SOTGLP):
    """Local prompt j keeps the K + j ``scale_step`` patches most like it, and every local prompt has a loss of its own.

    References
    ----------
    GalLoP, arXiv 2407.01400, sections 3.2 (global prompts) and 3.3 (local prompts, multi-scale).
    """

    kind: ClassVar[str] = "gallop"
    Config: ClassVar[type[Settings]] = GalLoPConfig

    def __init__(self, backbone: Backbone, class_names: Sequence[str], seed: int = 1, **settings: object) -> None:
        self._build(backbone, class_names, checked(GalLoPConfig, settings), seed)

    @property
    def scales(self) -> list[int]:
        """Patches that each local prompt keeps, or each global one without them: as many as there are at most."""
        n_prompts = self.config.n_global_prompts if self.local_prompts is None else self.config.n_local_prompts
        n_patches = self.backbone.n_patches
        return [min(self.top_k + place * self.config.scale_step, n_patches) for place in range(n_prompts)]

    def compare(
        self,
        encoded: EncodedImages,
        text: TextFeatures,
        *,
        drawn_prompts: Tensor | None = None,
        for_loss: bool = False,
    ) -> PromptOutputs:
        """See :meth:`SOTGLP.compare`; ``prompt_logits`` are the cosines with each local prompt."""
        global_logits = self._global_logits(encoded.image_features, text, drawn_prompts)
        alone = self._match_alone(encoded, text.local)
        match = self._together(alone)
        outputs = PromptOutputs(global_logits, match.scores, match.patch_scores, match.plan, match.support)
        outputs.prompt_logits = torch.stack([one.scores for one in alone], dim=-1)
        return outputs

    def match(self, encoded: EncodedImages, local_text: Tensor) -> LocalMatch:
        """See :meth:`SOTGLP.match`; where a prompt keeps fewer patches than the last one, its plan ends in zeros."""
        return self._together(self._match_alone(encoded, local_text))

    def _together(self, alone: list[LocalMatch]) -> LocalMatch:
        most = max(self.scales)
        return LocalMatch(
            torch.stack([match.scores for match in alone]).mean(dim=0),
            torch.stack([match.patch_scores for match in alone]).mean(dim=0),
            torch.cat([F.pad(match.plan, (0, 0, 0, most - match.plan.shape[2])) for match in alone], -1) / len(alone),
            torch.stack([F.pad(match.support, (0, most - match.support.shape[2])) for match in alone], dim=-1),
        )

    def compute_loss(self, outputs: Outputs, targets: Tensor) -> Loss:
        """Cross entropy of the global cosines, and the mean of those of the local prompts; 0 of what is not learned."""
        if not isinstance(outputs, PromptOutputs):
            raise SotglpError("GalLoP judges each local prompt alone: give outputs of its own compare")
        targets = targets.to(outputs.global_logits.device)
        scale, branches = self.backbone.logit_scale, self.config.branches
        of_each = targets[:, None].expand(-1, outputs.prompt_logits.shape[-1])
        nothing = outputs.global_logits.new_zeros(())
        global_ = nothing if branches == "local" else F.cross_entropy(scale * outputs.global_logits, targets)
        local = nothing if branches == "global" else F.cross_entropy(scale * outputs.prompt_logits, of_each)
        return Loss(global_ + local, global_, local, outputs)

    def _match_alone(self, encoded: EncodedImages, local_text: Tensor) -> list[LocalMatch]:
        """Each local prompt with patches of its own, as if there were no other."""
        patches, prompts = self._local_features(encoded, local_text)
        with torch.autocast(self.backbone.device.type, enabled=False):
            return [
                match_patches(patches, prompts[:, place : place + 1], top_k=scale, matching="uniform")
                for place, scale in enumerate(self.scales)
            ]
