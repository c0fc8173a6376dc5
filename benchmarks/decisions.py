"""Coverage of prediction sets and spread of the threshold on the shared photos: part of `make trust`, about 10 minutes.

docs/decisions_measured.md and two plots are written.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import beta, betabinom

from shared_sets import OTHERS, SEEDS, fit_shared, load_shared, settings_of
from sotglp.backbone import Backbone
from sotglp.backbone_defaults import default_ood_method
from sotglp.console.progress import progress_bar
from sotglp.features.cache_folder import default_cache_dir
from sotglp.scoring.calibration import calibrate_crossed
from sotglp.scoring.conformal import split_sets
from sotglp.scoring.cross_fit import CrossFit, cross_fit
from sotglp.scoring.metrics import expected_calibration_error
from sotglp.scoring.predict import predict_each
from sotglp.scoring.rejection import rank_below, reject_below
from sotglp.scoring.temperature import fit_temperature, tempered
from sotglp.settings import InferenceConfig

N_DRAWS = 200
COVERAGE = 0.9
TPR = 0.95
CALIBRATION_SIZES = (20, 40, 80, 160)
COVERAGE_SIZE = 100
"""Calibration images of a draw of the coverage plot; the rest of the test images judge."""


class Judged(NamedTuple):
    """Predictions of a fit and of the models of its folds on test images, (1 + F, n, C), and scores (n,)."""

    probabilities: NDArray[np.float32]
    scores: NDArray[np.float32]
    targets: NDArray[np.int64]
    crossed: CrossFit
    calibration: Any


def measure(backbone: Backbone, data: Path, name: str, seed: int) -> Judged:
    train, test, _ = load_shared(data, name)
    fitted = fit_shared(backbone, train, seed)
    training = settings_of(backbone, seed)
    inference = InferenceConfig(ood_method=default_ood_method(backbone.name, has_shots=True))
    crossed = cross_fit(fitted.model, fitted.images, training, inference, cache_dir=default_cache_dir())
    predictions = predict_each([fitted.model, *crossed.models], test, inference, cache_dir=default_cache_dir())
    return Judged(
        np.stack([one.probabilities for one in predictions]),
        predictions[0].ood_scores,
        test.targets(fitted.model.class_names),
        crossed,
        calibrate_crossed(crossed, fitted.images, inference, TPR),
    )


def drawn_sets(judged: Judged, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coverage and mean size of split sets of the images that are left, over draws of calibration images."""
    probabilities, targets = judged.probabilities[0], judged.targets
    coverages, sizes = [], []
    for _ in range(N_DRAWS):
        order = rng.permutation(len(targets))
        known, new = order[:COVERAGE_SIZE], order[COVERAGE_SIZE:]
        sets = split_sets(probabilities[new], probabilities[known, targets[known]], COVERAGE)
        coverages.append(sets[np.arange(len(new)), targets[new]].mean())
        sizes.append(sets.sum(axis=1).mean())
    return np.array(coverages), np.array(sizes)


