"""The local branch: patches of an image against the local prompts of each class.

Similarities of all patches with all prompts, (B, P, C, N), never exist as a whole, neither forward nor backward.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sotglp.settings import Matching
from sotglp.transport.solver import sinkhorn
from sotglp.transport.traceable import sweep_plans

SIMILARITY_BYTES = 2**26
"""Similarities S of all patches with all prompts that are held at once: classes come in chunks of this size."""


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
        Patches in the support, best first: (B, C, K), or (B, C, K, N) where each prompt has its own.
    """

    scores: Tensor
    patch_scores: Tensor
    plan: Tensor
    support: Tensor


def match_patches(
    patches: Tensor,
    prompts: Tensor,
    *,
    top_k: int,
    epsilon: float = 0.1,
    relaxation: float | None = None,
    factor: float = 1.0,
    matching: Matching = "transport",
) -> LocalMatch:
    """Compare patches with local prompts by sparse optimal transport, or by one of the ways it is measured against.

    Parameters
    ----------
    patches : Tensor
        Patch features of unit length, (B, P, d), float32 or float64.
    prompts : Tensor
        Local text features of unit length, (C, N, d), of the same dtype.
    top_k : int
        Patches kept for each image and class, K.
    epsilon : float, default 0.1
        Entropic regularisation.
    relaxation : float or None, default None
        Weight of relaxed marginals; None for balanced transport.
    factor : float, default 1.0
        Multiplies the transported similarity; 1 / N in the published method.
    matching : {"transport", "uniform", "per-prompt"}, default "transport"
        ``transport``: an optimal plan on one support for all prompts of a class. ``uniform``: the plan 1 / (K N) there.
        ``per-prompt``: the same on K patches of each prompt's own. Only the first looks at ``epsilon`` and
        ``relaxation``.

    References
    ----------
    SOT-GLP, arXiv 2603.08347, sections on sparse support and on optimal transport; GalLoP, arXiv 2407.01400, for
    patches of each prompt's own.
    """
    with torch.no_grad():
        patch_scores, support, kept = _keep_best(patches, prompts, top_k, per_prompt=matching == "per-prompt")
    if matching == "transport":
        # What is traced on the meta device has no values to look at: see sotglp.export.graph.
        is_traced = kept.device.type == "meta"
        plan = sweep_plans(1 - kept, epsilon) if is_traced else sinkhorn(1 - kept, epsilon, relaxation=relaxation)
    else:
        plan = torch.full_like(kept, 1 / (top_k * prompts.shape[1]))
    scores: Tensor = factor * _TransportedSimilarity.apply(patches, prompts, support, plan, kept)
    return LocalMatch(scores, patch_scores, plan, support)


def _keep_best(patches: Tensor, prompts: Tensor, top_k: int, *, per_prompt: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Mean similarity (B, P, C), the support of its largest values or of each prompt's, and S there (B, C, K, N)."""
    n_images, n_patches, _ = patches.shape
    n_classes, n_prompts, _ = prompts.shape
    means = patches.new_empty(n_images, n_patches, n_classes)
    kept = patches.new_empty(n_images, n_classes, top_k, n_prompts)
    support = torch.empty_like(kept if per_prompt else kept[..., 0], dtype=torch.long)
    for classes in _class_chunks(patches, prompts):
        similarity = patches.flatten(0, 1) @ prompts[classes].flatten(0, 1).T
        similarity = similarity.view(n_images, n_patches, -1, n_prompts)  # S, (B, P, C', N)
        means[:, :, classes] = similarity.mean(dim=-1)
        ranked = similarity if per_prompt else means[:, :, classes]
        best = ranked.topk(top_k, dim=1).indices  # (B, K, C') or (B, K, C', N)
        support[:, classes] = best.transpose(1, 2)
        kept[:, classes] = similarity.gather(1, _for_each_prompt(best, n_prompts)).transpose(1, 2)
    return means, support, kept


class _TransportedSimilarity(torch.autograd.Function):
    """Sum of T S over the support, (B, C).

    The plan T takes no gradient, so the sum is linear in S: its slope is T on the support and 0 elsewhere.
    """

    @staticmethod
    def forward(ctx: Any, patches: Tensor, prompts: Tensor, support: Tensor, plan: Tensor, kept: Tensor) -> Tensor:
        ctx.save_for_backward(patches, prompts, support, plan)
        return (plan * kept).sum(dim=(-2, -1))

    @staticmethod
    @once_differentiable  # type: ignore[misc]
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        patches, prompts, support, plan = ctx.saved_tensors
        n_images, n_patches, n_prompts = len(patches), patches.shape[1], prompts.shape[1]
        patches_slope = patches.new_zeros(patches.shape) if ctx.needs_input_grad[0] else None
        prompts_slope = torch.empty_like(prompts) if ctx.needs_input_grad[1] else None
        for classes in _class_chunks(patches, prompts):
            weights = (slope[:, classes, None, None] * plan[:, classes]).transpose(1, 2)  # (B, K, C', N)
            best = _for_each_prompt(support[:, classes].transpose(1, 2), n_prompts)
            # A dense product with these zeros takes less time than gathering the kept patches, on CPUs too.
            similarity_slope = patches.new_zeros(n_images, n_patches, *weights.shape[2:]).scatter_(1, best, weights)
            similarity_slope = similarity_slope.view(n_images * n_patches, -1)
            if patches_slope is not None:
                patches_slope.flatten(0, 1).addmm_(similarity_slope, prompts[classes].flatten(0, 1))
            if prompts_slope is not None:
                prompts_slope[classes] = (similarity_slope.T @ patches.flatten(0, 1)).view_as(prompts[classes])
        return patches_slope, prompts_slope, None, None, None


def _class_chunks(patches: Tensor, prompts: Tensor) -> Iterator[slice]:
    """Slices of classes whose similarities to all patches take at most SIMILARITY_BYTES, or of one class."""
    n_classes, n_prompts, _ = prompts.shape
    if patches.device.type == "meta":  # nothing is held, and a traced batch has no size to divide by
        return iter((slice(0, n_classes),))
    per_class = patches.shape[0] * patches.shape[1] * n_prompts * patches.itemsize
    size = max(1, SIMILARITY_BYTES // per_class)
    return (slice(start, min(start + size, n_classes)) for start in range(0, n_classes, size))


def _for_each_prompt(patch_indices: Tensor, n_prompts: int) -> Tensor:
    """Indices (B, K, C) repeated for the N prompts, (B, K, C, N), as gather and scatter want them; else as they are."""
    if patch_indices.ndim == 4:
        return patch_indices
    return patch_indices.unsqueeze(-1).expand(-1, -1, -1, n_prompts)
