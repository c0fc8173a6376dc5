"""Classifiers that learn in a moment."""

from __future__ import annotations

from typing import Any

from sotglp import Backbone, SOTGLPClassifier

QUICK: dict[str, Any] = {"epochs": 4, "batch_size": 8, "learning_rate": 0.02, "augment": False, "shots": None}


def classifier(backbone: Backbone, **parameters: Any) -> SOTGLPClassifier:
    return SOTGLPClassifier(backbone, **{**QUICK, **parameters})
