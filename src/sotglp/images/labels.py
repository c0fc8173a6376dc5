"""Class labels as text."""

from __future__ import annotations

from numbers import Integral, Real


def label_text(label: object) -> str:
    """A class label as text; whole numbers go without a decimal point."""
    return f"{label:.0f}" if isinstance(label, Real) and not isinstance(label, Integral) else str(label)
