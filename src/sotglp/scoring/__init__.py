"""Predictions and what they are worth: metrics, OOD scores, calibration and decisions."""
