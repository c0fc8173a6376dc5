import math

import numpy as np
import open_clip
import pytest
import torch

from pretraining.painted.captions import vocabulary
from pretraining.painted.loss import (
    N_PAIRS,
    SEEN_SHARE,
    AttributeHeads,
    _attributes_of_patches,
    _contrast,
    _present,
    encode_texts,
    parts_of_patches,
    pretraining_loss,
)
from pretraining.painted.pretrain import as_pixels
from sotglp.backbone.tiny import build_tiny
from sotglp.demo.painting import SIZE
from sotglp.demo.world import COLOURS, KNOWN_FILLS, NO_PART, draw_parts, paint


@pytest.fixture(scope="module")
def clip():
    return build_tiny(0)


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return paint(draw_parts(24, rng, fewest=0, most=4), rng)


def test_parts_of_patches_agree_with_counting_pixels(pictures):
    found = parts_of_patches(pictures, 64)
    for i in range(len(pictures.images)):
        for patch in range(64):
            row, column = divmod(patch, 8)
            block = pictures.part_map[i, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8]
            shares = [(block == slot).sum() / 64 for slot in range(4)]
            best = int(np.argmax(shares))
            expected = pictures.parts[i, best] if shares[best] >= SEEN_SHARE else [NO_PART] * 3
            assert found[i, patch].tolist() == list(expected)
    assert SIZE == 64


def test_texts_without_padding_are_encoded_as_open_clip_does(clip):
    texts = ["a photo of a red star", "a star", "a photo of a dotted blue ring and a white moon", "a cross"]
    with torch.no_grad():
        expected = clip.encode_text(open_clip.tokenize(texts))
        torch.testing.assert_close(encode_texts(clip, texts), expected, rtol=1e-5, atol=1e-5)


def test_a_true_caption_of_another_picture_is_no_negative():
    logits = torch.tensor([[2.0, 1.0, 0.5], [0.3, 1.5, -1.0], [0.2, 0.1, 1.0]])  # (pictures, captions)
    true = np.eye(3, dtype=bool)
    true[1, 0] = True  # caption 1 holds of picture 0

    def cross_entropy(row, target, left_out):
        others = [math.exp(value) for i, value in enumerate(row) if i not in left_out]
        return math.log(sum(others)) - row[target]

    rows, columns = logits.tolist(), logits.T.tolist()
    by_picture = [cross_entropy(rows[i], i, {1} if i == 0 else set()) for i in range(3)]
    by_caption = [cross_entropy(columns[i], i, {0} if i == 1 else set()) for i in range(3)]
    expected = (sum(by_picture) / 3 + sum(by_caption) / 3) / 2
    assert float(_contrast(logits, true)) == pytest.approx(expected, rel=1e-6)


def test_the_loss_reaches_every_weight_that_is_used(pictures):
    clip, heads = build_tiny(0), AttributeHeads(128, 128)
    loss = pretraining_loss(clip, heads, pictures, as_pixels(pictures.images), np.random.default_rng(0))
    parts = (loss.contrast, loss.alignment, loss.patch_attributes, loss.picture_attributes)
    expected = sum(weight * part.item() for weight, part in zip((1, 0.5, 0.5, 5), parts, strict=True))
    assert loss.total.item() == pytest.approx(expected, rel=1e-5)
    loss.total.backward()
    weights = [*clip.named_parameters(), *heads.named_parameters()]
    assert [name for name, weight in weights if weight.grad is None or not weight.grad.any()] == []


def test_embeddings_of_words_that_are_not_said_stay_as_they_are(pictures):
    clip, heads = build_tiny(0), AttributeHeads(128, 128)
    pretraining_loss(clip, heads, pictures, as_pixels(pictures.images), np.random.default_rng(0)).total.backward()
    moved = clip.token_embedding.weight.grad.any(dim=1).nonzero().flatten().tolist()
    assert set(moved) <= set(vocabulary())


def test_no_part_at_all_leaves_a_finite_loss():
    nothing = paint(np.full((3, 4, 3), NO_PART), np.random.default_rng(0))
    clip, heads = build_tiny(0), AttributeHeads(128, 128)
    loss = pretraining_loss(clip, heads, nothing, as_pixels(nothing.images), np.random.default_rng(0))
    assert all(term.isfinite() for term in loss)
    assert loss.contrast.item() == pytest.approx(0, abs=1e-6)  # each caption is true of each picture


def test_patch_attributes_weigh_background_a_fifth(pictures):
    heads, patches = AttributeHeads(16, 8), torch.randn(24, 64, 16, generator=torch.Generator().manual_seed(0))
    patch_parts = parts_of_patches(pictures, 64)
    start, expected = 0, []
    log_odds = heads.of_patch(patches).reshape(-1, sum(heads.sizes)).detach()
    for attribute, size in enumerate(heads.sizes):
        chances = log_odds[:, start : start + size].softmax(dim=-1)
        targets = patch_parts.reshape(-1, 3)[:, attribute] + 1
        losses = -np.log([row[target].item() for row, target in zip(chances, targets, strict=True)])
        expected.append(np.average(losses, weights=np.where(targets == 0, 0.2, 1)))
        start += size
    assert _attributes_of_patches(heads, patches, patch_parts).item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_present_pairs_are_those_of_the_parts(pictures):
    present = _present(pictures.parts)
    for row, slots in zip(present, pictures.parts.tolist(), strict=True):
        shown = [part for part in slots if part[0] != NO_PART]
        colours = {shape * len(COLOURS) + colour for shape, colour, _ in shown}
        fills = {N_PAIRS + shape * KNOWN_FILLS + fill for shape, _, fill in shown}
        assert set(row.nonzero()[0]) == colours | fills


def test_pixels_are_what_the_backbone_makes_of_a_picture(pictures):
    from PIL import Image

    from sotglp import Backbone

    backbone = Backbone.from_open_clip(build_tiny(0))
    expected = torch.stack([backbone.preprocess(Image.fromarray(image)) for image in pictures.images[:4]])
    torch.testing.assert_close(as_pixels(pictures.images[:4]), expected, rtol=1e-6, atol=1e-6)
