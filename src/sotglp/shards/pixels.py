"""Decoded images of a shard in batches, read and decoded ahead by threads while earlier ones are encoded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch

from sotglp.errors import SotglpError, UnreadableImageError
from sotglp.images.decode import open_image, read_losses
from sotglp.images.formats import HEAD_BYTES, head_of, may_be_deep
from sotglp.images.survey import PAGES, UNKNOWN_DEPTH
from sotglp.images.value_range import ValueRanges
from sotglp.shards.addresses import is_address, opened
from sotglp.shards.notes import ShardNotes
from sotglp.shards.read import read_items
from sotglp.shards.shard import MAX_IMAGE_BYTES, TOO_LARGE, Item, Shard

_AHEAD = 3
"""Batches that are decoded or wait for it, beside the one that is encoded: they bound the memory."""

LOW_COLOR = "16-bit color with low values, of which only the high byte is used"


class PixelBatch(NamedTuple):
    """B images of a shard that follow each other, those that can't be read left out.

    ``pixels`` are (B, 3, H, W), float32, or None if none can be read; ``errors`` are those of the others.
    """

    names: list[str]
    labels: list[str | None]
    pixels: torch.Tensor | None
    errors: list[UnreadableImageError]


def pixel_batches(
    shard: Shard,
    transform: Callable[[Any], torch.Tensor],
    batch_size: int,
    *,
    ranges: ValueRanges,
    n_threads: int,
    notes: ShardNotes,
) -> Iterator[PixelBatch]:
    """Decode and transform the images of a shard, ``batch_size`` at a time from the first on.

    ``n_threads`` decode. Their number changes neither the batches and their order nor the memory: a fixed number of
    batches is read ahead.
    """

    def decoded(items: list[Item]) -> list[Future[_Decoded]]:
        return [decoders.submit(_decode, item, transform, ranges) for item in items]

    batches = _batched(read_items(shard, notes.left_out), batch_size)
    # One more thread reads the shard, since that may wait for the network.
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(n_threads) as decoders:
        pending: deque[Future[list[Future[_Decoded]]]] = deque()

        def read_next() -> list[Future[_Decoded]]:
            return decoded(next(batches, []))

        try:
            pending.extend(reader.submit(read_next) for _ in range(_AHEAD))
            while found := [one.result() for one in pending.popleft().result()]:
                pending.append(reader.submit(read_next))
                yield _collate(found, notes)
        finally:
            for waiting in pending:
                waiting.cancel()


class _Decoded(NamedTuple):
    name: str
    label: str | None
    view: torch.Tensor | UnreadableImageError
    losses: tuple[str, ...]


def _batched(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    while batch := list(islice(items, size)):
        yield batch


def _decode(item: Item, transform: Callable[[Any], torch.Tensor], ranges: ValueRanges) -> _Decoded:
    try:
        source = _content(item)
        losses = _losses(source, ranges)
        return _Decoded(item.name, item.label, transform(open_image(source, ranges)), losses)
    except UnreadableImageError as error:
        return _Decoded(item.name, item.label, UnreadableImageError(item.name, error.reason), ())


def _content(item: Item) -> bytes | Path:
    if item.source is None:
        raise UnreadableImageError(item.name, item.problem)
    if isinstance(item.source, bytes):
        return item.source
    if not is_address(item.source):
        return Path(item.source)
    try:
        with opened(item.source) as file:
            content = file.read(MAX_IMAGE_BYTES + 1)
    except SotglpError as error:
        raise UnreadableImageError(item.name, str(error)) from error
    if len(content) > MAX_IMAGE_BYTES:
        raise UnreadableImageError(item.name, TOO_LARGE)
    return content


def _losses(source: bytes | Path, ranges: ValueRanges) -> tuple[str, ...]:
    head = source[:HEAD_BYTES] if isinstance(source, bytes) else head_of(source)
    if not may_be_deep(head):
        return ()
    losses = read_losses(source)
    depth = losses.depth
    is_deep = depth is not None and depth.declared is None and depth.kind not in ranges
    found = ((UNKNOWN_DEPTH, is_deep), (PAGES, losses.has_pages), (LOW_COLOR, losses.is_low_color))
    return tuple(text for text, applies in found if applies)


def _collate(found: list[_Decoded], notes: ShardNotes) -> PixelBatch:
    readable = [one for one in found if isinstance(one.view, torch.Tensor)]
    for one in found:
        notes.losses.update(one.losses)
    return PixelBatch(
        [one.name for one in readable],
        [one.label for one in readable],
        torch.stack([one.view for one in readable if isinstance(one.view, torch.Tensor)]) if readable else None,
        [one.view for one in found if isinstance(one.view, UnreadableImageError)],
    )
