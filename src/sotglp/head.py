"""The local branch: patches of an image against the local prompts of each class."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sotglp.transport import sinkhorn


class LocalMatch(NamedTuple):
    """How patches and local prompts met.

    Attributes
    ----------
    scores : Tensor
        Local score of each class, (B, C).
    patch_scores : Tensor
        Mean cosine of a patch with the N prompts of a class, without gradient, (B, P, C).
    plan : Tensor
        Transport plan on the support, without gradient, (B, C, K, N).
    support : Tensor
        Patches in the support, best first, (B, C, K).
    """

    scores: Tensor
    patch_scores: Tensor
    plan: Tensor
    support: Tensor


def match_patches(
    patches: Tensor, prompts: Tensor, *, top_k: int, epsilon: float, relaxation: float | None, factor: float
) -> LocalMatch:
    """Compare patches with local prompts by sparse optimal transport.

    Parameters
    ----------
    patches : Tensor
        Patch features of unit length, (B, P, d), float32.
    prompts : Tensor
        Local text features of unit length, (C, N, d), float32.
    top_k : int
        Patches kept for each image and class, K.
    epsilon : float
        Entropic regularisation.
    relaxation : float or None
        Weight of relaxed marginals; None for balanced transport.
    factor : float
        Multiplies the transported similarity; 1 / N in the published method.

    References
    ----------
    SOT-GLP, arXiv 2603.08347, sections on sparse support and on optimal transport.
    """
    similarity = torch.einsum("bpd,cjd->bpcj", patches, prompts)  # S, (B, P, C, N)
    patch_scores = similarity.detach().mean(dim=-1)
    support = patch_scores.topk(top_k, dim=1).indices  # (B, K, C)
    kept = similarity.gather(1, support.unsqueeze(-1).expand(-1, -1, -1, similarity.shape[-1]))
    kept = kept.transpose(1, 2)  # (B, C, K, N)
    plan = sinkhorn(1 - kept.detach(), epsilon, relaxation=relaxation)
    scores = factor * (plan * kept).sum(dim=(-2, -1))
    return LocalMatch(scores, patch_scores, plan, support.transpose(1, 2))
