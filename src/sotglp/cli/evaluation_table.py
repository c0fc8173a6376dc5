"""Results of an evaluation as text for people: accuracy, classes from the worst on, unknown images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sotglp.console.table import counted, table_lines

MOST_CLASSES = 20
"""Classes that are listed; the JSON has all."""


def evaluation_lines(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a result of :func:`sotglp.scoring.evaluate.evaluate` by class.

    ``result`` also has ``accuracy_interval``, None for no images, ``chance``, ``ood_method`` and ``temperature``.
    """
    yield from table_lines((), list(_headline(result)))
    yield ""
    yield from _classes(result["per_class"])
    if result["ood"]:
        yield ""
        yield from _unknown(result)


def _headline(result: Mapping[str, Any]) -> Iterator[list[str]]:
    interval = result["accuracy_interval"]
    bounds = f"95% interval {interval[0]:.1%} to {interval[1]:.1%}, " if interval else ""
    yield [
        "accuracy",
        f"{result['accuracy']:.1%} ({bounds}chance {result['chance']:.1%}) on {counted(result['n'], 'image')}",
    ]
    yield ["global branch", f"{result['accuracy_global']:.1%}"]
    yield ["local branch", f"{result['accuracy_local']:.1%}"]
    calibrated = f", {result['ece_calibrated']:.3f} calibrated" if "ece_calibrated" in result else ""
    yield ["calibration error", f"{result['ece']:.3f}{calibrated}"]
    if "accepted" in result:
        accuracy = result["accuracy_accepted"]
        on_accepted = "" if accuracy is None else f"; accuracy on accepted images {accuracy:.1%}"
        yield ["accepted", f"{result['accepted']:.1%}{on_accepted}"]


def _classes(rows: list[Mapping[str, Any]]) -> Iterator[str]:
    titles = ["class, worst first", "accuracy", "correct", "most often mistaken for"]
    cells = [
        [
            str(row["class"]),
            f"{row['accuracy']:.1%}",
            f"{row['correct']} of {row['n']}",
            f"{row['mistaken_for']} ({row['n_mistaken_for']})" if row["n_mistaken_for"] else "",
        ]
        for row in rows[:MOST_CLASSES]
    ]
    yield from table_lines(titles, cells, right=(1, 2))
    if rest := rows[MOST_CLASSES:]:
        yield f"{counted(len(rest), 'more class', 'more classes')}, none worse (--json lists all)"


def _unknown(result: Mapping[str, Any]) -> Iterator[str]:
    at = "" if result["temperature"] == 1 else f" at temperature {result['temperature']:g}"
    sets = result["ood"]
    has_threshold = any("rejected" in numbers for numbers in sets.values())
    titles = ["unknown images", "images", "AUROC", "FPR95", "AUPR in", "AUPR out", "OSCR"]
    cells = [
        [
            name,
            str(numbers["n"]),
            *(f"{numbers[key]:.3f}" for key in ("auroc", "fpr95", "aupr_in", "aupr_out", "oscr")),
            *([f"{numbers['rejected']:.1%}"] if has_threshold else []),
        ]
        for name, numbers in sets.items()
    ]
    yield from table_lines([*titles, *(["rejected"] if has_threshold else [])], cells, right=range(1, 8))
    yield f"by the score {result['ood_method']}{at}"
