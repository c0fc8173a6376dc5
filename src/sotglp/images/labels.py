"""Class names from the labels that users give, and from class names the words of a prompt."""

from __future__ import annotations

from numbers import Integral, Real


def label_text(label: object) -> str:
    """A class label as text; whole numbers go without a decimal point."""
    return f"{label:.0f}" if isinstance(label, Real) and not isinstance(label, Integral) else str(label)


def prompt_name(class_name: str) -> str:
    """Return a class name as prompts contain it, with spaces for underscores and single spaces between words."""
    return " ".join(class_name.replace("_", " ").split())
