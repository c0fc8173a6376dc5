"""Predictions as a table for people, with a summary by class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sotglp.console.output import UNKNOWN
from sotglp.console.table import counted, table_lines

MOST_CLASSES = 10
"""Classes that a summary lists; the others are counted."""


def prediction_lines(predictions: Sequence[Mapping[str, Any]], about: Mapping[str, Any], top: int = 1) -> Iterator[str]:
    """Yield a table of predictions, the number of images of each class, and the rule of rejection.

    Parameters
    ----------
    predictions : sequence of mappings
        Entries of :func:`sotglp.console.output.prediction`.
    about : mapping
        The score under ``ood_method``, its ``threshold``, None for none, and ``calibration``, None for none.
    top : int
        Number of most probable classes to list for each image; 1 lists the predicted class only.
    """
    titles = ["image", "class", "probability", str(about["ood_method"])]
    if top > 1:
        titles.append(f"{min(top, len(predictions[0]['probabilities']))} most probable")
    if "set" in predictions[0]:
        titles.append("set")
    yield from table_lines(titles, [_cells(row, top) for row in predictions], right=(2, 3))
    yield ""
    yield from _summary(predictions)
    yield from _rule(predictions, about)


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


def _summary(predictions: Sequence[Mapping[str, Any]]) -> list[str]:
    """Count the images of each label, most frequent first."""
    counts = Counter(str(row["label"]) for row in predictions).most_common()
    rows = [[f"  {name}", str(n), f"{n / len(predictions):.1%}"] for name, n in counts[:MOST_CLASSES]]
    if rest := counts[MOST_CLASSES:]:
        n = sum(count for _, count in rest)
        name = counted(len(rest), "other class", "other classes")
        rows.append([f"  {name}", str(n), f"{n / len(predictions):.1%}"])
    return [f"{counted(len(predictions), 'image')}:", *table_lines((), rows, right=(1, 2))]


def _rule(predictions: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> Iterator[str]:
    """Say below what threshold images are unknown, or why no threshold is applied."""
    calibration, threshold = about["calibration"], about["threshold"]
    if threshold is not None:
        rule = f"below the threshold {threshold:.4g} of {about['ood_method']}"
        forced = sum(bool(row["is_unknown"]) and row["label"] != UNKNOWN for row in predictions)
        yield f"{counted(forced, 'image')} {rule}, but labelled (--no-unknown)" if forced else f"unknown: {rule}"
    elif calibration is not None:
        yield (
            f"no image is rejected: the threshold is for the score {calibration.get('ood_method')} at temperature "
            f"{calibration.get('ood_temperature')}"
        )
