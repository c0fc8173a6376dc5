from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sotglp import Backbone, SotglpError
from sotglp.features.rows import EncodedImages
from sotglp.images.image_set import ImageSet
from sotglp.methods.method import METHODS
from sotglp.methods.registry import build_model
from sotglp.methods.tip_adapter import TipAdapter
from sotglp.methods.zero_shot import ZeroShot
from sotglp.settings import Preset
from support.prompt_models import NAMES, fit
from support.samples import preprocessed


@pytest.fixture
def images(class_folders: Path) -> ImageSet:
    return ImageSet.from_path(class_folders)


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 5.5), (3.0, 1.0), (0.0, 5.5)])
def test_logits_are_the_formula_of_the_paper(tiny_backbone: Backbone, alpha: float, beta: float) -> None:
    model = TipAdapter(tiny_backbone, NAMES, cache_weight=alpha, sharpness=beta)
    shots, targets, queries = drawn(7, 32, seed=0), torch.tensor([2, 0, 1, 0, 2, 2, 0]), drawn(5, 32, seed=1)
    model.fit_features(shots, targets)
    outputs = model.compare(EncodedImages(queries, drawn(5, 16, 64, seed=2)), model.encode_text())

    f, keys = (part.double().numpy() for part in (queries, shots))
    f, keys = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (f, keys))
    affinity = np.exp(-beta * (1 - f @ keys.T))
    scale = float(np.exp(tiny_backbone.clip.logit_scale.item()))  # type: ignore[operator, union-attr]
    logits = alpha * affinity @ np.eye(3)[targets.numpy()] + scale * f @ model.class_vectors.double().numpy().T
    np.testing.assert_allclose(scale * outputs.global_logits, logits, rtol=1e-5, atol=1e-5)
    powers = np.exp(logits)
    np.testing.assert_allclose(model.probabilities(outputs), powers / powers.sum(axis=1, keepdims=True), rtol=1e-4)


def test_without_weight_or_shots_it_is_zero_shot(tiny_backbone: Backbone) -> None:
    images = drawn(5, 3, 32, 32, seed=0)
    expected = ZeroShot(tiny_backbone, NAMES)(images)
    weightless = TipAdapter(tiny_backbone, NAMES, cache_weight=0)
    weightless.fit_features(drawn(6, 32, seed=1), torch.arange(6) % 3)
    for model in (weightless, TipAdapter(tiny_backbone, NAMES)):
        found = model(images)
        assert found.plan is expected.plan is None
        for ours, of_zero_shot in zip(found[:3], expected[:3], strict=True):
            assert torch.equal(ours, of_zero_shot)


def test_with_much_weight_and_sharpness_the_nearest_shot_decides(tiny_backbone: Backbone) -> None:
    model = TipAdapter(tiny_backbone, NAMES, cache_weight=1e6, sharpness=100.0)
    shots, targets, nearest = drawn(9, 32, seed=0), torch.arange(9) % 3, torch.arange(20) % 9
    model.fit_features(shots, targets)
    queries = shots[nearest] + 0.2 * drawn(20, 32, seed=1)
    outputs = model.compare(EncodedImages(queries, drawn(20, 16, 64, seed=2)), model.encode_text())
    assert torch.equal(outputs.global_logits.argmax(dim=1), targets[nearest])


@pytest.mark.parametrize("name", ["tip-adapter", "tip-adapter-f"])
def test_keys_are_the_features_of_the_shots(tiny_backbone: Backbone, images: ImageSet, name: str) -> None:
    model = build_model(tiny_backbone, images.classes, METHODS[name].settings_on(Preset(), {})[0])
    assert isinstance(model, TipAdapter)
    assert model.needs_shot_features
    assert (model.keys.shape, model.key_classes.shape) == ((0, 32), (0,))
    fitted = fit(tiny_backbone, images, "tip-adapter", shots=2)
    expected = F.normalize(tiny_backbone.clip.encode_image(preprocessed(tiny_backbone, fitted.images)), dim=-1)
    torch.testing.assert_close(fitted.model.keys.detach(), expected, rtol=1e-5, atol=1e-6)
    assert fitted.model.key_classes.tolist() == fitted.images.targets(images.classes).tolist()
    assert len(fitted.images) == 6


