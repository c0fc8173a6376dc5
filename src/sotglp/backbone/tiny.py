"""The embedded model of painted shapes: a small ordinary open_clip.CLIP, trained by ``pretraining.painted``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.model import resize_pos_embed
from torch import Tensor, nn

from sotglp.files.tensors import read_packaged_tensors

NAME = "tiny"

CONFIG: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 64, "patch_size": 8, "width": 128, "layers": 4, "head_width": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 3},
}

FILE = "tiny.safetensors"

FINGERPRINT = "sha256:c63643726794f6e8a51ba9dc8ddff0e2e533da8b97a514d6de4d0395ba287179"
"""Fingerprint of the packaged weights, by :func:`sotglp.backbone.weights.fingerprint`."""

_EMBEDDING = "token_embedding.weight"
_TRAINED_TOKENS = "trained_tokens"


def build_tiny(seed: int, *, image_size: int | None = None, quick_gelu: bool = False) -> nn.Module:
    """Build the architecture, for 64 x 64 pixels by default, with random weights that depend on the seed alone."""
    vision = CONFIG["vision_cfg"] | ({} if image_size is None else {"image_size": image_size})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        clip: nn.Module = open_clip.CLIP(**{**CONFIG, "vision_cfg": vision}, quick_gelu=quick_gelu)
    return clip


def load_tiny(*, image_size: int | None = None) -> nn.Module:
    """Build the architecture with the packaged weights, position embeddings resized to ``image_size`` pixels."""
    clip = build_tiny(0, image_size=image_size)
    weights = unpack(_packed())
    resize_pos_embed(weights, clip)
    clip.load_state_dict(weights)
    return clip


def trained_tokens() -> Tensor:
    """Return the tokens whose embeddings were trained, ascending, (n,); those of other tokens are random."""
    return _packed()[_TRAINED_TOKENS].long()


def pack(weights: dict[str, Tensor], trained_tokens: Sequence[int]) -> dict[str, Tensor]:
    """Return the weights in half precision, and only the trained rows of the token embeddings."""
    packed = {name: tensor.half().contiguous() for name, tensor in weights.items()}
    tokens = torch.tensor(sorted(set(trained_tokens)))
    packed[_EMBEDDING] = packed[_EMBEDDING][tokens].clone()
    packed[_TRAINED_TOKENS] = tokens.to(torch.int32)
    return packed


def unpack(packed: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return float32 weights from those of :func:`pack`; embeddings of tokens that were not trained are random."""
    weights = {name: tensor.float() for name, tensor in packed.items() if name != _TRAINED_TOKENS}
    rows = weights[_EMBEDDING]
    size = (CONFIG["text_cfg"]["vocab_size"], CONFIG["text_cfg"]["width"])
    # RandomState, unlike newer generators, guarantees the same numbers in every version. Uniform numbers, unlike normal
    # ones, need no logarithm, whose last digit differs between machines; their standard deviation is 0.02.
    uniform = np.random.RandomState(0).random_sample(size) - 0.5
    embedding = torch.from_numpy(uniform * (0.02 * 12**0.5)).float()
    embedding[packed[_TRAINED_TOKENS].long()] = rows
    weights[_EMBEDDING] = embedding
    return weights


def _packed() -> dict[str, Tensor]:
    return read_packaged_tensors("backbone/weights_data", FILE)
