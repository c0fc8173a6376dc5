"""Calibration records."""

from __future__ import annotations

from sotglp.model_file.record import CalibrationRecord
from sotglp.settings import OodMethod


def calibrated(method: OodMethod, temperature: float = 1.7) -> CalibrationRecord:
    rejection = {"threshold": 0.5, "tpr": 0.95, "n": 20, "expected_tpr": 0.95, "interval": (0.9, 0.99)}
    return CalibrationRecord.model_validate(
        {
            "ood_method": method,
            "ood_temperature": 1.0,
            "rejection": rejection,
            "temperature": temperature,
            "n_folds": 0,
        }
    )