def test_f_starts_where_tip_adapter_is(tiny_backbone: Backbone, images: ImageSet) -> None:
    features = tiny_backbone.clip.encode_image(preprocessed(tiny_backbone, images))
    targets = torch.from_numpy(images.targets(images.classes))
    plain, learning = (TipAdapter(tiny_backbone, images.classes, learn_keys=learn) for learn in (False, True))
    for model in (plain, learning):
        model.fit_features(features, targets)
    queries = drawn(5, 3, 32, 32, seed=0)
    assert torch.equal(learning(queries).global_logits, plain(queries).global_logits)
    # The first loss of training is that of Tip-Adapter on its own shots.
    history = fit(tiny_backbone, images, "tip-adapter-f", batch_size=18, epochs=20, learning_rate=0.001).history
    loss = plain.compute_loss(plain(preprocessed(tiny_backbone, images)), targets)
    assert history[0]["loss"] == pytest.approx(loss.total.item(), rel=1e-4)


def test_f_trains_its_keys_alone_and_lowers_the_loss(tiny_backbone: Backbone, images: ImageSet) -> None:
    before = {name: value.clone() for name, value in tiny_backbone.state_dict().items()}
    plain, learned = (
        fit(tiny_backbone, images, name, batch_size=6, epochs=20, learning_rate=0.001)
        for name in ("tip-adapter", "tip-adapter-f")
    )
    assert plain.history == plain.model.learned == []
    assert not plain.model.keys.requires_grad
    assert [name for name, value in learned.model.named_parameters() if value.requires_grad] == ["keys"]
    assert not torch.equal(learned.model.keys, plain.model.keys)
    for name in ("key_classes", "class_vectors"):
        assert torch.equal(getattr(learned.model, name), getattr(plain.model, name))
    assert all(torch.equal(value, before[name]) for name, value in tiny_backbone.state_dict().items())
    losses = [row["loss"] for row in learned.history]
    assert len(losses) == 20
    assert losses[-1] < losses[0]
    targets = torch.from_numpy(learned.images.targets(images.classes))
    batch = preprocessed(tiny_backbone, learned.images)
    said = [fitted.model.compute_loss(fitted.model(batch), targets).total.item() for fitted in (plain, learned)]
    assert said[1] < said[0]


def test_the_slope_of_keys(tiny_backbone: Backbone) -> None:
    model = TipAdapter(tiny_backbone.double(), NAMES, learn_keys=True).double()
    model.fit_features(drawn(4, 32, seed=0).double(), torch.tensor([0, 1, 2, 0]))
    queries, targets, shape = drawn(3, 32, seed=1).double(), torch.tensor([2, 0, 1]), model.keys.shape

    def loss(keys: Tensor) -> Tensor:
        model._parameters["keys"] = keys.view(shape)  # type: ignore[assignment]
        outputs = model.compare(EncodedImages(queries, torch.zeros(3, 16, 64)), model.encode_text(), for_loss=True)
        return model.compute_loss(outputs, targets).total

    assert torch.autograd.gradcheck(loss, model.keys.detach().flatten().requires_grad_())


def test_new_classes_have_no_shots_and_get_zero_shot(tiny_backbone: Backbone, images: ImageSet) -> None:
    model = fit(tiny_backbone, images, "tip-adapter", zero_shot_template="{} texture.").model
    other = model.for_new_classes(["cat", "dog"])
    expected = ZeroShot(tiny_backbone, ["cat", "dog"], zero_shot_template="{} texture.")
    assert other.class_names == ("cat", "dog")
    queries = drawn(5, 3, 32, 32, seed=0)
    assert torch.equal(other.predict_proba(queries), expected.predict_proba(queries))


@pytest.mark.parametrize(
    "damaged",
    [
        {"keys": None},
        {"key_classes": None},
        {"keys": torch.zeros(2, 31)},
        {"keys": torch.zeros(64)},
        {"keys": torch.zeros(3, 32)},
        {"keys": torch.zeros(2, 32, dtype=torch.long)},
        {"key_classes": torch.tensor([0, 3])},
        {"key_classes": torch.tensor([-1, 0])},
        {"key_classes": torch.tensor([0.0, 1.0])},
        {"key_classes": torch.tensor([[0, 1]])},
    ],
    ids=str,
)
def test_keys_that_do_not_fit_are_refused(tiny_backbone: Backbone, damaged: dict[str, Tensor | None]) -> None:
    whole = {"keys": torch.zeros(2, 32), "key_classes": torch.tensor([0, 1]), **damaged}
    with pytest.raises(SotglpError, match="its keys and key_classes do not fit"):
        TipAdapter(tiny_backbone, NAMES).restore({name: value for name, value in whole.items() if value is not None})
