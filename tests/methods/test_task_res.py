from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sotglp import Backbone
from sotglp.features.rows import EncodedImages
from sotglp.images.image_set import ImageSet
from sotglp.methods.task_res import TaskRes
from sotglp.methods.zero_shot import ZeroShot, sentence_features
from support.prompt_models import NAMES, fit


def test_without_residuals_it_is_zero_shot(tiny_backbone: Backbone, images: Tensor) -> None:
    found, expected = (kind(tiny_backbone, NAMES)(images) for kind in (TaskRes, ZeroShot))
    torch.testing.assert_close(found.global_logits, expected.global_logits)
    assert torch.equal(found.patch_logits, expected.patch_logits)


@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_logits_are_the_formula_of_the_paper(tiny_backbone: Backbone, images: Tensor, scale: float) -> None:
    model = TaskRes(tiny_backbone, NAMES, residual_scale=scale)
    residuals = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.residuals.copy_(residuals)
        f = tiny_backbone.clip.encode_image(images).double().numpy()
    text = sentence_features(tiny_backbone, NAMES, ["a photo of a {}."])[:, 0].double().numpy()
    text = 10 * text / np.linalg.norm(text, axis=1, keepdims=True) + scale * residuals.double().numpy()
    f, text = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (f, text))
    np.testing.assert_allclose(model(images).global_logits.detach(), f @ text.T, rtol=1e-4, atol=1e-6)


def test_the_slope_of_residuals(tiny_backbone: Backbone) -> None:
    model = TaskRes(tiny_backbone.double(), NAMES).double()
    queries = torch.randn(3, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    targets = torch.tensor([2, 0, 1])

    def loss(residuals: Tensor) -> Tensor:
        model._parameters["residuals"] = residuals  # type: ignore[assignment]
        outputs = model.compare(EncodedImages(queries, torch.zeros(3, 16, 64)), model.encode_text(), for_loss=True)
        return model.compute_loss(outputs, targets).total

    start = 0.1 * torch.randn(3, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    assert torch.autograd.gradcheck(loss, start.requires_grad_())


def test_residuals_alone_are_learned_and_lower_the_loss(tiny_backbone: Backbone, class_folders: Path) -> None:
    shots = ImageSet.from_path(class_folders)
    fitted = fit(tiny_backbone, shots, "task-res", epochs=20, batch_size=18, optimizer="adamw")
    assert [name for name, value in fitted.model.named_parameters() if value.requires_grad] == ["residuals"]
    assert fitted.history[-1]["loss"] < fitted.history[0]["loss"]
    other = fitted.model.for_new_classes(["cat", "dog"])
    batch = torch.randn(2, 3, 32, 32)
    assert torch.equal(other(batch).global_logits, ZeroShot(tiny_backbone, ["cat", "dog"])(batch).global_logits)
