"""Training loss of the painted-world CLIP: a contrastive loss, and supervision by the known parts of each picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip import CLIP
from torch import Tensor, nn
from torch.nn import functional as F

from pretraining.painted.captions import UNSAID, Claims, claim, holds, phrase, wording
from sotglp.backbone.text import Segment, TextTower
from sotglp.backbone.tokenizers import clip_tokenizer
from sotglp.backbone.vit import encode_vit
from sotglp.demo.world import COLOURS, KNOWN_FILLS, KNOWN_SHAPES, NO_PART, Parts, Pictures, slot_shares

MOST_PHRASES = 64
"""Most phrases that the patches of one batch are compared with."""

SEEN_SHARE = 0.4
"""Smallest share of its pixels that a part covers in a patch that is assigned to it."""

N_PAIRS = KNOWN_SHAPES * len(COLOURS)


class AttributeHeads(nn.Module):
    """Linear classifiers of parts, discarded after pretraining.

    Parameters
    ----------
    patch_width : int
        Width of a patch token, W.
    embed_dim : int
        Size of the joint embedding, d.
    """

    def __init__(self, patch_width: int, embed_dim: int) -> None:
        super().__init__()
        self.sizes = (KNOWN_SHAPES + 1, len(COLOURS) + 1, KNOWN_FILLS + 1)  # one more for no part at all
        self.of_patch = nn.Linear(patch_width, sum(self.sizes))
        self.of_picture = nn.Linear(embed_dim, N_PAIRS + KNOWN_SHAPES * KNOWN_FILLS)


class PretrainingLoss(NamedTuple):
    """``total`` and its four terms."""

    total: Tensor
    contrast: Tensor
    alignment: Tensor
    patch_attributes: Tensor
    picture_attributes: Tensor


def pretraining_loss(
    clip: CLIP, heads: AttributeHeads, pictures: Pictures, pixels: Tensor, rng: np.random.Generator
) -> PretrainingLoss:
    """Compute the loss of one batch of pictures with randomly drawn captions.

    Four terms: captions against pictures, where a true caption of another picture is no negative; phrases for single
    parts against the V-V patch tokens of these parts; shape, colour and fill of each patch; pairs of shape and colour,
    and of shape and fill, in each picture.

    Parameters
    ----------
    clip : open_clip.CLIP
        Model to train.
    heads : AttributeHeads
        Classifiers trained with it.
    pictures : Pictures
        n painted pictures.
    pixels : Tensor
        Their images, normalised, (n, 3, SIZE, SIZE).
    rng : numpy.random.Generator
        Source of randomness of captions and phrases.
    """
    claims = claim(pictures.parts, rng)
    phrases, phrase_claims = _phrases(pictures.parts, rng)
    image, patches = encode_vit(clip.visual, pixels)
    text = encode_texts(clip, [*wording(claims, rng), *phrases])
    image, text = F.normalize(image.float(), dim=-1), F.normalize(text.float(), dim=-1)
    scale = clip.logit_scale.exp()
    contrast = _contrast(scale * image @ text[: len(claims)].T, holds(claims, pictures.parts))

    patch_parts = parts_of_patches(pictures, patches.shape[1])
    projected = F.normalize((patches @ clip.visual.proj).float(), dim=-1)
    alignment = _alignment(scale * projected.flatten(0, 1) @ text[len(claims) :].T, phrase_claims, patch_parts, rng)
    patch_attributes = _attributes_of_patches(heads, patches, patch_parts)
    picture_attributes = F.binary_cross_entropy_with_logits(
        heads.of_picture(20 * image), torch.from_numpy(_present(pictures.parts))
    )
    total = contrast + 0.5 * alignment + 0.5 * patch_attributes + 5 * picture_attributes
    return PretrainingLoss(total, contrast, alignment, patch_attributes, picture_attributes)


def encode_texts(clip: CLIP, texts: Sequence[str]) -> Tensor:
    """Encode texts into features (n, d), not normalised; texts of equal length form a batch without padding."""
    tower, tokenizer = TextTower(clip), clip_tokenizer()
    tokens = [[tokenizer.sot_token_id, *tokenizer.encode(text), tokenizer.eot_token_id] for text in texts]
    lengths = np.array([len(one) for one in tokens])
    features, order = [], []
    for length in np.unique(lengths):
        where = (lengths == length).nonzero()[0]
        embeddings = tower.embed(torch.tensor([tokens[i] for i in where]))
        features.extend(tower.encode([Segment(embeddings)]))
        order.append(where)
    back = np.concatenate(order).argsort()
    return torch.cat(features)[torch.from_numpy(back)]


def parts_of_patches(pictures: Pictures, n_patches: int) -> Parts:
    """Return the part that each patch shows, (n, P, 3); -1 where a part covers too little of the patch."""
    rows = round(n_patches**0.5)
    shares = slot_shares(pictures, (rows, rows))
    best = shares.argmax(axis=-1)
    found = np.take_along_axis(pictures.parts, best[:, :, None], axis=1)
    return np.where(shares.max(axis=-1, keepdims=True) >= SEEN_SHARE, found, NO_PART)


def _contrast(logits: Tensor, true: NDArray[np.bool_]) -> Tensor:
    """Symmetric cross entropy of (pictures, captions) logits; a true caption is no negative."""
    also_true = torch.from_numpy(true.T.copy())
    also_true.fill_diagonal_(False)
    logits = logits.masked_fill(also_true, float("-inf"))
    targets = torch.arange(len(logits))
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def _phrases(parts: Parts, rng: np.random.Generator) -> tuple[list[str], Claims]:
    """Phrases for some of the parts, all with fills or all without; the last one is for background."""
    claims = parts[parts[:, :, 0] != NO_PART]
    if rng.random() < 0.5:
        claims = np.concatenate([claims[:, :2], np.full((len(claims), 1), UNSAID)], axis=1)
    claims = rng.permutation(np.unique(claims, axis=0))[:MOST_PHRASES]
    frame = "a photo of {}" if rng.random() < 0.7 else "{}"
    texts = [frame.format(phrase(one, rng)) for one in claims.tolist()]
    return [*texts, "only background"], claims


def _alignment(logits: Tensor, claims: Claims, patch_parts: Parts, rng: np.random.Generator) -> Tensor:
    """Cross entropy of patches against phrases, with as many background patches as patches of parts."""
    flat = patch_parts.reshape(-1, 3)
    alike = ((claims[None] == UNSAID) | (claims[None] == flat[:, None])).all(axis=-1)  # (n P, phrases)
    is_background = flat[:, 0] == NO_PART
    on_phrase = (alike.any(axis=1) & ~is_background).nonzero()[0]
    background = rng.permutation(is_background.nonzero()[0])[: max(len(on_phrase), 1)]
    chosen = np.concatenate([on_phrase, background])
    targets = np.column_stack([alike, is_background])[chosen].argmax(axis=1)
    return F.cross_entropy(logits[torch.from_numpy(chosen)], torch.from_numpy(targets))


def _attributes_of_patches(heads: AttributeHeads, patches: Tensor, patch_parts: Parts) -> Tensor:
    """Mean cross entropy of shape, colour and fill of each patch, parts weighted five times as much as background."""
    logits = heads.of_patch(patches).flatten(0, 1).float().split(heads.sizes, dim=-1)
    losses = []
    for k, of_attribute in enumerate(logits):
        targets = torch.from_numpy(patch_parts[:, :, k].flatten() + 1)  # 0 for none
        weights = torch.full((of_attribute.shape[1],), 1.0)
        weights[0] = 0.2
        losses.append(F.cross_entropy(of_attribute, targets, weight=weights))
    return torch.stack(losses).mean()


def _present(parts: Parts) -> NDArray[np.float32]:
    """Which pairs of shape and colour, and of shape and fill, are in each picture, (n, pairs)."""
    present = np.zeros((len(parts), N_PAIRS + KNOWN_SHAPES * KNOWN_FILLS), dtype=np.float32)
    picture, slot = (parts[:, :, 0] != NO_PART).nonzero()
    shape, colour, fill = parts[picture, slot].T
    present[picture, shape * len(COLOURS) + colour] = 1
    present[picture, N_PAIRS + shape * KNOWN_FILLS + fill] = 1
    return present
