"""Charts of a report as SVG that stands in a page: its colours are the page's, and it holds no text of a user's."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from sotglp.report.reliability import N_BINS, Reliability

INK, GRID, FIRST, SECOND = "#010203", "#010204", "#010205", "#010206"
VARIABLES = {INK: "--ink", GRID: "--line", FIRST: "--first", SECOND: "--second"}
"""Colours that stand for those of the page, so that a chart is light or dark as the page is."""

FIELD = "#0072B2"
"""Of the fields of a large confusion matrix, more or less opaque: it stands out from light and dark pages."""

Dashes = str | tuple[int, tuple[int, int]]
DASHED: Dashes = (0, (4, 2))
DOTTED: Dashes = (0, (1, 2))

SIZE = (3.9, 2.9)
"""Of a chart in inches."""

SETTINGS = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.7,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


def confusion_field(shares: NDArray[np.float64]) -> Markup:
    """A square for each pair of classes, the darker the larger the share of the row's images.

    Parameters
    ----------
    shares : NDArray
        Of the images of each class (rows) that are taken for each (columns), (C, C).
    """
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(6, 6), layout="constrained")
        panel = figure.subplots()
        panel.grid(visible=False)
        panel.spines[:].set_visible(True)
        pixels = np.empty((*shares.shape, 4))
        pixels[..., :3] = to_rgb(FIELD)
        pixels[..., 3] = np.sqrt(shares)  # a single mistake among many images can be seen
        n = len(shares)
        panel.imshow(pixels, interpolation="none", extent=(0.5, n + 0.5, n + 0.5, 0.5))
        panel.set_xlabel("predicted class, by its number")
        panel.set_ylabel("right class, by its number")
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True))
        return _svg(figure, "confusion")


def reliability_chart(before: Reliability, after: Reliability | None) -> Markup:
    """Share of right predictions against their probability, over how many images have it."""
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(4.4, 4.4), layout="constrained")
        upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
        upper.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=DOTTED)
        kinds: list[tuple[Reliability | None, str, str, str, Dashes]] = [
            (before, "as predicted", SECOND, "s", DASHED),
            (after, "calibrated", FIRST, "o", "solid"),
        ]
        for reliability, label, colour, marker, dashes in kinds:
            if reliability is None:
                continue
            filled = reliability.counts > 0
            upper.plot(
                reliability.confidence[filled],
                reliability.accuracy[filled],
                color=colour,
                marker=marker,
                markersize=5,
                markerfacecolor="none" if label == "as predicted" else colour,
                linestyle=dashes,
                label=label,
            )
            lower.stairs(reliability.counts, np.arange(N_BINS + 1) / N_BINS, color=colour, linestyle=dashes)
        upper.set_ylim(-0.03, 1.03)
        upper.set_ylabel("share that is right")
        upper.legend(loc="upper left")
        lower.set_ylabel("images")
        lower.set_ylim(bottom=0)
        lower.set_xlabel("probability of the predicted class")
        lower.set_xlim(-0.03, 1.03)
        for axis in (upper.yaxis, lower.xaxis):
            axis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        return _svg(figure, "reliability")


def score_histogram(
    inside: NDArray[np.float32], outside: NDArray[np.float32], threshold: float | None, name: str
) -> Markup:
    """How scores of images of the classes and of other ones are spread; ``name`` is the chart's own among charts."""
    with mpl.rc_context(SETTINGS):
        figure, panel = _figure()
        everything = np.concatenate([inside, outside]).astype(np.float64)
        low, high = everything.min(), everything.max()
        margin = (high - low or abs(high) or 1.0) * 0.01
        edges = np.linspace(low - margin, high + margin, 31)
        looks: list[tuple[NDArray[np.float32], str, str, Dashes, dict[str, Any]]] = [
            (inside, "the classes", FIRST, "solid", {"fill": True, "alpha": 0.28}),
            (outside, "others", SECOND, DASHED, {"hatch": "////"}),
        ]
        for scores, label, colour, dashes, filling in looks:
            shares = np.histogram(scores.astype(np.float64), edges)[0] / len(scores)
            panel.stairs(shares, edges, color=colour, **filling)
            panel.stairs(shares, edges, color=colour, linestyle=dashes, linewidth=1.4, label=label)
        if threshold is not None:
            panel.axvline(threshold, color=INK, linewidth=1.4, linestyle=(0, (1, 1)), label="threshold")
        panel.set_ylim(bottom=0)
        panel.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        panel.set_xlabel("score: more like the classes →")
        panel.set_ylabel("share of images")
        panel.xaxis.set_major_locator(MaxNLocator(6))
        figure.legend(loc="outside upper center", ncols=3, columnspacing=1.2)
        return _svg(figure, name)


def roc_chart(
    false_accepted: NDArray[np.float64],
    true_accepted: NDArray[np.float64],
    at_threshold: tuple[float, float] | None,
    name: str,
) -> Markup:
    """Share of the classes' images against that of others that reach a score; a mark where the threshold is."""
    with mpl.rc_context(SETTINGS):
        figure, panel = _figure()
        panel.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=DOTTED, label="by chance")
        panel.plot(false_accepted, true_accepted, color=FIRST, linewidth=1.8, label="this model")
        panel.axhline(0.95, color=SECOND, linewidth=1, linestyle=DASHED, label="95 %")
        if at_threshold:
            panel.plot(*at_threshold, color=INK, marker="D", markersize=5, linestyle="none", label="threshold")
        panel.set_xlim(-0.02, 1.02)
        panel.set_ylim(-0.02, 1.02)
        panel.set_xlabel("other images accepted")
        panel.set_ylabel("images of the classes accepted")
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        panel.legend(loc="lower right")
        return _svg(figure, name)


def curve(epochs: Sequence[float], values: Sequence[float], label: str, *, is_share: bool, name: str) -> Markup:
    """A value over the epochs of training."""
    with mpl.rc_context(SETTINGS):
        figure, panel = _figure()
        panel.plot(epochs, values, color=FIRST, linewidth=1.6, marker="o", markersize=3)
        panel.set_xlabel("epoch")
        panel.set_ylabel(label)
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if is_share:
            panel.set_ylim(-0.02, 1.02)
            panel.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        else:
            panel.set_ylim(bottom=min(0, *values))
        return _svg(figure, name)


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, layout="constrained")
    return figure, figure.subplots()


def _svg(figure: Figure, name: str) -> Markup:
    """The drawing alone, the same bytes each time; identifiers of two charts differ by ``name``."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": f"sotglp {name}"}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        FigureCanvasSVG(figure).print_svg(buffer, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    view = re.search(r'viewBox="[^"]*"', text)
    assert view is not None
    text = re.sub(r"^<svg[^>]*>", f'<svg {view[0]} aria-hidden="true" focusable="false">', text)
    # Its style would be the whole page's, its groups are named alike in all charts, and its fonts are not the page's.
    text = re.sub(r"\s*<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*">', "<g>", text)
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text)
    text = re.sub(r"font-family: [^;\"]*; ", "", text).replace("xlink:href", "href")
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return Markup(text.strip())