def drawn_rates(judged: Judged, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Share of the images that are left that pass a threshold set on n, over draws of these."""
    rates = []
    for _ in range(N_DRAWS):
        order = rng.permutation(len(judged.scores))
        threshold = reject_below(judged.scores[order[:n]], TPR).threshold
        rates.append((judged.scores[order[n:]] >= threshold).mean())
    return np.array(rates)


def drawn_errors(judged: Judged, rng: np.random.Generator) -> tuple[float, float]:
    """Mean calibration error over draws, before and after the temperature of the calibration images."""
    probabilities, targets = judged.probabilities[0], judged.targets
    errors = []
    for _ in range(N_DRAWS // 10):
        order = rng.permutation(len(targets))
        known, new = order[:COVERAGE_SIZE], order[COVERAGE_SIZE:]
        temperature = fit_temperature(probabilities[known], targets[known])
        errors.append(
            [
                expected_calibration_error(probabilities[new], targets[new]),
                expected_calibration_error(tempered(probabilities[new], temperature), targets[new]),
            ]
        )
    before, after = np.mean(errors, axis=0)
    return float(before), float(after)


def plot_coverages(coverages: dict[str, NDArray[np.float64]], n_left: dict[str, int], out: Path) -> None:
    figure = Figure(figsize=(11, 3), layout="constrained")
    axes = figure.subplots(1, len(coverages), sharex=True)
    k = rank_below(COVERAGE_SIZE, COVERAGE)
    for axis, (name, found) in zip(axes, coverages.items(), strict=True):
        n_new = n_left[name]
        edges = np.linspace(0.75, 1, 26)
        axis.hist(found, bins=edges, color="tab:blue", alpha=0.7, label=f"{N_DRAWS} draws")
        counts = betabinom(n_new, COVERAGE_SIZE + 1 - k, k)
        expected = N_DRAWS * np.diff(counts.cdf(np.floor(edges * n_new - 1e-9)))
        axis.plot((edges[:-1] + edges[1:]) / 2, expected, color="black", label="theory")
        axis.axvline(COVERAGE, color="tab:red", linewidth=1, label="asked for")
        axis.set_title(name)
        axis.set_xlabel("share of images whose set\nholds the right class")
    axes[0].set_ylabel("draws")
    axes[0].legend(fontsize=8)
    figure.savefig(out, dpi=120)


def plot_rates(rates: dict[str, dict[int, NDArray[np.float64]]], out: Path) -> None:
    figure = Figure(figsize=(6.5, 3.6), layout="constrained")
    axis = figure.subplots()
    sizes = np.arange(10, max(CALIBRATION_SIZES) + 10)
    ranks = np.array([max(rank_below(int(n), TPR), 1) for n in sizes])
    low, high = beta.interval(0.9, sizes + 1 - ranks, ranks)
    axis.fill_between(sizes, low, high, color="lightgrey", label="90 % interval reported")
    for i, (name, by_size) in enumerate(rates.items()):
        shift = np.array(CALIBRATION_SIZES) * (1 + 0.02 * (i - 1.5))
        medians = [np.median(found) for found in by_size.values()]
        spread = np.array([np.quantile(found, (0.05, 0.95)) for found in by_size.values()]).T
        axis.errorbar(shift, medians, np.abs(spread - medians), fmt="o", markersize=3, capsize=2, label=name)
    axis.axhline(TPR, color="tab:red", linewidth=1, label="asked for")
    axis.set_xscale("log")
    axis.set_xticks(CALIBRATION_SIZES, map(str, CALIBRATION_SIZES), minor=False)
    axis.minorticks_off()
    axis.set_ylim(0.7, 1.005)
    axis.set_xlabel("calibration images")
    axis.set_ylabel("share of other images of the\nclasses that passes")
    axis.legend(fontsize=8)
    figure.savefig(out, dpi=120)


def table(judged: dict[str, list[Judged]], drawn: dict[str, Any], errors: dict[str, Any]) -> str:
    lines = [
        "| set | split: coverage | set size | cross: coverage | set size | passes, threshold from the shots | reported "
        "interval | calibration error | with temperature from 100 images | from the shots |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, fits in judged.items():
        first = fits[0]
        each = np.arange(len(first.targets))
        crossed = [one.calibration.sets(one.probabilities, COVERAGE) for one in fits]
        held = [sets[each, one.targets].mean() for sets, one in zip(crossed, fits, strict=True)]
        passed = [(one.scores >= one.calibration.rejection.threshold).mean() for one in fits]
        low, high = first.calibration.rejection.interval
        shots_errors = [
            expected_calibration_error(one.calibration.probabilities(one.probabilities[0]), one.targets) for one in fits
        ]
        before, after = np.mean(errors[name], axis=0)
        lines.append(
            f"| {name} | {drawn[name][0].mean():.3f} | {drawn[name][1].mean():.1f} of {first.probabilities.shape[-1]} "
            f"| {spread(held)} | {np.mean([sets.sum(axis=1).mean() for sets in crossed]):.1f} | {spread(passed)} "
            f"| {low:.3f} to {high:.3f} | {before:.3f} | {after:.3f} | {spread(shots_errors)} |"
        )
    return "\n".join(lines)


def spread(values: list[Any]) -> str:
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    arguments = parser.parse_args()
    backbone = Backbone.load("photo")
    judged: dict[str, list[Judged]] = {name: [] for name in OTHERS}
    with progress_bar("decisions", len(OTHERS) * len(SEEDS), "fits", show=True) as advance:
        for name in OTHERS:
            for seed in SEEDS:
                judged[name].append(measure(backbone, arguments.data, name, seed))
                advance(1, f"{name}, seed {seed}")
    rng = np.random.default_rng(1)
    drawn = {name: drawn_sets(fits[0], rng) for name, fits in judged.items()}
    rates = {name: {n: drawn_rates(fits[0], n, rng) for n in CALIBRATION_SIZES} for name, fits in judged.items()}
    errors = {name: [drawn_errors(one, rng) for one in fits] for name, fits in judged.items()}
    n_left = {name: len(fits[0].targets) - COVERAGE_SIZE for name, fits in judged.items()}
    coverages = {name: found for name, (found, _) in drawn.items()}
    plot_coverages(coverages, n_left, arguments.docs / "pictures" / "coverage.png")
    plot_rates(rates, arguments.docs / "pictures" / "threshold.png")
    (arguments.docs / "decisions_measured.md").write_text(
        "# Thresholds and sets\n\n"
        "`python benchmarks/decisions.py --data ../shared/data` writes this page: `photo` with the default method and "
        "score, 16 shots, three fits a set. [Unknown images](unknown.md) explains the quantities. *Split* calibrates "
        "on 100 test images and judges on the others, 200 draws; *cross* calibrates on the shots by cross-fitting; its "
        "numbers are the mean and the range of the fits.\n\n"
        "![Coverage over draws of calibration images](pictures/coverage.png)\n\n"
        "![Share of other images that pass a threshold, by calibration images](pictures/threshold.png)\n\n"
        f"{table(judged, drawn, errors)}\n"
    )


if __name__ == "__main__":
    main()
