"""A figure of test photos: the support of the predicted class, and the mass of each local prompt on patches."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sotglp.demo.panels import finish, lay_out, name_row
from sotglp.explain.explanation import Explanation
from sotglp.explain.plot import Canvas, draw_mass, draw_support
from sotglp.images.labels import prompt_name

MAX_LINE = 14
"""Characters of a class name on one line beside its row."""


def draw_photo_gallery(explanations: Sequence[Explanation], labels: Sequence[str], target: Path) -> None:
    """Write a PNG with a row per explained photo.

    Parameters
    ----------
    explanations : sequence of Explanation
        Each of one class, the predicted one.
    labels : sequence of str
        True class of each photo.
    target : Path
        The file.
    """
    n_prompts = explanations[0].classes[0].n_prompts
    titles = ["photo", "support", *(f"prompt {j + 1}" for j in range(n_prompts))]
    figure, panels = lay_out(titles, len(explanations))
    largest = max(float(one.classes[0].mass.max()) for one in explanations)
    for row, explanation, label in zip(panels, explanations, labels, strict=True):
        (predicted,) = explanation.classes
        canvas = Canvas(explanation.image, explanation.boxes, explanation.seen)
        row[0].imshow(np.asarray(explanation.image))
        draw_support(row[1], canvas, predicted.mass)
        for panel, mass in zip(row[2:], predicted.mass, strict=True):
            shown = draw_mass(panel, canvas, mass, largest)
        name_row(row[0], *(textwrap.fill(prompt_name(name), MAX_LINE) for name in (label, predicted.label)))
    finish(figure, panels, shown, target)
