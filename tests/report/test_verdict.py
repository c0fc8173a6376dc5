from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sotglp import SOTGLP
from sotglp.images.image_set import ImageSet
from sotglp.report.confusion import Confusion
from sotglp.report.findings import evaluate_for_report
from sotglp.report.verdict import verdict, weak_classes
from sotglp.scoring.calibration import calibrate_held_out
from sotglp.scoring.intervals import share
from support.report_samples import READING, others

NAMES = ("oak", "wren", "fog")


def counts(*correct: int) -> Confusion:
    """Thirty images of each class, of which the wrong ones are taken for the next class."""
    diagonal = np.diag(correct)
    return Confusion(NAMES, diagonal + np.roll(30 * np.eye(3, dtype=int) - diagonal, 1, axis=1))


def test_classes_are_weak_only_if_that_is_measured() -> None:
    confusion = counts(29, 28, 12)
    assert [one.label for one in weak_classes(confusion, share(69, 90))] == ["fog"]
    assert weak_classes(counts(29, 28, 27), share(84, 90)) == []


@pytest.mark.parametrize(
    ("correct", "how", "where"),
    [
        ((30, 30, 29), "Good", "the lowest is fog"),
        ((29, 28, 12), "Weak", "fog (12 of 30"),
        ((10, 9, 11), "Not", "wren"),
    ],
)
def test_three_sentences_of_measured_numbers(
    model: SOTGLP, images: ImageSet, correct: tuple[int, int, int], how: str, where: str
) -> None:
    found = replace(
        evaluate_for_report(model, images, {"noise": others()}, READING),
        confusion=counts(*correct),
        accuracy=share(sum(correct), 90),
    )
    first, second, third = verdict(found)
    assert first.startswith(how)
    assert "90 test images" in first
    assert where in second
    assert f"{found.ood['noise'].figures['auroc']:.3f} (noise)" in third
    assert ("add shots" in third) == (how == "Weak")


def test_the_threshold_is_judged_by_what_it_accepts_and_rejects(model: SOTGLP, images: ImageSet) -> None:
    calibration = calibrate_held_out(model, images, READING, 0.6)
    found = evaluate_for_report(model, images, {"noise": others()}, READING, calibration)
    third = verdict(found)[2]
    assert f"the threshold {calibration.rejection.threshold:.4g}" in third
    assert "of the test images and rejects" in third
