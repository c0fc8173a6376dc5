from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from sotglp import SotglpError
from sotglp.scoring.calibration import Calibration
from sotglp.scoring.rejection import Rejection
from sotglp.settings import InferenceConfig

KNOWN = np.array([0.9, 0.2, 0.6, 0.4, 0.7, 0.8, 0.5, 0.3, 0.95], np.float32)
SAID = np.array([[0.05, 0.35, 0.6], [0.91, 0.05, 0.04], [0.34, 0.33, 0.33]], np.float32)


def calibration(**changes: object) -> Calibration:
    made = Calibration("mcm", 0.5, Rejection(0.25, 0.9, 9, 0.9, (0.7, 0.99)), 1.0, KNOWN)
    return dataclasses.replace(made, **changes)


def test_a_score_at_the_threshold_passes() -> None:
    scores = np.array([0.2, np.nextafter(np.float32(0.25), np.float32(0)), 0.25, 0.3], np.float32)
    assert calibration().rejects(scores).tolist() == [True, True, False, False]


def test_a_threshold_is_for_one_score_at_one_temperature() -> None:
    assert calibration().is_for(InferenceConfig(ood_method="mcm", temperature=0.5, batch_size=3))
    assert not calibration().is_for(InferenceConfig(ood_method="mcm"))
    assert not calibration().is_for(InferenceConfig(ood_method="gl-mcm", temperature=0.5))


@given(st.floats(0.05, 20))
def test_probabilities_are_those_of_logits_over_the_temperature(temperature: float) -> None:
    logits = np.array([[1.0, 2.0, 5.0], [0.0, 0.0, -3.0]])
    found = calibration(temperature=temperature).probabilities(softmax(logits, axis=1).astype(np.float32))
    np.testing.assert_allclose(found, np.exp(log_softmax(logits / temperature, axis=1)), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("coverage", [0.5, 0.7, 0.9])
def test_sets_of_one_model_count_calibration_images(coverage: float) -> None:
    # A model of a fold would have nothing to say here.
    found = calibration().sets(SAID[None], coverage)
    for image, row in zip(SAID, found, strict=True):
        for probability, is_in in zip(image, row, strict=True):
            p_value = (1 + sum(known <= probability for known in KNOWN)) / (len(KNOWN) + 1)
            assert is_in == (p_value > 1 - coverage + 1e-9)


@pytest.mark.parametrize("coverage", [0.5, 0.7, 0.9])
def test_sets_of_folds_ask_the_model_of_each_calibration_images_fold(coverage: float) -> None:
    folds = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2])
    by_fold = np.stack([SAID, SAID[:, ::-1], SAID[::-1]])
    # The first is the whole model, which learned from all calibration images and must not be asked.
    found = calibration(folds=folds).sets(np.concatenate([np.full_like(SAID, 1 / 3)[None], by_fold]), coverage)
    for image in range(3):
        for label in range(3):
            n_below = sum(known <= by_fold[fold, image, label] for known, fold in zip(KNOWN, folds, strict=True))
            assert found[image, label] == ((1 + n_below) / 10 > 1 - coverage + 1e-9)


def test_no_sets_without_labels() -> None:
    with pytest.raises(SotglpError, match="need a calibration with labels"):
        calibration(true_probabilities=np.empty(0, np.float32)).sets(SAID[None], 0.9)


def test_no_sets_for_a_coverage_that_is_none() -> None:
    with pytest.raises(SotglpError, match="coverage = 1"):
        calibration().sets(SAID[None], 1.0)
