"""The frame of the demo's figures: a row of panels for each image, a name at its left, one colour bar."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

INK = "#1a1a1a"

PANEL = 1.5
"""Width of a panel, inches."""


def lay_out(titles: Sequence[str], n_rows: int) -> tuple[Figure, Any]:
    """Return a figure and its panels, an array of axes (n_rows, columns) with titles above the first row."""
    # Space for names on the left and the colour bar on the right.
    size = (PANEL * len(titles) + 2.7, (PANEL + 0.05) * n_rows + 0.5)
    figure = Figure(figsize=size)
    # The default padding cuts names off beside panels that are narrower than their cell.
    figure.set_layout_engine("constrained", w_pad=0.12)
    FigureCanvasAgg(figure)
    panels = figure.subplots(n_rows, len(titles), squeeze=False)
    for panel, title in zip(panels[0], titles, strict=True):
        panel.set_title(title, fontsize=10, color=INK)
    return figure, panels


def name_row(panel: Any, label: str, predicted: str) -> None:
    """Write the class of an image, and the predicted class if it is another, at the left of its first panel."""
    verdict = f"{label}\n(correct)" if label == predicted else f"{label}\n(predicted\n{predicted})"
    panel.set_ylabel(verdict, fontsize=8, color=INK, rotation=0, ha="right", va="center")


def finish(figure: Figure, panels: Any, shown: ScalarMappable, target: Path) -> None:
    """Remove ticks, add the scale of mass, and write the figure as PNG."""
    for panel in panels.flat:
        panel.set_xticks([])
        panel.set_yticks([])
    scale = figure.colorbar(shown, ax=panels, shrink=min(1, 2 / len(panels)))
    scale.set_label("share of a prompt's\nmass on a patch", fontsize=9, color=INK)
    scale.ax.tick_params(labelsize=8)
    figure.savefig(target, format="png", dpi=110)
