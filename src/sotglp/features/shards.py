"""Decode the images of a shard in order."""

from __future__ import annotations

from collections.abc import Generator

from torch import Tensor

from sotglp.backbone import Backbone
from sotglp.errors import UnreadableImageError
from sotglp.images.value_range import ValueRanges
from sotglp.settings import InferenceConfig
from sotglp.shards.notes import ShardNotes
from sotglp.shards.pixels import PixelBatch, pixel_batches
from sotglp.shards.shard import Shard


def decode_shard(
    backbone: Backbone,
    shard: Shard,
    inference: InferenceConfig,
    *,
    ranges: ValueRanges,
    notes: ShardNotes,
    unreadable: list[UnreadableImageError] | None = None,
) -> Generator[tuple[PixelBatch, Tensor]]:
    """Yield the images of a shard in batches, and their pixels (B, 3, H, W); ``inference.workers`` threads decode.

    Batches have a fixed size from the first image on, so features depend on the shard and the settings alone.
    ``ranges`` are those of a model, and ``notes`` take what is left out. ``unreadable`` collects images that can't be
    read; None raises an UnreadableImageError at the first.
    """
    batches = pixel_batches(
        shard,
        backbone.preprocess,
        inference.batch_size,
        ranges=ranges,
        n_threads=max(inference.workers, 1),
        notes=notes,
    )
    for batch in batches:
        if batch.errors and unreadable is None:
            first = batch.errors[0]
            raise UnreadableImageError(shard.name_of(first.source), first.reason)
        if unreadable is not None:
            unreadable += batch.errors
        if batch.pixels is not None:
            yield batch, batch.pixels
