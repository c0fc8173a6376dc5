from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import Tensor

from sotglp import Backbone, SotglpError
from sotglp.errors import OldClassesOnlyError
from sotglp.features.rows import EncodedImages
from sotglp.images.image_set import ImageSet
from sotglp.methods.clap import CLAP
from sotglp.methods.zero_shot import ZeroShot
from support.prompt_models import NAMES, fit
from support.samples import drawn_clusters


def test_it_starts_as_zero_shot(tiny_backbone: Backbone, images: Tensor) -> None:
    found, expected = (kind(tiny_backbone, NAMES)(images) for kind in (CLAP, ZeroShot))
    torch.testing.assert_close(found.global_logits, expected.global_logits)
    assert torch.equal(found.patch_logits, expected.patch_logits)


def test_loss_is_cross_entropy_and_the_constraint_of_the_paper(tiny_backbone: Backbone) -> None:
    model, free = (CLAP(tiny_backbone, NAMES, constrained=constrained) for constrained in (True, False))
    shots, classes = drawn_clusters(3, 4, width=32, seed=0)
    start = model.prototypes.detach().double().numpy()
    np.testing.assert_allclose(np.linalg.norm(start, axis=1), 10, rtol=1e-5)
    for one in (model, free):
        one.fit_features(shots, classes)
        with torch.no_grad():
            one.prototypes += 0.1 * torch.randn(3, 32, generator=torch.Generator().manual_seed(2))
    encoded = EncodedImages(shots.float(), torch.zeros(12, 16, 64))
    losses = [
        one.compute_loss(one.compare(encoded, one.encode_text(), for_loss=True), classes) for one in (model, free)
    ]

    f, w = shots.numpy(), model.prototypes.detach().double().numpy()
    f, unit_text, unit_w = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (f, start, w))
    scale = float(tiny_backbone.logit_scale)
    known = softmax(scale * f @ unit_text.T, axis=1)
    multipliers = [known[classes == c, c].mean() for c in range(3)]
    np.testing.assert_allclose(model.multipliers, multipliers, rtol=1e-4)
    entropy = -np.log(softmax(scale * f @ unit_w.T, axis=1)[np.arange(12), classes]).mean()
    constraint = np.mean(multipliers * ((w - start) ** 2).sum(axis=1))
    assert losses[1].total.item() == pytest.approx(entropy, rel=1e-4)
    assert losses[0].total.item() == pytest.approx(entropy + constraint, rel=1e-4)
    assert (losses[0].global_ + losses[0].local).item() == pytest.approx(losses[0].total.item())


def test_the_constraint_keeps_prototypes_near_text(tiny_backbone: Backbone, class_folders: Path) -> None:
    shots = ImageSet.from_path(class_folders)
    start = CLAP(tiny_backbone, shots.classes).prototypes
    moved = []
    for constrained in (True, False):
        fitted = fit(tiny_backbone, shots, "clap", epochs=20, batch_size=18, constrained=constrained)
        assert [name for name, value in fitted.model.named_parameters() if value.requires_grad] == ["prototypes"]
        moved.append((fitted.model.prototypes - start).norm().item())
    assert 0 < moved[0] < moved[1]
    assert fitted.history[-1]["loss"] < fitted.history[0]["loss"]


def test_old_classes_only(tiny_backbone: Backbone) -> None:
    with pytest.raises(OldClassesOnlyError, match="kind clap"):
        CLAP(tiny_backbone, NAMES).for_new_classes(["cat", "dog"])
    with pytest.raises(SotglpError, match=f"no image of the class '{NAMES[1]}'"):
        CLAP(tiny_backbone, NAMES).fit_features(torch.randn(4, 32), torch.tensor([0, 2, 0, 2]))
