"""Predictions of images as a table: for a terminal, for a notebook, and as files that other tools read."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sotglp.console.html import parts_html
from sotglp.console.output import UNKNOWN
from sotglp.console.prediction_files import json_lines, write_parquet
from sotglp.console.table import Part, Table, counted, part_lines
from sotglp.files.atomic import write_file

MOST_CLASSES = 10
"""Classes that a summary lists; the others are counted."""

MOST_IN_NOTEBOOK = 100
"""Images that a notebook shows."""


class PredictionTable(list[dict[str, Any]]):
    """An entry of :func:`sotglp.console.output.prediction` for each image.

    Attributes
    ----------
    about : mapping
        The score under ``ood_method``, its ``threshold``, None for none, and ``calibration``, None for none.
    """

    def __init__(self, rows: Iterable[dict[str, Any]], about: Mapping[str, Any]) -> None:
        super().__init__(rows)
        self.about = about

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        parts = list(self._parts(1, MOST_IN_NOTEBOOK))
        if rest := len(self) - MOST_IN_NOTEBOOK:
            parts[1:1] = [f"and {counted(rest, 'more image')}"] if rest > 0 else []
        return parts_html("Predictions", parts)

    def lines(self, top: int = 1) -> Iterator[str]:
        """Yield the lines of a table with ``top`` most probable classes, images by class, and the rule of rejection."""
        return part_lines(self._parts(top))

    def to_json_lines(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write one JSON object a line, for ``datasets``, pandas and FiftyOne; all labels are text."""
        content = json_lines(self)
        write_file(Path(path), lambda beside: beside.write_bytes(content), force=force)

    def to_parquet(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write the same columns as a Parquet file, which needs the extra ``parquet``."""
        write_parquet(Path(path), self, force=force)

    def _parts(self, top: int, most: int | None = None) -> Iterator[Part]:
        if not self:
            yield "no images"
            return
        titles = ["image", "class", "probability", str(self.about["ood_method"])]
        if top > 1:
            titles.append(f"{min(top, len(self[0]['probabilities']))} most probable")
        if "set" in self[0]:
            titles.append("set")
        yield Table(titles, [_cells(row, top) for row in self[:most]], right=(2, 3))
        yield ""
        yield f"{counted(len(self), 'image')}:"
        yield self._summary()
        yield from self._rule()

    def _summary(self) -> Table:
        """Count the images of each label, most frequent first."""
        counts = Counter(str(row["label"]) for row in self).most_common()
        rows = [[f"  {name}", str(n), f"{n / len(self):.1%}"] for name, n in counts[:MOST_CLASSES]]
        if rest := counts[MOST_CLASSES:]:
            n = sum(count for _, count in rest)
            name = counted(len(rest), "other class", "other classes")
            rows.append([f"  {name}", str(n), f"{n / len(self):.1%}"])
        return Table((), rows, right=(1, 2))

    def _rule(self) -> Iterator[str]:
        """Say below what threshold images are unknown, or why no threshold is applied."""
        calibration, threshold = self.about["calibration"], self.about["threshold"]
        if threshold is not None:
            rule = f"below the threshold {threshold:.4g} of {self.about['ood_method']}"
            forced = sum(bool(row["is_unknown"]) and row["label"] != UNKNOWN for row in self)
            yield f"{counted(forced, 'image')} {rule}, but labelled (--no-unknown)" if forced else f"unknown: {rule}"
        elif calibration is not None:
            yield (
                f"no image is rejected: the threshold is for the score {calibration.get('ood_method')} at temperature "
                f"{calibration.get('ood_temperature')}"
            )
        else:
            yield (
                f"{self.about['ood_method']}: larger is more like the classes; calibrate the model (fit --calibrate) "
                "for a threshold, below which images are unknown"
            )


def _cells(row: Mapping[str, Any], top: int) -> list[str]:
    # The probability is that of the most probable class, which isn't the answer for a rejected image.
    is_rejected = row["is_unknown"] and row["label"] == UNKNOWN
    probability = "-" if is_rejected else f"{row['probability']:.1%}"
    cells = [str(row["path"]), str(row["label"]), probability, f"{row['ood_score']:.4f}"]
    if top > 1:
        ranked = sorted(row["probabilities"].items(), key=lambda one: -one[1])[:top]
        cells.append(", ".join(f"{name} {value:.1%}" for name, value in ranked))
    if "set" in row:
        cells.append("; ".join(map(str, row["set"])) or "empty")
    return cells
