"""An explanation as a picture for people: clear in greyscale, and for those who see few colours."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from sotglp.console.text import printable

if TYPE_CHECKING:
    from sotglp.explain.explanation import ClassExplanation, Explanation

INK = "#1a1a1a"
PAPER = "white"

COLOURS = "YlGnBu"
"""From light to dark, in grey too; safe for the colour-blind (ColorBrewer)."""

MOST_IN_A_ROW = 6
PANEL = 2.0
"""Longer side of a panel, inches."""

CHARACTERS_PER_INCH = 12
"""So many of a title's letters go into an inch, even if all are wide."""


def draw_explanation(explanation: Explanation) -> Figure:
    """Draw a row for each class: the picture with the support outlined, and what each local prompt took of it.

    Parameters
    ----------
    explanation : Explanation
        What to draw.
    """
    n_panels = 1 + max(one.n_prompts for one in explanation.classes)
    n_columns = min(n_panels, MOST_IN_A_ROW)
    rows_each = -(-n_panels // n_columns)
    width, height = explanation.image.size
    panel_width, panel_height = (PANEL * side / max(width, height) for side in (width, height))
    panel_width, panel_height = max(panel_width, 1.1), max(panel_height, 0.5)
    figure = Figure(
        figsize=(
            n_columns * (panel_width + 0.1) + 0.9,
            len(explanation.classes) * (rows_each * (panel_height + 0.22) + 0.5) + 0.6,
        ),
        layout="constrained",
    )
    FigureCanvasAgg(figure)
    fits = round(figure.get_figwidth() * CHARACTERS_PER_INCH)
    figure.suptitle(_lines(_verdict(explanation), fits), fontsize=9, color=INK)
    brightest = max(float(one.mass.max()) for one in explanation.classes)
    rows = np.atleast_1d(np.asarray(figure.subfigures(len(explanation.classes), 1)))
    for row, one in zip(rows, explanation.classes, strict=True):
        row.suptitle(_lines(_class_verdict(one), fits), fontsize=9, color=INK, fontweight="bold")
        panels = row.subplots(rows_each, n_columns, squeeze=False).ravel()
        draw_support(panels[0], explanation, one)
        panels[0].set_title(f"support: {int(one.support.sum())} patches", fontsize=8, color=INK)
        for j, (panel, mass) in enumerate(zip(panels[1:], one.mass, strict=False)):
            shown = draw_mass(panel, explanation, mass, brightest)
            panel.set_title(f"prompt {j + 1}", fontsize=8, color=INK)
        for panel in panels[1 + one.n_prompts :]:
            panel.set_axis_off()
        scale = row.colorbar(shown, ax=panels.tolist(), pad=0.01)
        scale.set_label("share of a\nprompt's mass", fontsize=8, color=INK)
        scale.ax.tick_params(labelsize=7)
    return figure


def draw_support(panel: Axes, explanation: Explanation, one: ClassExplanation) -> None:
    """The picture in full colour with the patches of the support outlined, and what the model did not see shaded."""
    _lay_out(panel, explanation)
    panel.imshow(np.asarray(explanation.image), extent=_extent(explanation))
    boxes = explanation.boxes[one.support]
    # Two lines show on a light picture and on a dark one.
    for colour, line_width in ((INK, 2.0), (PAPER, 0.8)):
        panel.add_collection(
            PatchCollection(_rectangles(boxes), facecolor="none", edgecolor=colour, linewidth=line_width)
        )


def draw_mass(panel: Axes, explanation: Explanation, mass: NDArray[np.float32], brightest: float) -> PatchCollection:
    """A faint grey picture with each patch in a colour that tells its mass; patches without any stay clear.

    Parameters
    ----------
    panel : Axes
        Where to draw.
    explanation : Explanation
        Of the image.
    mass : NDArray
        Share of mass on each patch, (rows, columns).
    brightest : float
        Share with the strongest colour.
    """
    _lay_out(panel, explanation)
    faint = 255 - (255 - np.asarray(explanation.image.convert("L"), dtype=np.float32)) * 0.45
    panel.imshow(faint, cmap="gray", vmin=0, vmax=255, extent=_extent(explanation))
    taken = mass > 0
    patches = PatchCollection(
        _rectangles(explanation.boxes[taken]), cmap=COLOURS, edgecolor=INK, linewidth=0.4, alpha=0.85
    )
    patches.set_array(mass[taken])
    patches.set_clim(0, brightest)
    panel.add_collection(patches)
    return patches


def _lay_out(panel: Axes, explanation: Explanation) -> None:
    """Bounds of a picture, and a shade over what lies outside of the part that the model saw."""
    width, height = explanation.image.size
    panel.set_xticks([])
    panel.set_yticks([])
    left, top, right, bottom = explanation.seen
    beside = [
        Rectangle((0, 0), width, top),
        Rectangle((0, bottom), width, height - bottom),
        Rectangle((0, top), left, bottom - top),
        Rectangle((right, top), width - right, bottom - top),
    ]
    shades = [shade for shade in beside if min(shade.get_width(), shade.get_height()) > 0.5]
    panel.add_collection(
        PatchCollection(shades, facecolor="#ffffffb0", edgecolor="#555555", hatch="////", linewidth=0.5, zorder=3)
    )
    panel.set_xlim(0, width)
    panel.set_ylim(height, 0)
    panel.set_aspect("equal")


def _extent(explanation: Explanation) -> tuple[float, float, float, float]:
    width, height = explanation.image.size
    return 0, width, height, 0


def _rectangles(boxes: NDArray[np.float64]) -> list[Rectangle]:
    return [Rectangle((left, top), right - left, bottom - top) for left, top, right, bottom in boxes]


def _class_verdict(one: ClassExplanation) -> str:
    """What speaks for a class."""
    return (
        f"{one.label}\nprobability {one.probability:.3f}, global score {one.global_score:.3f}, "
        f"local score {one.local_score:.3f}"
    )


def _verdict(explanation: Explanation) -> str:
    """What is said of the whole image."""
    score = f"in-distribution score ({explanation.ood_method}) {explanation.ood_score:.4f}"
    if explanation.threshold is not None:
        said = "unknown: below" if explanation.is_unknown else "known: not below"
        score += f", {said} the threshold {explanation.threshold:.4f}"
    return f"{printable(explanation.name)}\n{score}"


def _lines(text: str, characters: int) -> str:
    """Text in lines of so many characters, in which nothing is taken for a formula."""
    wrapped = (line for part in text.split("\n") for line in textwrap.wrap(part, characters))
    return "\n".join(wrapped).replace("$", r"\$")
