"""Charts of a report, each as a data URI of an SVG image; the page inverts them where the reader prefers dark."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

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

INK, GRID, FIRST, SECOND = "#1b1f24", "#d0d7de", "#0072b2", "#c04f00"

Dashes = str | tuple[int, tuple[int, int]]
DASHED: Dashes = (0, (4, 2))
DOTTED: Dashes = (0, (1, 2))

SIZE = (3.9, 2.9)
"""Width and height of a chart in inches."""

SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "sotglp",
    "font.sans-serif": ["DejaVu Sans"],
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


@mpl.rc_context(SETTINGS)
def confusion_matrix(shares: NDArray[np.float64]) -> Markup:
    """Draw a large confusion matrix (C, C) of shares of each true class (row) predicted as each class (column)."""
    figure = Figure(figsize=(6, 6), layout="constrained")
    panel = figure.subplots()
    panel.grid(visible=False)
    panel.spines[:].set_visible(True)
    pixels = np.empty((*shares.shape, 4))
    pixels[..., :3] = to_rgb(FIRST)
    pixels[..., 3] = np.sqrt(shares)  # keeps rare mistakes visible
    n = len(shares)
    panel.imshow(pixels, interpolation="none", extent=(0.5, n + 0.5, n + 0.5, 0.5))
    panel.set_xlabel("predicted class, by number")
    panel.set_ylabel("true class, by number")
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    return _data_uri(figure)


@mpl.rc_context(SETTINGS)
def reliability_diagram(before: Reliability, after: Reliability | None) -> Markup:
    """Draw accuracy against confidence above a histogram of confidence, before and after calibration."""
    figure = Figure(figsize=(4.4, 4.4), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=DOTTED)
    kinds: list[tuple[Reliability | None, str, str, str, str, Dashes]] = [
        (before, "uncalibrated", SECOND, "s", "none", DASHED),
        (after, "calibrated", FIRST, "o", FIRST, "solid"),
    ]
    for reliability, label, colour, marker, face, dashes in kinds:
        if reliability is None:
            continue
        filled = reliability.counts > 0
        upper.plot(
            reliability.confidence[filled],
            reliability.accuracy[filled],
            color=colour,
            marker=marker,
            markersize=5,
            markerfacecolor=face,
            linestyle=dashes,
            label=label,
        )
        lower.stairs(reliability.counts, np.arange(N_BINS + 1) / N_BINS, color=colour, linestyle=dashes)
    upper.set_ylim(-0.03, 1.03)
    upper.set_ylabel("accuracy")
    upper.legend(loc="upper left")
    lower.set_ylabel("images")
    lower.set_ylim(bottom=0)
    lower.set_xlabel("probability of the predicted class")
    lower.set_xlim(-0.03, 1.03)
    _in_percent(upper.yaxis, lower.xaxis)
    lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    return _data_uri(figure)


@mpl.rc_context(SETTINGS)
def score_histogram(inside: NDArray[np.float32], outside: NDArray[np.float32], threshold: float | None) -> Markup:
    """Draw the distribution of OOD scores of in-distribution and other images."""
    figure, panel = _figure()
    scores = np.concatenate([inside, outside]).astype(np.float64)
    low, high = scores.min(), scores.max()
    margin = (high - low or abs(high) or 1.0) * 0.01
    edges = np.linspace(low - margin, high + margin, 31)
    looks: list[tuple[NDArray[np.float32], str, str, Dashes, dict[str, Any]]] = [
        (inside, "known classes", FIRST, "solid", {"fill": True, "alpha": 0.28}),
        (outside, "other images", SECOND, DASHED, {"hatch": "////"}),
    ]
    for values, label, colour, dashes, filling in looks:
        shares = np.histogram(values.astype(np.float64), edges)[0] / len(values)
        panel.stairs(shares, edges, color=colour, **filling)
        panel.stairs(shares, edges, color=colour, linestyle=dashes, linewidth=1.4, label=label)
    if threshold is not None:
        panel.axvline(threshold, color=INK, linewidth=1.4, linestyle=(0, (1, 1)), label="threshold")
    panel.set_ylim(bottom=0)
    _in_percent(panel.yaxis)
    panel.set_xlabel("score: more like the known classes →")
    panel.set_ylabel("share of images")
    panel.xaxis.set_major_locator(MaxNLocator(6))
    figure.legend(loc="outside upper center", ncols=3, columnspacing=1.2)
    return _data_uri(figure)


@mpl.rc_context(SETTINGS)
def roc_curve(fpr: NDArray[np.float64], tpr: NDArray[np.float64], at_threshold: tuple[float, float] | None) -> Markup:
    """Draw a ROC curve, with a mark at the threshold's (FPR, TPR)."""
    figure, panel = _figure()
    panel.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=DOTTED, label="chance")
    panel.plot(fpr, tpr, color=FIRST, linewidth=1.8, label="this model")
    panel.axhline(0.95, color=SECOND, linewidth=1, linestyle=DASHED, label="95 %")
    if at_threshold:
        panel.plot(*at_threshold, color=INK, marker="D", markersize=5, linestyle="none", label="threshold")
    panel.set_xlim(-0.02, 1.02)
    panel.set_ylim(-0.02, 1.02)
    panel.set_xlabel("other images accepted")
    panel.set_ylabel("images of known classes accepted")
    _in_percent(panel.xaxis, panel.yaxis)
    panel.legend(loc="lower right")
    return _data_uri(figure)


@mpl.rc_context(SETTINGS)
def training_curve(epochs: Sequence[float], values: Sequence[float], label: str, *, is_share: bool) -> Markup:
    """Draw a value over the epochs of training."""
    figure, panel = _figure()
    panel.plot(epochs, values, color=FIRST, linewidth=1.6, marker="o", markersize=3)
    panel.set_xlabel("epoch")
    panel.set_ylabel(label)
    panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if is_share:
        panel.set_ylim(-0.02, 1.02)
        _in_percent(panel.yaxis)
    else:
        panel.set_ylim(bottom=min(0, *values))
    return _data_uri(figure)


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, layout="constrained")
    return figure, figure.subplots()


def _in_percent(*axes: Any) -> None:
    for axis in axes:
        axis.set_major_formatter(PercentFormatter(1, symbol=" %"))


def _data_uri(figure: Figure) -> Markup:
    """The figure as SVG; equal figures give equal bytes."""
    buffer = io.StringIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = buffer.getvalue()
    # The reader's font; quotes and blanks that needn't be encoded make the page a quarter smaller.
    svg = " ".join(svg[svg.index("<svg") :].replace("'DejaVu Sans', ", "").replace('"', "'").split())
    return Markup("data:image/svg+xml," + quote(svg, safe=" !'()*+,-./:;=?@[]^_{|}~"))
