"""The verdict on top of a report: three sentences, all of them from measured numbers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sotglp.console.table import counted
from sotglp.report.confusion import ClassResult, Confusion
from sotglp.report.findings import Findings
from sotglp.report.template import percent
from sotglp.scoring.intervals import Share

GOOD, USABLE = 0.9, 0.7
"""Accuracies that the lower end of the interval has to reach."""

MOST_NAMED = 3


def verdict(findings: Findings) -> tuple[str, str, str]:
    """Say how good a model is on the test images, on which classes it is worse, and what to do about it."""
    weak = weak_classes(findings.confusion, findings.accuracy)
    return _how_good(findings), _where_not(weak, findings.confusion), _what_to_do(findings, weak)


def weak_classes(confusion: Confusion, accuracy: Share) -> list[ClassResult]:
    """Return the classes whose interval of accuracy lies below the accuracy of all images, worst first."""
    found = confusion.worst(len(confusion.labels))
    return [one for one in found if one.accuracy.interval and one.accuracy.interval.high < accuracy.value]


def _how_good(findings: Findings) -> str:
    accuracy, chance = findings.accuracy, 1 / len(findings.confusion.labels)
    low, high = accuracy.interval or (0.0, 1.0)
    if low <= chance:
        what = "Not measurably better than chance"
    elif low >= GOOD:
        what = "Good"
    elif low >= USABLE:
        what = "Usable where mistakes can be corrected"
    else:
        what = "Weak"
    return (
        f"{what}: {percent(accuracy.value)} of {counted(accuracy.n, 'test image')} are right (95 % interval "
        f"{percent(low)} to {percent(high)}, chance {percent(chance)})."
    )


def _where_not(weak: list[ClassResult], confusion: Confusion) -> str:
    if weak:
        named = [
            f"{one.label} ({one.accuracy.count} of {one.accuracy.n} right, most often taken for {one.mistaken_for})"
            for one in weak[:MOST_NAMED]
        ]
        more = f" and {len(weak) - MOST_NAMED} others" if len(weak) > MOST_NAMED else ""
        return f"Measurably worse than the rest: {', '.join(named)}{more}."
    worst = confusion.worst(1)
    if not worst:
        return "No class has a mistake."
    lowest = worst[0]
    return (
        f"No class is measurably worse than the rest; the lowest is {lowest.label} with {lowest.accuracy.count} of "
        f"{lowest.accuracy.n} right."
    )


def _what_to_do(findings: Findings, weak: list[ClassResult]) -> str:
    names = [one.label for one in weak[:MOST_NAMED]]
    advice = [f"check the labels of {' and '.join(names)} and add shots of them"] if names else []
    method = findings.inference.ood_method
    aurocs = {name: one.figures["auroc"] for name, one in findings.ood.items()}
    if findings.threshold is None:
        advice.append(f"calibrate (fit --calibrate) to reject unknown images{_measured(method, aurocs)}")
    else:
        accepted = float(np.mean(findings.images.scores >= findings.threshold))
        rejected = {name: float(np.mean(one.scores < findings.threshold)) for name, one in findings.ood.items()}
        shares = "".join(f" and rejects {percent(share)} of those in {name}" for name, share in rejected.items())
        what = "keep" if not rejected or min(rejected.values()) > 1 - accepted else "compare other scores with"
        advice.append(
            f"{what} the score {method} with the threshold {findings.threshold:.4g}, which accepts "
            f"{percent(accepted)} of the test images{shares}"
        )
    first, *rest = advice
    return f"{first[0].upper()}{first[1:]}{''.join('; ' + other for other in rest)}."


def _measured(method: str, aurocs: Mapping[str, float]) -> str:
    if not aurocs:
        return ""
    return f"; {method} separates them with an AUROC of " + ", ".join(f"{v:.3f} ({name})" for name, v in aurocs.items())
