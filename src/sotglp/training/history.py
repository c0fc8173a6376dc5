"""The training history that model files and checkpoints store."""

from __future__ import annotations

from typing import Any


def checked_history(raw: Any) -> list[dict[str, float]]:
    """Check a history read from a file: each entry has at least an epoch, a loss and an accuracy.

    Raises
    ------
    TypeError
        If an entry has another form.
    """
    history: list[dict[str, float]] = []
    for entry in raw:
        if not (isinstance(entry, dict) and {"epoch", "loss", "accuracy"} <= entry.keys()):
            raise TypeError("history")
        if not all(isinstance(value, int | float) for value in entry.values()):
            raise TypeError("history")
        history.append(entry)
    return history
