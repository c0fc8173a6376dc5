from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sotglp import SOTGLP, Backbone
from sotglp.methods import text_features
from sotglp.methods.text_features import TextFeatures
from support.prompt_models import stir, text_by_open_clip
from support.samples import tiny_clip

NAMES = [
    "cat",
    "a very long name of a rare north american water bird",
    "golden_retriever",
    "sea",
    "herbaceous vegetation land",
    "dog",
]


@pytest.fixture
def model(tiny_backbone: Backbone) -> SOTGLP:
    model = SOTGLP(tiny_backbone, NAMES, n_global_prompts=3, n_local_prompts=2, top_k=5)
    stir(model.local_prompts)
    stir(model.global_prompts, by=0.02)
    return model


def plain_features(model: SOTGLP) -> TextFeatures:
    """Each prompt of each class a sequence of 77 tokens, through open_clip's own transformer."""
    prompts = model.global_prompts, model.local_prompts
    return TextFeatures(*(text_by_open_clip(model.backbone, own, NAMES) for own in prompts))


def slopes(model: SOTGLP, features: TextFeatures) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(2)
    total = sum((torch.randn(part.shape, generator=generator) * part).sum() for part in features)
    return torch.autograd.grad(total, [model.global_prompts, model.local_prompts])


def test_ragged_names_give_the_features_and_gradients_of_77_tokens(model: SOTGLP) -> None:
    found, plain = model.encode_text(), plain_features(model)
    for ours, theirs in zip(found, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(slopes(model, found), slopes(model, plain), strict=True):
        assert (ours - theirs).norm() < 1e-5 * theirs.norm()


@pytest.mark.parametrize(("chunk", "kept"), [(0, 2**40), (0, 0), (100_000, 100_000), (2**40, 0)])
def test_chunks_change_memory_alone(model: SOTGLP, monkeypatch: pytest.MonkeyPatch, chunk: int, kept: int) -> None:
    whole = model.encode_text()
    whole_slopes = slopes(model, whole)
    monkeypatch.setattr(text_features, "CHUNK_BYTES", chunk)
    monkeypatch.setattr(text_features, "KEPT_BYTES", kept)
    parts = model.encode_text()
    for ours, theirs in zip([*parts, *slopes(model, parts)], [*whole, *whole_slopes], strict=True):
        assert (ours - theirs).norm() < 2e-6 * theirs.norm()


def test_classes_that_do_not_fit_are_encoded_twice(model: SOTGLP, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = text_features._encode_chunk
    sizes = []

    def counted(*args: object) -> tuple[Tensor, Tensor]:
        sizes.append(len(args[1]))  # type: ignore[arg-type]
        return encode(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(text_features, "_encode_chunk", counted)
    monkeypatch.setattr(text_features, "CHUNK_BYTES", 0)
    one = (
        min((3 + 2) * length + 2 * 4 for length in (2, 3))
        * text_features.VALUES_PER_TOKEN
        * model.backbone.text.bytes_per_token
    )
    monkeypatch.setattr(text_features, "KEPT_BYTES", one)
    slopes(model, model.encode_text())
    assert sizes == [1] * (6 + 5)
    sizes.clear()
    with torch.no_grad():
        model.encode_text()
    assert sizes == [1] * 6


def test_chunks_are_neighbours_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_features, "CHUNK_BYTES", 10)
    assert text_features._chunks([4, 4, 4, 11, 1, 9]) == [slice(0, 2), slice(2, 3), slice(3, 4), slice(4, 6)]


def test_what_a_token_keeps_is_about_what_autograd_holds() -> None:
    """The bound on memory rests on this estimate: compare it with the tensors that autograd really saves."""
    model = SOTGLP(Backbone.from_open_clip(tiny_clip()), NAMES[:2])
    held: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if not isinstance(tensor, torch.nn.Parameter):
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        features = model.encode_text()
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    measured = sum(size for place, size in held.items() if place not in weights)
    lengths = [int(eot) - 4 for eot in model.eot_positions]
    tokens = sum((3 + 4) * length + 4 * 4 for length in lengths)
    estimated = tokens * text_features.VALUES_PER_TOKEN * model.backbone.text.bytes_per_token
    assert features.global_.requires_grad
    assert 0.5 < estimated / measured < 1.5
