"""``sotglp predict --out``: predictions of any number of images, shard by shard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sotglp.bulk.predict_shard import BulkSettings
from sotglp.bulk.run import predict_shards
from sotglp.cli.predict_model import about_scores, checked_inference
from sotglp.console.output import emit
from sotglp.console.table import Part, Table, counted, part_lines
from sotglp.engines import EngineConfig
from sotglp.images.columns import Columns
from sotglp.shards.find import find_shards

_MOST_LABELS = 10


def predict_to_folder(
    model_file: Path,
    images: Sequence[Path],
    columns: Columns,
    settings: Mapping[str, Any],
    out: Path,
    *,
    pretrained: str | None,
    device: str,
    unknown: bool | None,
    coverage: float | None,
    sets: Mapping[str, Any],
    skip_unreadable: bool,
    engine: EngineConfig,
    json_file: str | None,
) -> None:
    """Predict images into a folder and print a summary; see :func:`sotglp.cli.predict_model.predict_with_model`."""
    record, inference = checked_inference(model_file, settings, unknown=unknown, coverage=coverage, sets=sets)
    bulk = BulkSettings(
        str(model_file),
        inference,
        pretrained=pretrained,
        device=device,
        label_unknown=unknown is not False,
        coverage=coverage,
        sets=dict(sets),
        skip_unreadable=skip_unreadable,
    )
    summary = predict_shards(
        bulk,
        tuple(map(str, record.classes)),
        find_shards(images, columns),
        out,
        engine=engine,
        show_progress=inference.show_progress,
    )
    emit(part_lines(_parts(summary)), {**summary, **about_scores(record, inference)}, json_file)


def _parts(summary: Mapping[str, Any]) -> Iterator[Part]:
    n = summary["n"]
    resumed = f" ({summary['resumed']} from before)" if summary["resumed"] else ""
    yield f"{counted(n, 'image')} in {counted(summary['parts'], 'part')}{resumed} of {summary['out']}:"
    listed = list(summary["labels"].items())[:_MOST_LABELS]
    yield Table((), [[f"  {name}", str(count), f"{count / n:.1%}"] for name, count in listed], right=(1, 2))
    if (rest := len(summary["labels"]) - len(listed)) > 0:
        yield f"  and {counted(rest, 'other class', 'other classes')}"
    if (rate := summary["images_per_second"]) is not None:
        yield f"{rate:.1f} images/s"
