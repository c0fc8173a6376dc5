from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sotglp import SOTGLP, Backbone
from sotglp.settings import Matching
from sotglp.transport.plans import class_mass, dominance, patch_mass, prompt_overlap, prompt_similarity

SIZES = st.tuples(st.integers(1, 8), st.integers(1, 5))  # patches, prompts
SEEDS = st.integers(0, 2**32 - 1)


def masses(sizes: tuple[int, int], seed: int) -> Tensor:
    """Random masses (3, P, N), many of them zero; a whole prompt without mass among them now and then."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(3, *sizes, dtype=torch.float64, generator=generator)
    return values * (torch.rand(values.shape, generator=generator) < 0.6)


@pytest.mark.parametrize("matching", ["transport", "uniform", "per-prompt"])
def test_mass_of_a_models_plan(tiny_backbone: Backbone, matching: Matching) -> None:
    model = SOTGLP(tiny_backbone, ["cat", "dog", "sea"], n_local_prompts=3, top_k=5, matching=matching)
    plan, support = model.transport(torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    mass = patch_mass(plan, support, tiny_backbone.n_patches)
    assert mass.shape == (2, 3, 16, 3)
    by_hand = torch.zeros(2, 3, 16, 3)
    for b, c, k, j in torch.cartesian_prod(*(torch.arange(size) for size in plan.shape)).tolist():
        patch = support[b, c, k, j] if matching == "per-prompt" else support[b, c, k]
        by_hand[b, c, patch, j] += plan[b, c, k, j]
    assert torch.equal(mass, by_hand)
    torch.testing.assert_close(dominance(mass), torch.full((2, 3), 1 / 3), rtol=1e-5, atol=0)
    overlap = prompt_overlap(mass)
    assert ((overlap > 0) & (overlap < 1 + 1e-5)).all()
    if matching == "uniform":
        torch.testing.assert_close(overlap, torch.ones(2, 3))
    if matching == "per-prompt":
        shared = [
            len(set(one.tolist()) & set(other.tolist())) / 5
            for own in support.flatten(0, 1)
            for one, other in torch.combinations(torch.arange(3)).tolist()
            for one, other in [(own[:, one], own[:, other])]
        ]
        torch.testing.assert_close(overlap.flatten(), torch.tensor(shared).view(6, 3).mean(dim=1))


@given(SIZES, SEEDS)
@settings(deadline=None)
def test_overlap_is_the_mean_over_pairs(sizes: tuple[int, int], seed: int) -> None:
    mass = masses(sizes, seed)
    found = prompt_overlap(mass)
    assert found.shape == (3,)
    assert ((found >= 0) & (found <= 1 + 1e-12)).all()
    for one, value in zip(mass, found, strict=True):
        columns = [column / column.sum() if column.sum() > 0 else column for column in one.T]
        pairs = [torch.minimum(a, b).sum() for i, a in enumerate(columns) for b in columns[:i]]
        assert float(value) == pytest.approx(sum(map(float, pairs)) / max(len(pairs), 1), abs=1e-12)


@given(SIZES, SEEDS)
@settings(deadline=None)
def test_the_order_and_scale_of_prompts_change_nothing(sizes: tuple[int, int], seed: int) -> None:
    mass = masses(sizes, seed)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(sizes[1], generator=generator)
    for measure in (prompt_overlap, dominance):
        torch.testing.assert_close(measure(mass[..., order]), measure(mass), rtol=0, atol=1e-12)
        patches = torch.randperm(sizes[0], generator=generator)
        torch.testing.assert_close(measure(mass[:, patches]), measure(mass), rtol=0, atol=1e-12)
    scale = 0.1 + torch.rand(sizes[1], dtype=torch.float64, generator=generator)
    torch.testing.assert_close(prompt_overlap(mass * scale), prompt_overlap(mass), rtol=0, atol=1e-12)


@given(st.integers(1, 8), st.integers(2, 5), SEEDS)
@settings(deadline=None)
def test_identical_prompts_overlap_wholly_and_disjoint_ones_not(n_patches: int, n_prompts: int, seed: int) -> None:
    own = 0.01 + masses((n_patches, 1), seed)
    torch.testing.assert_close(prompt_overlap(own.expand(-1, -1, n_prompts)), torch.ones(3, dtype=own.dtype))
    disjoint = torch.zeros(3, n_prompts * n_patches, n_prompts, dtype=own.dtype)
    for prompt in range(n_prompts):
        disjoint[:, prompt * n_patches : (prompt + 1) * n_patches, prompt] = own[..., 0]
    assert prompt_overlap(disjoint).tolist() == [0, 0, 0]


@given(SIZES, SEEDS)
@settings(deadline=None)
def test_dominance_is_a_share(sizes: tuple[int, int], seed: int) -> None:
    mass = masses(sizes, seed)
    found = dominance(mass)
    some = mass.sum(dim=(1, 2)) > 0
    assert ((found[some] >= 1 / sizes[1] - 1e-12) & (found[some] <= 1 + 1e-12)).all()
    assert (found[~some] == 0).all()
    taken = torch.zeros_like(mass)
    taken[..., -1] = 0.01 + mass[..., -1]
    torch.testing.assert_close(dominance(taken), torch.ones(3, dtype=mass.dtype))


def test_a_single_prompt_has_nobody_to_overlap_with() -> None:
    mass = torch.rand(2, 5, 1)
    assert prompt_overlap(mass).tolist() == [0, 0]
    assert dominance(mass).tolist() == pytest.approx([1, 1])
    assert prompt_similarity(torch.rand(4, 1, 6)).tolist() == [0] * 4


@given(st.integers(2, 5), SEEDS)
@settings(deadline=None)
def test_similarity_is_the_mean_cosine_of_pairs(n_prompts: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    text = torch.randn(3, n_prompts, 7, dtype=torch.float64, generator=generator)
    found = prompt_similarity(text)
    pairs = torch.combinations(torch.arange(n_prompts))
    expected = torch.cosine_similarity(text[:, pairs[:, 0]], text[:, pairs[:, 1]], dim=-1).mean(dim=-1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    order = torch.randperm(n_prompts, generator=generator)
    lengths = 0.1 + torch.rand(3, n_prompts, 1, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(prompt_similarity((lengths * text)[:, order]), found, rtol=0, atol=1e-12)
    same = text[:, :1].expand(-1, n_prompts, -1)
    torch.testing.assert_close(prompt_similarity(same), torch.ones(3, dtype=text.dtype))
    assert prompt_similarity(torch.eye(7)[:n_prompts].unsqueeze(0)).tolist() == [0]


def test_the_mass_of_one_class_for_each_image() -> None:
    generator = torch.Generator().manual_seed(0)
    plan = torch.rand(3, 4, 2, 5, generator=generator)
    support = torch.rand(3, 4, 9, generator=generator).argsort(dim=-1)[..., :2]
    classes = torch.tensor([3, 0, 2])
    mass = patch_mass(plan, support, 9)
    expected = torch.stack([mass[image, place] for image, place in enumerate(classes.tolist())])
    assert torch.equal(class_mass(plan, support, classes, 9), expected)
