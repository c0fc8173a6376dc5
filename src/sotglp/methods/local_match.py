"""The local branch: patches of an image matched with the local prompts of each class.

The similarities of all patches with all prompts, (B, P, C, N), are never held at once, neither forward nor backward.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sotglp.settings import Matching
from sotglp.transport.solver import sinkhorn
from sotglp.transport.traceable import sweep_plans

SIMILARITY_BYTES = 2**26
"""Memory of the similarities S that are held at once: classes are processed in chunks of this size."""


class LocalMatch(NamedTuple):
    """Result of matching patches with local prompts.

    ``scores`` (B, C) are the local scores of classes, ``patch_scores`` (B, P, C) the mean cosines of patches with the N
    prompts of a class, and ``plan`` (B, C, K, N) the transport plan on the support, the latter two without gradient.
    ``support`` holds patch indices, best first: (B, C, K), or (B, C, K, N) where each prompt has its own.
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
    traceable: bool = False,
) -> LocalMatch:
    """Match patches with local prompts by sparse optimal transport, or by one of its ablations.

    Parameters
    ----------
    patches, prompts : Tensor
        Features of unit length, (B, P, d) and (C, N, d), float32 or float64.
    top_k : int
        Patches in the support of each image and class, K.
    epsilon, relaxation
        Of :func:`sotglp.transport.sinkhorn`, for ``matching="transport"`` only.
    factor : float, default 1.0
        Multiplies the transported similarity; 1 / N in the published method.
    matching : {"transport", "uniform", "per-prompt"}, default "transport"
        See :class:`sotglp.SOTGLP`; the uniform plan is 1 / (K N).
    traceable : bool, default False
        Use a solver that ``torch.export`` can trace, for balanced transport only, and hold all similarities at once.

    References
    ----------
    SOT-GLP, arXiv 2603.08347, sections on sparse support and on optimal transport; GalLoP, arXiv 2407.01400, for
    ``per-prompt``.
    """
    n_classes, n_prompts, _ = prompts.shape
    chunk = n_classes
    if not traceable:  # a traced batch has no size to divide by
        chunk = max(1, SIMILARITY_BYTES // (patches.shape[0] * patches.shape[1] * n_prompts * patches.itemsize))
    per_prompt = matching == "per-prompt"
    with torch.no_grad():
        patch_scores, support, kept = _select_patches(patches, prompts, top_k, chunk, per_prompt)
    if matching == "transport":
        plan = sweep_plans(1 - kept, epsilon) if traceable else sinkhorn(1 - kept, epsilon, relaxation=relaxation)
    else:
        plan = torch.full_like(kept, 1 / (top_k * n_prompts))
    scores: Tensor = factor * _TransportedSimilarity.apply(patches, prompts, support, plan, kept, chunk)
    return LocalMatch(scores, patch_scores, plan, support)


def _select_patches(
    patches: Tensor, prompts: Tensor, top_k: int, chunk: int, per_prompt: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean similarity (B, P, C), the support of its largest values or of each prompt's, and S there (B, C, K, N)."""
    n_images, n_patches, _ = patches.shape
    n_classes, n_prompts, _ = prompts.shape
    means = patches.new_empty(n_images, n_patches, n_classes)
    kept = patches.new_empty(n_images, n_classes, top_k, n_prompts)
    support = torch.empty_like(kept if per_prompt else kept[..., 0], dtype=torch.long)
    for classes in _class_chunks(n_classes, chunk):
        similarity = patches.flatten(0, 1) @ prompts[classes].flatten(0, 1).T
        similarity = similarity.view(n_images, n_patches, -1, n_prompts)  # S, (B, P, C', N)
        means[:, :, classes] = similarity.mean(dim=-1)
        ranked = similarity if per_prompt else means[:, :, classes]
        best = ranked.topk(top_k, dim=1).indices  # (B, K, C') or (B, K, C', N)
        support[:, classes] = best.transpose(1, 2)
        kept[:, classes] = similarity.gather(1, _for_each_prompt(best, n_prompts)).transpose(1, 2)
    return means, support, kept


class _TransportedSimilarity(torch.autograd.Function):
    """Sum of T S over the support, (B, C), where the plan T takes no gradient.

    So the gradient with respect to S is T on the support and 0 elsewhere.
    """

    @staticmethod
    def forward(
        ctx: Any, patches: Tensor, prompts: Tensor, support: Tensor, plan: Tensor, kept: Tensor, chunk: int
    ) -> Tensor:
        ctx.chunk = chunk
        ctx.save_for_backward(patches, prompts, support, plan)
        return (plan * kept).sum(dim=(-2, -1))

    @staticmethod
    @once_differentiable  # type: ignore[misc]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        patches, prompts, support, plan = ctx.saved_tensors
        n_images, n_patches, n_prompts = len(patches), patches.shape[1], prompts.shape[1]
        patches_grad = patches.new_zeros(patches.shape) if ctx.needs_input_grad[0] else None
        prompts_grad = torch.empty_like(prompts) if ctx.needs_input_grad[1] else None
        for classes in _class_chunks(len(prompts), ctx.chunk):
            weights = (grad[:, classes, None, None] * plan[:, classes]).transpose(1, 2)  # (B, K, C', N)
            best = _for_each_prompt(support[:, classes].transpose(1, 2), n_prompts)
            # A dense product with these zeros takes less time than gathering the kept patches, on CPUs too.
            similarity_grad = patches.new_zeros(n_images, n_patches, *weights.shape[2:]).scatter_(1, best, weights)
            similarity_grad = similarity_grad.view(n_images * n_patches, -1)
            if patches_grad is not None:
                patches_grad.flatten(0, 1).addmm_(similarity_grad, prompts[classes].flatten(0, 1))
            if prompts_grad is not None:
                prompts_grad[classes] = (similarity_grad.T @ patches.flatten(0, 1)).view_as(prompts[classes])
        return patches_grad, prompts_grad, None, None, None, None


def _class_chunks(n_classes: int, chunk: int) -> list[slice]:
    return [slice(start, min(start + chunk, n_classes)) for start in range(0, n_classes, chunk)]


def _for_each_prompt(patch_indices: Tensor, n_prompts: int) -> Tensor:
    """Expand indices (B, K, C) to (B, K, C, N) for gather and scatter."""
    if patch_indices.ndim == 4:
        return patch_indices
    return patch_indices.unsqueeze(-1).expand(-1, -1, -1, n_prompts)
