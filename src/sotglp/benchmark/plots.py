"""Plots of a benchmark: accuracy against shots, OOD detection and fitting time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from sotglp.benchmark.cells import ANY
from sotglp.benchmark.label_placement import place_labels
from sotglp.benchmark.published import MEAN
from sotglp.benchmark.results import Result
from sotglp.benchmark.scores import Measure, Part, Scores
from sotglp.benchmark.tables import REFERENCE, accuracy_of
from sotglp.methods.method import METHODS

Dashes = str | tuple[int, tuple[float, ...]]
Marker = str | tuple[int, int, int]

INK = "#1a1a1a"
GRID = "#d9d9d9"
DPI = 150
PIXEL = DPI / 72
"""Pixels per typographic point."""

COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#E69F00", "#CC79A7", "#56B4E9")
"""The colour-blind safe palette of Okabe and Ito, without yellow, which is invisible on white."""
MARKERS: tuple[Marker, ...] = (
    *(*"osD^vPX<>p*H8", (4, 1, 0), (3, 1, 0), (5, 1, 36), (6, 1, 0), *"hd"),
    *((4, 1, 45), (3, 1, 60), (8, 1, 0)),
)
"""Filled shapes of matplotlib; a triple is a star with that many points, and its angle.

Their number is no multiple of that of the colours, so that pairs of both repeat late.
"""
DASHES: tuple[Dashes, ...] = ("solid", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)))
SHOTLESS = "#707070"
SHOTLESS_DASHES: tuple[Dashes, ...] = ((0, (5, 3)), (0, (1.5, 2)), (0, (8, 2, 1.5, 2)))

LEADER_FROM = 9
"""Distance in typographic points from which a leader line joins a label and its point."""

MIN_SECONDS = 1e-3
"""Position of a fit that took no time on the logarithmic axis."""


class Style(NamedTuple):
    """Colour, marker, dashes and line width of a method."""

    colour: str
    marker: Marker
    dashes: Dashes
    width: float


class Point(NamedTuple):
    """A method in a scatter plot."""

    method: str
    x: float
    y: float


def styles(scores: Scores) -> dict[str, Style]:
    """Return a style per method, the same in all plots; known methods look the same in every report.

    Methods without shots are grey.
    """
    # In reverse, so that the newest methods have solid lines.
    known = [name for name, method in reversed(METHODS.items()) if method.uses_shots]
    order = [*known, *(name for name in scores.methods if scores.uses_shots(name) and name not in known)]
    shotless = [name for name in scores.methods if not scores.uses_shots(name)]
    found = {}
    for name in scores.methods:
        if name in shotless:
            i = shotless.index(name)
            marker = MARKERS[-1 - i % len(MARKERS)]
            found[name] = Style(SHOTLESS, marker, SHOTLESS_DASHES[i % len(SHOTLESS_DASHES)], 1.3)
        else:
            i = order.index(name)
            dashes = DASHES[i // len(COLOURS) % len(DASHES)]
            width = 2.2 if name == REFERENCE else 1.2
            found[name] = Style(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)], dashes, width)
    return found


def accuracy_by_shots(results: Sequence[Result]) -> Figure | None:
    """Plot mean few-shot accuracy over seeds against shots, in a panel per dataset and one for their mean.

    Methods without shots are horizontal lines. None if there is a single number of shots.
    """
    scores = Scores(results)
    if len(scores.shots) == 1:
        return None
    panels: dict[str, list[Part]] = {dataset: [(dataset, accuracy_of)] for dataset in scores.datasets}
    if len(panels) > 1:
        panels[MEAN] = [(dataset, accuracy_of) for dataset in scores.datasets]
    # Three or four columns, whichever leaves fewer gaps.
    n_columns = min(len(panels), min((4, 3), key=lambda n: -len(panels) % n))
    n_rows = math.ceil(len(panels) / n_columns)
    n_names = max(2, n_columns)
    height = 2.4 * n_rows + 0.22 * math.ceil(len(scores.methods) / n_names) + 0.5
    figure = new_figure(2.5 * max(2, n_columns) + 0.4, height)
    axes = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    drawn = styles(scores)
    for i, (panel, (title, parts)) in enumerate(zip(axes, panels.items(), strict=False)):
        for method in scores.methods:
            _draw_line(panel, scores, method, parts, drawn[method])
        panel.set_title(title, fontsize=10, color=INK, fontweight="bold" if title == MEAN else "normal")
        prepare_panel(panel)
        panel.set_xscale("log", base=2)
        panel.set_xlim(scores.shots[0] / 1.25, scores.shots[-1] * 1.25)
        panel.xaxis.set_major_locator(FixedLocator(scores.shots))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        if i + n_columns >= len(panels):
            panel.set_xlabel("shots", fontsize=9, color=INK)
        if i % n_columns == 0:
            panel.set_ylabel("accuracy (%)", fontsize=9, color=INK)
    for panel in axes[len(panels) :]:
        panel.remove()
    handles = [Line2D([], [], label=method, **_look(scores, method, style)) for method, style in drawn.items()]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=n_names, fontsize=8, frameon=False, handlelength=3.6
    )
    return figure


def accuracy_by_auroc(results: Sequence[Result]) -> Figure | None:
    """Plot accuracy against AUROC, means over datasets and OOD sets at the most shots; None without OOD sets."""
    scores = Scores(results)
    sets = scores.names(lambda result: result.metrics.ood)
    parts: list[Part] = [(dataset, _auroc(name)) for name, datasets in sets.items() for dataset in datasets]
    points = _points(scores, parts, 100)
    return _scatter(points, scores, f"AUROC (%){_over('sets', parts)}") if points else None


def accuracy_by_time(results: Sequence[Result]) -> Figure | None:
    """Plot accuracy against fitting time, means over datasets at the most shots; None if no method has all datasets."""
    scores = Scores(results)
    parts: list[Part] = [(dataset, _fit_seconds) for dataset in scores.datasets]
    points = [point._replace(x=max(point.x, MIN_SECONDS)) for point in _points(scores, parts, 1)]
    return _scatter(points, scores, f"seconds of a fit{_over('datasets', parts)}", is_log=True) if points else None


def _fit_seconds(result: Result) -> float | None:
    return result.cost.fit_seconds


def _auroc(name: str) -> Measure:
    return lambda result: result.metrics.ood.get(name, {}).get("auroc")


def _mean(scores: Scores, method: str, shots: int, parts: Sequence[Part]) -> float | None:
    values = list(scores.over(method, shots, parts).values())
    return float(np.mean(values)) if values else None


def _over(what: str, of: Sequence[object]) -> str:
    return f", mean over {what}" if len(of) > 1 else ""


def _points(scores: Scores, parts: Sequence[Part], scale: float) -> list[Point]:
    """Methods with complete means of both axes, at the most shots."""
    accuracy: list[Part] = [(dataset, accuracy_of) for dataset in scores.datasets]
    found = []
    for method in scores.methods:
        x, y = (_mean(scores, method, scores.shots[-1], of) for of in (parts, accuracy))
        if x is not None and y is not None:
            found.append(Point(method, scale * x, 100 * y))
    return found


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of this size in inches."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def prepare_panel(panel: Axes) -> None:
    """Give a panel the grid, frame and ticks of all figures."""
    panel.grid(color=GRID, linewidth=0.6)
    panel.set_axisbelow(True)
    panel.tick_params(which="both", labelsize=8, color=GRID, labelcolor=INK)
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color(GRID)


def _draw_line(panel: Axes, scores: Scores, method: str, parts: Sequence[Part], style: Style) -> None:
    values = {shots: _mean(scores, method, shots, parts) for shots in scores.shots}
    known = {shots: 100 * value for shots, value in values.items() if value is not None}
    if not known:
        return
    look = _look(scores, method, style)
    if scores.uses_shots(method):
        panel.plot(list(known), list(known.values()), **look, zorder=3 if method == REFERENCE else 2)
    else:
        panel.axhline(next(iter(known.values())), **look)


def _look(scores: Scores, method: str, style: Style) -> dict[str, Any]:
    """Line properties in panels and in the legend."""
    look: dict[str, Any] = {"color": style.colour, "linestyle": style.dashes, "linewidth": style.width}
    if scores.uses_shots(method):
        look |= {"marker": style.marker, "markersize": 5.5, "markeredgecolor": "white", "markeredgewidth": 0.5}
    return look


def _scatter(points: Sequence[Point], scores: Scores, x_label: str, *, is_log: bool = False) -> Figure:
    """Scatter plot with a labelled point per method."""
    figure = new_figure(7, 5)
    panel = figure.subplots()
    prepare_panel(panel)
    if is_log:
        panel.set_xscale("log")
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    drawn = styles(scores)
    for point in points:
        style = drawn[point.method]
        panel.plot(
            point.x,
            point.y,
            linestyle="none",
            color=style.colour,
            marker=style.marker,
            markersize=9 if point.method == REFERENCE else 7.5,
            markeredgecolor="white",
            markeredgewidth=0.6,
        )
    panel.margins(0.1)
    shots = scores.shots[-1]
    at = "" if shots == ANY else f" with {shots} {'shot' if shots == 1 else 'shots'}"
    panel.set_xlabel(x_label, fontsize=9, color=INK)
    panel.set_ylabel(f"accuracy (%){at}{_over('datasets', scores.datasets)}", fontsize=9, color=INK)
    _label_points(figure, panel, points)
    return figure


def _label_points(figure: Figure, panel: Axes, points: Sequence[Point]) -> None:
    """Write each label beside its point, with a leader line where it is far away."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # lays out the axes, which is needed to measure text
    renderer = canvas.get_renderer()
    centres = np.array([panel.transData.transform((point.x, point.y)) for point in points])
    looks: list[dict[str, Any]] = [
        {"fontsize": 8, "color": INK, "fontweight": "bold" if point.method == REFERENCE else "normal"}
        for point in points
    ]
    sizes = []
    for point, look in zip(points, looks, strict=True):
        probe = figure.text(0, 0, point.method, **look)
        extent = probe.get_window_extent(renderer)
        sizes.append((extent.width + 2 * PIXEL, extent.height + 2 * PIXEL))
        probe.remove()
    middles = place_labels(centres, np.array(sizes), panel.get_window_extent(renderer), PIXEL)
    for point, look, centre, size, middle in zip(points, looks, centres, sizes, middles, strict=True):
        corner = middle - np.array(size) / 2
        nearest = np.clip(centre, corner, corner + size)
        line = None
        if np.hypot(*(nearest - centre)) > LEADER_FROM * PIXEL:
            start = tuple((nearest - corner) / size)
            line = {"arrowstyle": "-", "color": SHOTLESS, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 5, "relpos": start}
        name = panel.annotate(
            point.method,
            (point.x, point.y),
            tuple((middle - centre) / PIXEL),
            textcoords="offset points",
            ha="center",
            va="center",
            arrowprops=line,
            **look,
        )
        # Otherwise constrained layout would move the axes to make room for the label.
        name.set_in_layout(False)
