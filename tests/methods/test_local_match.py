from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sotglp.methods import local_match as head
from sotglp.methods.local_match import LocalMatch, match_patches
from sotglp.settings import Matching
from sotglp.transport.solver import sinkhorn

MATCHINGS: list[Matching] = ["transport", "uniform", "per-prompt"]
SETTINGS: dict[str, Any] = {"top_k": 5, "epsilon": 0.1, "relaxation": None, "factor": 0.5}


def unit(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    values = torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    return F.normalize(values, dim=-1).requires_grad_()


def plain_match(patches: Tensor, prompts: Tensor, matching: Matching = "transport") -> LocalMatch:
    """The formula as it stands in the paper: everything dense, gradients by autograd."""
    similarity = torch.einsum("bpd,cjd->bpcj", patches, prompts)
    if matching == "per-prompt":
        kept, best = similarity.topk(SETTINGS["top_k"], dim=1)
        # Each prompt's mean over patches of its own, averaged over the prompts.
        scores = SETTINGS["factor"] * kept.mean(dim=1).mean(dim=-1)
        plan = torch.full_like(kept, 1 / SETTINGS["top_k"] / prompts.shape[1]).transpose(1, 2)
        return LocalMatch(scores, similarity.detach().mean(dim=-1), plan.detach(), best.transpose(1, 2))
    support = similarity.mean(dim=-1).topk(SETTINGS["top_k"], dim=1).indices
    kept = torch.stack(
        [
            similarity[image].gather(0, support[image].unsqueeze(-1).expand(-1, -1, prompts.shape[1]))
            for image in range(len(patches))
        ]
    ).transpose(1, 2)
    plan = sinkhorn(1 - kept.detach(), SETTINGS["epsilon"])
    if matching == "uniform":
        plan = torch.full_like(plan, 1 / SETTINGS["top_k"] / prompts.shape[1])
    scores = SETTINGS["factor"] * (plan * kept).sum(dim=(2, 3))
    return LocalMatch(scores, similarity.detach().mean(dim=-1), plan, support.transpose(1, 2))


@pytest.fixture(params=[2**26, 1], ids=["whole", "class by class"])
def chunk_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(head, "SIMILARITY_BYTES", request.param)
    return int(request.param)


@pytest.mark.parametrize("matching", MATCHINGS)
@pytest.mark.parametrize("shape", [(3, 16, 7, 4, 8), (1, 5, 2, 1, 3), (4, 9, 3, 6, 12)], ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-6)], ids=str)
@pytest.mark.usefixtures("chunk_bytes")
def test_scores_and_gradients_are_those_of_the_dense_formula(
    shape: tuple[int, int, int, int, int], dtype: torch.dtype, tolerance: float, matching: Matching
) -> None:
    n_images, n_patches, n_classes, n_prompts, size = shape
    patches = unit(n_images, n_patches, size, seed=0, dtype=dtype)
    prompts = unit(n_classes, n_prompts, size, seed=1, dtype=dtype)
    found = match_patches(patches, prompts, **SETTINGS, matching=matching)
    plain = plain_match(patches, prompts, matching)
    assert torch.equal(found.support, plain.support)
    for ours, theirs in zip(found, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
    weights = torch.randn(n_images, n_classes, dtype=dtype, generator=torch.Generator().manual_seed(2))
    ours, theirs = (torch.autograd.grad((match.scores * weights).sum(), [patches, prompts]) for match in (found, plain))
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).norm() <= tolerance * other.norm()


def test_a_uniform_plan_has_the_support_of_transport_and_no_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    patches, prompts = unit(3, 16, 8, seed=0), unit(7, 4, 8, seed=1)
    transported = match_patches(patches, prompts, **SETTINGS)
    monkeypatch.setattr(head, "sinkhorn", None)
    uniform = match_patches(patches, prompts, **SETTINGS, matching="uniform")
    assert torch.equal(uniform.support, transported.support)
    own = match_patches(patches, prompts, **SETTINGS, matching="per-prompt")
    assert (own.scores >= uniform.scores).all()
    assert (own.support.shape, own.plan.shape) == ((3, 7, 5, 4), (3, 7, 5, 4))


@pytest.mark.parametrize("matching", MATCHINGS)
@pytest.mark.usefixtures("chunk_bytes")
def test_gradients_are_finite_differences_of_the_sum(matching: Matching) -> None:
    patches, prompts = unit(2, 9, 6, seed=0), unit(4, 3, 6, seed=1)
    match = match_patches(patches, prompts, **SETTINGS, matching=matching)
    support = match.support if matching == "per-prompt" else match.support.unsqueeze(-1).expand(-1, -1, -1, 3)

    def score(patches: Tensor, prompts: Tensor) -> Tensor:
        """The transported similarity with the support and the plan held, as the method holds them."""
        with torch.no_grad():
            similarity = torch.einsum("bpd,cjd->bcpj", patches, prompts)
            kept = similarity.gather(2, support)
        result: Tensor = head._TransportedSimilarity.apply(patches, prompts, match.support, match.plan, kept, 2)
        return result

    assert torch.autograd.gradcheck(score, (patches, prompts))


def test_only_wanted_gradients_are_computed() -> None:
    patches, prompts = unit(2, 9, 6, seed=0).detach(), unit(4, 3, 6, seed=1)
    match_patches(patches, prompts, **SETTINGS).scores.sum().backward()
    assert prompts.grad is not None
    assert patches.grad is None
    with torch.no_grad():
        assert not match_patches(patches, prompts, **SETTINGS).scores.requires_grad


@pytest.mark.parametrize("matching", MATCHINGS)
def test_no_tensor_holds_all_similarities(monkeypatch: pytest.MonkeyPatch, matching: Matching) -> None:
    """Record the largest tensor that any operation makes, forward and backward."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            result = operation(*args, **(kwargs or {}))
            for value in result if isinstance(result, tuple | list) else (result,):
                if isinstance(value, Tensor):
                    largest = max(largest, value.untyped_storage().nbytes() // value.itemsize)
            return result

    n_images, n_patches, n_classes, n_prompts, size = 4, 50, 40, 6, 8
    monkeypatch.setattr(head, "SIMILARITY_BYTES", 4 * n_images * n_patches * n_prompts)  # one class in float32
    patches = unit(n_images, n_patches, size, seed=0, dtype=torch.float32)
    prompts = unit(n_classes, n_prompts, size, seed=1, dtype=torch.float32)
    with Watch():
        match_patches(patches, prompts, **SETTINGS, matching=matching).scores.sum().backward()
    assert n_images * n_patches <= largest < n_images * n_patches * n_classes * n_prompts / 3
