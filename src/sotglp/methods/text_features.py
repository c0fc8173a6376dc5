"""Text features of all prompts of all classes: shared tokens are encoded once, within a memory bound."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sotglp.backbone.text import Segment
from sotglp.backbone.text_readers import TextReader
from sotglp.methods.prompts import TokenizedClasses

CHUNK_BYTES = 2**29
"""Memory for the backward pass of classes that are encoded together; more at once is slower on CPUs."""

KEPT_BYTES = 2 * 2**30
"""The same for all classes; chunks beyond it are encoded a second time in the backward pass."""

VALUES_PER_TOKEN = 10
"""Values that a block stores for a token, in widths: inputs of two norms, query, key, value, attended, hidden (4)."""


class TextFeatures(NamedTuple):
    """Text features of all prompts, not normalised: ``global_`` (C, M, d) and ``local`` (C, N, d)."""

    global_: Tensor
    local: Tensor


def encode_prompts(
    text: TextReader, names: TokenizedClasses, global_prompts: Tensor, local_prompts: Tensor
) -> TextFeatures:
    """Encode [SOT] + context + name + [EOT] for every prompt of C classes (SOT-GLP, arXiv 2603.08347).

    Global prompts (M, n, d_text) are shared by all classes, local ones (C, N, n, d_text) are not; N may be 0. Classes
    are processed in the order of their names' lengths, so that nothing is padded. Activations for the backward pass are
    stored up to ``KEPT_BYTES`` and recomputed beyond.
    """
    n_global, n_context, _ = global_prompts.shape
    n_local = local_prompts.shape[1]
    before = len(text.tokenizer.before)
    lengths = [eot - before - n_context + 1 for eot in names.eot_positions.tolist()]  # tokens of the name, and [EOT]
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    n_tokens = [
        (n_global + n_local) * text.padded_length
        if text.padded_length is not None
        else (n_global + n_local) * lengths[index] + n_local * n_context
        for index in order
    ]
    costs = [count * VALUES_PER_TOKEN * text.bytes_per_token for count in n_tokens]
    features = []
    kept = 0
    for chunk in _chunks(costs):
        classes = order[chunk]
        sizes = Counter(lengths[index] for index in classes)  # classes of each length, growing as the order does
        args = (text, names.tokens[classes], sizes, global_prompts, local_prompts[classes])
        kept += sum(costs[chunk])
        if torch.is_grad_enabled() and kept > KEPT_BYTES:
            features.append(checkpoint(_encode_chunk, *args, use_reentrant=False, preserve_rng_state=False))
        else:
            features.append(_encode_chunk(*args))
    unsorted = torch.tensor(order, device=local_prompts.device).argsort()
    return TextFeatures(*(torch.cat(kind)[unsorted] for kind in zip(*features, strict=True)))


def _chunks(costs: Sequence[int]) -> list[slice]:
    """Split into consecutive chunks of at most CHUNK_BYTES, or of one item."""
    chunks, start, total = [], 0, 0
    for index, cost in enumerate(costs):
        if index > start and total + cost > CHUNK_BYTES:
            chunks.append(slice(start, index))
            start, total = index, 0
        total += cost
    return [*chunks, slice(start, len(costs))]


def _encode_chunk(
    text: TextReader, name_tokens: Tensor, sizes: Mapping[int, int], global_prompts: Tensor, local_prompts: Tensor
) -> tuple[Tensor, Tensor]:
    """Features (C', M, d) and (C', N, d) of C' classes, ``sizes[length]`` of them for each length in turn."""
    n_global, n_local = len(global_prompts), local_prompts.shape[1]
    first = text.embed(name_tokens.new_tensor([text.tokenizer.before], dtype=torch.long))
    start = Segment(first) if text.tokenizer.before else None
    contexts = Segment(global_prompts.to(first.dtype), before=start)
    segments = [contexts] if start is None else [start, contexts]
    rows = zip(sizes, *(part.split(list(sizes.values())) for part in (name_tokens, local_prompts)), strict=True)
    for length, tokens, own_contexts in rows:
        names = text.embed(tokens[:, :length])  # (S, length, d_text)
        segments.append(Segment(names.repeat(n_global, 1, 1), before=contexts))
        if n_local == 0:
            continue
        own_names = names.unsqueeze(1).expand(-1, n_local, -1, -1)
        local = torch.cat([own_contexts.to(names.dtype), own_names], dim=2)  # (S, N, n + length, d_text)
        segments.append(Segment(local.flatten(0, 1), before=start))
    features = text.encode(segments)
    kinds = 2 if n_local else 1
    global_features = torch.cat([part.unflatten(0, (n_global, -1)).transpose(0, 1) for part in features[::kinds]])
    if n_local == 0:
        return global_features, global_features[:, :0]
    return global_features, torch.cat([part.unflatten(0, (-1, n_local)) for part in features[1::2]])
