"""The training history that model files and checkpoints store."""

from __future__ import annotations

from typing import Any


def checked_history(raw: Any) -> list[dict[str, float]]:
    """Check that each entry of a history from a file has an epoch, a loss and an accuracy; else raise TypeError."""
    history: list[dict[str, float]] = list(raw)
    for entry in history:
        is_entry = isinstance(entry, dict) and {"epoch", "loss", "accuracy"} <= entry.keys()
        if not (is_entry and all(isinstance(value, int | float) for value in entry.values())):
            raise TypeError("history")
    return history
