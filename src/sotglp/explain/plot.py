"""Draw patch maps, legible in greyscale and for the colour-blind."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PatchCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from sotglp.explain.map_style import DARK, LIGHT, USED, VEIL

INK = "#1a1a1a"

VEILS = LinearSegmentedColormap.from_list("veils", [(0, 0, 0, VEIL), (0, 0, 0, 0)])
"""From the veil over patches without mass to none at the largest mass."""

MAX_COLUMNS = 6
PANEL = 2.0
"""Longer side of a panel, inches."""

CHARACTERS_PER_INCH = 12
"""Characters of a title that fit, even if all are wide."""


class Canvas(NamedTuple):
    """A picture, the pixel boxes of its patches (rows, columns, 4), and the box of the part that they cover."""

    picture: Image.Image
    boxes: NDArray[np.float64]
    seen: tuple[float, float, float, float]


def draw_maps(canvas: Canvas, title: str, rows: Sequence[tuple[str, NDArray[np.float32]]]) -> Figure:
    """Draw a row for each class: the picture with its support outlined, then the mass of each local prompt.

    ``rows`` are the title of each class and the share of each prompt's mass on each patch, (N, rows, columns).
    """
    n_panels = 1 + max(len(mass) for _, mass in rows)
    n_columns = min(n_panels, MAX_COLUMNS)
    rows_each = -(-n_panels // n_columns)
    width, height = canvas.picture.size
    panel_width, panel_height = (PANEL * side / max(width, height) for side in (width, height))
    panel_width, panel_height = max(panel_width, 1.1), max(panel_height, 0.5)
    figure = Figure(
        figsize=(
            n_columns * (panel_width + 0.1) + 0.9,
            len(rows) * (rows_each * (panel_height + 0.22) + 0.5) + 0.6,
        ),
        layout="constrained",
    )
    FigureCanvasAgg(figure)
    fits = round(figure.get_figwidth() * CHARACTERS_PER_INCH)
    figure.suptitle(_lines(title, fits), fontsize=9, color=INK)
    largest = max(float(mass.max()) for _, mass in rows)
    subfigures = np.atleast_1d(np.asarray(figure.subfigures(len(rows), 1)))
    for row, (class_title, mass) in zip(subfigures, rows, strict=True):
        row.suptitle(_lines(class_title, fits), fontsize=9, color=INK, fontweight="bold")
        panels = row.subplots(rows_each, n_columns, squeeze=False).ravel()
        n_patches = draw_support(panels[0], canvas, mass)
        panels[0].set_title(f"support: {n_patches} patches", fontsize=8, color=INK)
        for j, (panel, of_prompt) in enumerate(zip(panels[1:], mass, strict=False)):
            shown = draw_mass(panel, canvas, of_prompt, largest)
            panel.set_title(f"prompt {j + 1}", fontsize=8, color=INK)
        for panel in panels[1 + len(mass) :]:
            panel.set_axis_off()
        scale = row.colorbar(shown, ax=panels.tolist(), pad=0.01)
        scale.set_label("share of a\nprompt's mass", fontsize=8, color=INK)
        scale.ax.tick_params(labelsize=7)
    return figure


def draw_support(panel: Axes, canvas: Canvas, mass: NDArray[np.float32]) -> int:
    """Draw the picture with the patches of the support outlined, and return their number."""
    _lay_out(panel, canvas)
    panel.imshow(np.asarray(canvas.picture), extent=_extent(canvas))
    boxes = canvas.boxes[(mass > 0).any(axis=0)]
    _outline(panel, boxes)
    return len(boxes)


def draw_mass(panel: Axes, canvas: Canvas, mass: NDArray[np.float32], largest: float) -> AxesImage:
    """Draw the picture below a veil that mass (rows, columns) lifts; ``largest`` ends the scale."""
    _lay_out(panel, canvas)
    panel.imshow(np.asarray(canvas.picture), extent=_extent(canvas))
    # One image and no rectangles, between which PDF and SVG show seams.
    (left, top), (right, bottom) = canvas.boxes[0, 0, :2], canvas.boxes[-1, -1, 2:]
    veil = panel.imshow(
        mass, extent=(left, right, bottom, top), cmap=VEILS, vmin=0, vmax=largest, interpolation="nearest"
    )
    _outline(panel, canvas.boxes[mass >= USED * largest])
    return veil


def _outline(panel: Axes, boxes: NDArray[np.float64]) -> None:
    """Draw two lines around boxes (n, 4), of which one is visible on a light picture and one on a dark picture."""
    for colour, line_width in ((DARK, 2.0), (LIGHT, 0.8)):
        panel.add_collection(
            PatchCollection(_rectangles(boxes), facecolor="none", edgecolor=colour, linewidth=line_width)
        )


def _lay_out(panel: Axes, canvas: Canvas) -> None:
    """Set the limits of a panel and hatch the part of the picture that no patch covers."""
    width, height = canvas.picture.size
    panel.set_xticks([])
    panel.set_yticks([])
    left, top, right, bottom = canvas.seen
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


def _extent(canvas: Canvas) -> tuple[float, float, float, float]:
    width, height = canvas.picture.size
    return 0, width, height, 0


def _rectangles(boxes: NDArray[np.float64]) -> list[Rectangle]:
    return [Rectangle((left, top), right - left, bottom - top) for left, top, right, bottom in boxes]


def _lines(text: str, characters: int) -> str:
    """Wrap text, and escape what matplotlib would read as a formula."""
    wrapped = (line for part in text.split("\n") for line in textwrap.wrap(part, characters))
    return "\n".join(wrapped).replace("$", r"\$")
