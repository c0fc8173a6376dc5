from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from sotglp import SOTGLP, Backbone, SotglpError
from sotglp.features.rows import EncodedImages
from sotglp.methods.zero_shot import ZeroShot
from sotglp.settings import Residual
from support.prompt_models import NAMES
from support.samples import drawn_clusters

KINDS: tuple[Residual, ...] = ("gda", "proker", "pool")


QUERIES = F.normalize(torch.randn(6, 32, generator=torch.Generator().manual_seed(3)), dim=1)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_the_weighted_sum_of_both_branches_and_the_residual(tiny_backbone: Backbone, kind: Residual) -> None:
    model = SOTGLP(tiny_backbone, NAMES, top_k=4, residual=kind, fusion=(0.2, 0.7, 1.5))
    shots, classes = drawn_clusters(3, 5, width=32, seed=0)
    model.residual = model.new_residual().fit(shots, classes, ZeroShot(tiny_backbone, NAMES))
    encoded = EncodedImages(3 * QUERIES, torch.randn(6, 16, 64, generator=torch.Generator().manual_seed(1)))
    outputs = model.compare(encoded, model.encode_text())
    cosines = 0.2 * outputs.global_logits + 0.7 * outputs.local_logits
    expected = tiny_backbone.logit_scale * cosines + 1.5 * model.residual(QUERIES)
    torch.testing.assert_close(model.logits(outputs), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_kept_with_the_model_and_follows_its_classes(tiny_backbone: Backbone, kind: Residual) -> None:
    model = SOTGLP(tiny_backbone, NAMES, top_k=4, residual=kind)
    shots, classes = drawn_clusters(3, 5, width=32, seed=0)
    model.residual = model.new_residual().fit(shots, classes, ZeroShot(tiny_backbone, NAMES))
    same = SOTGLP(tiny_backbone, NAMES, top_k=4, residual=kind)
    same.restore(model.kept_tensors())
    assert same.residual is not None
    torch.testing.assert_close(same.residual(QUERIES), model.residual(QUERIES), rtol=0, atol=0)
    fewer = SOTGLP(tiny_backbone, [NAMES[2], NAMES[0]], top_k=4, residual=kind).inherit(model, [2, 0])
    assert fewer.residual is not None
    torch.testing.assert_close(fewer.residual(QUERIES), model.residual(QUERIES)[:, [2, 0]])
    with pytest.raises(SotglpError, match="fit the model again"):
        SOTGLP(tiny_backbone, [*NAMES, "new"], top_k=4, residual=kind).inherit(model, [0, 1, 2, None])


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_of_another_shape_are_refused(tiny_backbone: Backbone, kind: Residual) -> None:
    model = SOTGLP(tiny_backbone, NAMES, top_k=4, residual=kind)
    shots, classes = drawn_clusters(3, 5, width=32, seed=0)
    model.residual = model.new_residual().fit(shots, classes, ZeroShot(tiny_backbone, NAMES))
    for name, tensor in list(model.residual.named_buffers()):
        wrong = {**model.kept_tensors(), f"residual.{name}": tensor[None]}
        with pytest.raises(SotglpError, match="residual"):
            SOTGLP(tiny_backbone, NAMES, top_k=4, residual=kind).restore(wrong)
