"""The training of each method by epoch, as a figure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from sotglp.benchmark.plots import INK, new_figure, prepare_panel, styles
from sotglp.benchmark.results import Result
from sotglp.benchmark.scores import Scores

PANELS = {"loss": ("training loss", 1), "accuracy": ("training accuracy (%)", 100)}
"""Title and factor of the panels of a dataset."""


def training_by_epoch(results: Sequence[Result]) -> Figure | None:
    """Plot loss and accuracy on the shots by epoch, means over seeds at the most shots, in a row of panels per dataset.

    None if no result has them, as those of older versions.
    """
    scores = Scores(results)
    drawn = styles(scores)
    means = {
        (dataset, method, name): found
        for dataset in scores.datasets
        for method in scores.methods
        for name in PANELS
        if len(found := _mean_curve(results, (dataset, method, scores.shots[-1]), name))
    }
    datasets = [dataset for dataset in scores.datasets if any(key[0] == dataset for key in means)]
    methods = [method for method in scores.methods if any(key[1] == method for key in means)]
    if not datasets:
        return None
    figure = new_figure(7, 2.2 * len(datasets) + 0.11 * len(methods) + 0.5)
    axes = figure.subplots(len(datasets), len(PANELS), squeeze=False, sharex=True)
    for row, dataset in zip(axes, datasets, strict=True):
        for panel, (name, (title, factor)) in zip(row, PANELS.items(), strict=True):
            prepare_panel(panel)
            for method in methods:
                values = means.get((dataset, method, name), np.empty(0))
                style = drawn[method]
                look = {"color": style.colour, "linestyle": style.dashes, "linewidth": style.width}
                panel.plot(np.arange(1, len(values) + 1), factor * values, **look)
            panel.set_title(f"{dataset}: {title}", fontsize=9, color=INK)
            panel.set_xscale("log")
            panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for panel in axes[-1]:
        panel.set_xlabel("epoch", fontsize=9, color=INK)
    handles = [
        Line2D([], [], label=name, color=style.colour, linestyle=style.dashes, linewidth=style.width)
        for name, style in drawn.items()
        if name in methods
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8, frameon=False, handlelength=3.6)
    return figure


def _mean_curve(results: Sequence[Result], of: tuple[str, str, int], name: str) -> NDArray[np.float64]:
    """Mean over the seeds of a dataset, method and number of shots, as far as all have epochs; (0,) without any."""
    curves = [
        getattr(result.metrics.curves, name)
        for result in results
        if result.metrics.curves and (result.cell.dataset, result.cell.method, result.cell.shots) == of
    ]
    n_epochs = min(map(len, curves), default=0)
    return np.array([curve[:n_epochs] for curve in curves]).mean(axis=0) if n_epochs else np.empty(0)
