from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from sotglp import Backbone
from sotglp.features.rows import EncodedImages
from sotglp.images.image_set import ImageSet
from sotglp.methods.locoop import LoCoOp, ood_patch_loss
from support.prompt_models import NAMES, fit, start, stir


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_loops(logits: Tensor, targets: Tensor, n_first: int) -> float:
    """The formula patch by patch: mean negative entropy of those whose true class is not among the first."""
    found = []
    for patches, target in zip(logits.numpy(), targets.tolist(), strict=True):
        for patch in patches:
            shown = patch.tolist()
            if sum(value > shown[target] for value in shown) < n_first:  # a tie is for the true class
                continue
            powers = np.exp(patch - patch.max())
            shares = powers / powers.sum()
            found.append(sum(share * math.log(share) for share in shares.tolist()))
    return sum(found) / len(found) if found else 0.0


@pytest.mark.parametrize(("rank", "n_classes", "n_first"), [(0.2, 10, 2), (0.2, 1000, 200), (0.2, 3, 1), (0.5, 7, 4)])
def test_the_loss_is_the_formula_of_the_paper(rank: float, n_classes: int, n_first: int) -> None:
    logits, targets = drawn(4, 6, n_classes), torch.tensor([0, n_classes - 1, 1, 2])
    expected = by_loops(logits, targets, n_first)
    assert expected < 0
    assert ood_patch_loss(logits, targets, rank).item() == pytest.approx(expected, rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_loss_of_any_patches(data: st.DataObject) -> None:
    n_images, n_patches, n_classes = (data.draw(st.integers(1, most)) for most in (3, 4, 6))
    # Few values, so that many classes tie.
    values = st.lists(st.integers(-3, 3), min_size=n_classes, max_size=n_classes)
    rows = st.lists(st.lists(values, min_size=n_patches, max_size=n_patches), min_size=n_images, max_size=n_images)
    logits = torch.tensor(data.draw(rows), dtype=torch.float64)
    targets = torch.tensor(data.draw(st.lists(st.integers(0, n_classes - 1), min_size=n_images, max_size=n_images)))
    rank = data.draw(st.sampled_from([0.01, 0.2, 0.34, 0.5, 1.0]))
    found = ood_patch_loss(logits, targets, rank).item()
    assert found == pytest.approx(by_loops(logits, targets, max(round(rank * n_classes), 1)), abs=1e-9)
    assert -math.log(n_classes) - 1e-9 <= found <= 0


def test_no_patch_without_the_true_class_costs_nothing() -> None:
    logits = drawn(3, 5, 4).requires_grad_()
    loss = ood_patch_loss(logits, torch.tensor([0, 1, 2]), rank=1.0)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_the_slope_of_the_loss() -> None:
    logits, targets = drawn(2, 4, 5).requires_grad_(), torch.tensor([1, 3])
    assert torch.autograd.gradcheck(lambda values: ood_patch_loss(values, targets, 0.4), logits)


@pytest.mark.parametrize("projected", [False, True])
def test_what_it_is_trained_on(tiny_backbone: Backbone, images: Tensor, projected: bool) -> None:
    model = start(tiny_backbone, "locoop", n_global_prompts=2, rank=0.5, ood_weight=0.7)
    stir(model.global_prompts)
    features, tokens = tiny_backbone.encode_image(images)
    joint, text = tiny_backbone.project_patches(tokens), model.encode_text()
    targets = torch.tensor([0, 1, 2, 0, 1])
    outputs = model.compare(EncodedImages(features, joint if projected else tokens, projected), text, for_loss=True)
    loss = model.compute_loss(outputs, targets)

    prompts, scale = F.normalize(text.global_, dim=-1), tiny_backbone.logit_scale
    patch_logits = torch.einsum("bpd,cmd->bpcm", F.normalize(joint, dim=-1), prompts).mean(dim=-1)
    global_logits = torch.einsum("bd,cmd->bcm", F.normalize(features, dim=-1), prompts).mean(dim=-1)
    torch.testing.assert_close(outputs.patch_logits, patch_logits, rtol=1e-4, atol=1e-6)
    entropy = F.cross_entropy(scale * global_logits, targets).item()
    regularisation = 0.7 * by_loops(scale * patch_logits.detach(), targets, 2)
    assert regularisation < 0
    assert loss.global_.item() == pytest.approx(entropy, rel=1e-4)
    assert loss.local.item() == pytest.approx(regularisation, rel=1e-4)
    assert loss.total.item() == pytest.approx(entropy + regularisation, rel=1e-4)


def test_patches_move_the_global_prompts(tiny_backbone: Backbone, images: Tensor) -> None:
    model = start(tiny_backbone, "locoop").double()
    stir(model.global_prompts)
    targets = torch.tensor([0, 1, 2, 0, 1])

    def regularisation() -> Tensor:
        found: Tensor = model.loss(images.double(), targets, prompt_dropout=0.0).local
        return found

    regularisation().backward()  # type: ignore[no-untyped-call]
    slope, direction = model.global_prompts.grad, drawn(*model.global_prompts.shape, seed=1)
    assert slope.abs().max() > 1e-4
    with torch.no_grad():
        model.global_prompts += 1e-6 * direction
        above = regularisation()
        model.global_prompts -= 2e-6 * direction
        below = regularisation()
    assert float(above - below) / 2e-6 == pytest.approx(float((slope * direction).sum()), rel=1e-3)


def test_without_weight_it_is_coop_bit_for_bit(tiny_backbone: Backbone, class_folders: Path, images: Tensor) -> None:
    shots = ImageSet.from_path(class_folders)
    coop = fit(tiny_backbone, shots, "coop")
    weightless = fit(tiny_backbone, shots, "locoop", ood_weight=0)
    weighted = fit(tiny_backbone, shots, "locoop")
    assert torch.equal(weightless.model.global_prompts, coop.model.global_prompts)
    assert not torch.equal(weighted.model.global_prompts, coop.model.global_prompts)
    for found, expected in zip(weightless.model(images)[:-1], coop.model(images)[:-1], strict=True):
        assert torch.equal(found, expected)
    assert [row["loss"] for row in weightless.history] == [row["loss"] for row in coop.history]


def test_training_makes_patches_without_the_true_class_less_sure(tiny_backbone: Backbone, class_folders: Path) -> None:
    history = [
        fit(
            tiny_backbone, ImageSet.from_path(class_folders), "locoop", ood_weight=weight, epochs=20, batch_size=18
        ).history
        for weight in (1e-9, 2.0)
    ]
    weightless, weighted = (rows[-1]["loss_local"] for rows in history)
    assert weighted / 2.0 < weightless / 1e-9 < 0


def test_beside_local_prompts_their_loss_stays(tiny_backbone: Backbone, images: Tensor) -> None:
    model = LoCoOp(tiny_backbone, NAMES, top_k=5)
    targets = torch.tensor([0, 1, 2, 0, 1])
    loss = model.loss(images, targets, prompt_dropout=0.0)
    of_local = F.cross_entropy(tiny_backbone.logit_scale * loss.outputs.local_logits, targets)
    torch.testing.assert_close(loss.total, loss.global_ + loss.local)
    regularisation = model.config.ood_weight * ood_patch_loss(
        tiny_backbone.logit_scale * loss.outputs.patch_logits, targets, model.config.rank
    )
    torch.testing.assert_close(loss.local, of_local + regularisation)
    loss.total.backward()
    assert model.local_prompts.grad is not None
