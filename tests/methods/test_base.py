from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from torch import Tensor, nn

from sotglp import Backbone, SotglpError
from sotglp.errors import OldClassesOnlyError
from sotglp.features.rows import EncodedImages
from sotglp.methods.base import AdaptedModel, Outputs, full_precision
from sotglp.methods.text_features import TextFeatures
from sotglp.settings import Settings

NAMES = ["cat", "dog", "sea"]


class NoSettings(Settings):
    pass


class Directions(AdaptedModel):
    """The least that a method may be: a direction for each class, an offset, and a part that may be left out."""

    kind: ClassVar[str] = "directions"
    Config: ClassVar[type[Settings]] = NoSettings
    kept: ClassVar[tuple[str, ...]] = ("directions", "offsets", "extra")

    def __init__(self, backbone: Backbone, class_names: Any) -> None:
        super().__init__(backbone, class_names, NoSettings())
        directions = torch.randn(len(class_names), backbone.embed_dim, generator=torch.Generator().manual_seed(0))
        self.directions = nn.Parameter(directions)
        self.fixed = nn.Parameter(torch.ones(1), requires_grad=False)
        self.register_buffer("offsets", torch.zeros(len(class_names)))
        self.offsets: Tensor
        self.extra: Tensor | None = None

    def encode_text(self, classes: Any = None) -> TextFeatures:
        return TextFeatures(self.directions[:, None], self.directions[:, None])

    def global_cosines(self, image_features: Tensor, text: TextFeatures) -> Tensor:
        return torch.tanh(image_features @ text.global_[:, 0].T / 10) + self.offsets

    def compare(self, encoded: EncodedImages, text: TextFeatures, **_: Any) -> Outputs:
        logits = self.global_cosines(encoded.image_features, text)
        return Outputs(logits, logits, logits[:, None])


@pytest.fixture
def model(tiny_backbone: Backbone) -> Directions:
    return Directions(tiny_backbone, NAMES)


def test_defaults_of_a_method(model: Directions) -> None:
    assert [id(parameter) for parameter in model.learned] == [id(model.directions)]  # what takes gradients
    assert not model.needs_shot_features
    before = model.directions.clone()
    model.fit_features(torch.zeros(2, 32), torch.tensor([0, 1]))
    assert torch.equal(model.directions, before)
    assert model.draw_prompts(4, 0.5) is None
    assert model.local_projection is None
    assert model.class_names == ("cat", "dog", "sea")
    with pytest.raises(OldClassesOnlyError, match="kind directions"):
        model.for_new_classes(["bird", "tree"])
    assert issubclass(OldClassesOnlyError, SotglpError)
    with pytest.raises(SotglpError, match="kind directions"):
        model.partial_fit_features(torch.zeros(1, 32), torch.tensor([0]))


def test_images_go_through_the_backbone_without_gradient(model: Directions, images: Tensor) -> None:
    expected = model.compare(EncodedImages(*model.backbone.encode_image(images)), model.encode_text())
    for found, plain in zip(model(images)[:3], expected[:3], strict=True):
        assert torch.equal(found, plain)
    images.requires_grad_()
    model(images).global_logits.sum().backward()
    assert images.grad is None
    assert model.directions.grad is not None


def test_probabilities_and_loss_are_those_of_scaled_cosines(model: Directions, images: Tensor) -> None:
    outputs, targets = model(images), torch.tensor([0, 2, 1, 1, 0])
    logits = model.backbone.logit_scale * outputs.global_logits.detach().double().numpy()
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.predict_proba(images), shares, rtol=1e-5)
    assert not model.predict_proba(images).requires_grad
    loss = model.compute_loss(outputs, targets)
    assert loss.total.item() == loss.global_.item() == pytest.approx(log_loss(targets.numpy(), shares), rel=1e-5)
    assert loss.local.item() == 0
    assert loss.outputs is outputs


def test_kept_tensors_come_back(model: Directions) -> None:
    kept = {"directions": torch.full((3, 32), 2.0), "offsets": torch.tensor([1.0, 2.0, 3.0])}
    model.restore({**kept, "unknown": torch.zeros(1)})
    assert torch.equal(model.directions, kept["directions"])
    assert torch.equal(model.offsets, kept["offsets"])
    assert [id(parameter) for parameter in model.learned] == [id(model.directions)]
    # They are copied: what comes after changes nothing.
    kept["directions"].zero_()
    assert model.directions.min() == 2


@pytest.mark.parametrize(
    ("damaged", "name"),
    [
        ({"directions": None}, "directions"),
        ({"directions": torch.zeros(2, 32)}, "directions"),
        ({"directions": torch.zeros(3, 32, dtype=torch.long)}, "directions"),
        ({"offsets": torch.zeros(3, 1)}, "offsets"),
    ],
)
def test_tensors_that_do_not_fit_are_named(model: Directions, damaged: dict[str, Tensor | None], name: str) -> None:
    kept = {"directions": torch.zeros(3, 32), "offsets": torch.zeros(3), **damaged}
    with pytest.raises(SotglpError, match=f"its {name} is missing"):
        model.restore({part: value for part, value in kept.items() if value is not None})


class DirectionsByClass(Directions):
    class_rows = ("directions",)


def test_classes_go_on_from_rows_of_others(tiny_backbone: Backbone) -> None:
    assert Directions(tiny_backbone, NAMES).class_rows == ()
    other = DirectionsByClass(tiny_backbone, NAMES)
    with torch.no_grad():
        other.directions.copy_(torch.arange(3.0)[:, None].expand(3, 32))
        other.offsets.copy_(torch.tensor([5.0, 6.0, 7.0]))
    changed = DirectionsByClass(tiny_backbone, ["sea", "bird", "cat"]).train()
    assert changed.inherit(other, [2, None, 0]) is changed
    assert changed.directions[:, 0].tolist() == [2, 1, 0]  # a new class starts from their mean
    assert changed.offsets.tolist() == [5, 6, 7]
    assert not changed.training
    assert other.directions[:, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_half_precision_is_lifted(dtype: torch.dtype) -> None:
    lifted = full_precision(torch.tensor([0.5, -2.0], dtype=dtype))
    assert lifted.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert lifted.tolist() == [0.5, -2.0]
