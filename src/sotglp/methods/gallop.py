"""GalLoP: global prompts, and local prompts that each use another number of patches."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from sotglp.errors import SotglpError
from sotglp.features.rows import EncodedImages
from sotglp.methods.base import Outputs
from sotglp.methods.configs import GalLoPConfig
from sotglp.methods.local_match import LocalMatch, match_patches
from sotglp.methods.prompt_model import PromptModel
from sotglp.methods.text_features import TextFeatures
from sotglp.settings import Settings


class PromptOutputs(Outputs):
    """Outputs with the cosines of each local prompt: ``prompt_logits``, (B, C, N)."""

    prompt_logits: Tensor


class GalLoP(PromptModel):
    """Local prompt j is compared with its K + j ``scale_step`` most similar patches, and has its own loss.

    See GalLoP, arXiv 2407.01400, sections 3.2 (global prompts) and 3.3 (local prompts, multi-scale).
    """

    kind: ClassVar[str] = "gallop"
    Config: ClassVar[type[Settings]] = GalLoPConfig

    @property
    def scales(self) -> list[int]:
        """Number of patches of each local prompt (of each global one if there are none), at most P."""
        n_prompts = self.config.n_global_prompts if self.local_prompts is None else self.config.n_local_prompts
        n_patches = self.backbone.n_patches
        return [min(self.top_k + index * self.config.scale_step, n_patches) for index in range(n_prompts)]

    def compare(
        self, encoded: EncodedImages, text: TextFeatures, *, drawn_prompts: Tensor | None = None, for_loss: bool = False
    ) -> PromptOutputs:
        """Compare as :meth:`PromptModel.compare` does, and also return the cosines with each local prompt."""
        global_logits = self._global_logits(encoded.image_features, text, drawn_prompts)
        matches = self._match_each(encoded, text.local)
        match = self._combine(matches)
        outputs = PromptOutputs(global_logits, match.scores, match.patch_scores, match.plan, match.support)
        outputs.prompt_logits = torch.stack([one.scores for one in matches], dim=-1)
        return outputs

    def match(self, encoded: EncodedImages, local_text: Tensor) -> LocalMatch:
        """Match as :meth:`PromptModel.match` does; plans of prompts with fewer patches are padded with zeros."""
        return self._combine(self._match_each(encoded, local_text))

    def _combine(self, matches: list[LocalMatch]) -> LocalMatch:
        scores, patch_scores, plans, supports = zip(*matches, strict=True)
        most = max(self.scales)
        return LocalMatch(
            torch.stack(scores).mean(dim=0),
            torch.stack(patch_scores).mean(dim=0),
            torch.cat([F.pad(plan, (0, 0, 0, most - plan.shape[2])) for plan in plans], dim=-1) / len(plans),
            torch.stack([F.pad(support, (0, most - support.shape[2])) for support in supports], dim=-1),
        )

    def _local_loss(self, outputs: Outputs, targets: Tensor) -> Tensor:
        """Mean cross entropy over the local prompts."""
        if not isinstance(outputs, PromptOutputs):
            raise SotglpError("the loss of GalLoP needs the outputs of its own compare, with scores of each prompt")
        targets = targets[:, None].expand(-1, outputs.prompt_logits.shape[-1])
        return F.cross_entropy(self.backbone.logit_scale * outputs.prompt_logits, targets)

    def _match_each(self, encoded: EncodedImages, local_text: Tensor) -> list[LocalMatch]:
        """Match each local prompt separately."""
        patches, prompts = self._local_features(encoded, local_text)
        with torch.autocast(self.backbone.device.type, enabled=False):
            return [
                match_patches(patches, prompt, top_k=scale, matching="uniform", traceable=self.traceable)
                for prompt, scale in zip(prompts.split(1, dim=1), self.scales, strict=True)
            ]
