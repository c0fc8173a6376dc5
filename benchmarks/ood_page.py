"""The page of benchmarks/ood_scores.py: AUROC and FPR95 of all scores, near and far, and with few shots."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sotglp.benchmark.statistics import summary
from sotglp.scoring.metrics import ood_metrics

PEER = "pytorch-ood "
TITLES = {"zero-shot": "zero-shot classifier", "sot-glp": "SOT-GLP"}
FUSED = {"gl-mcm + neglabel": ("gl-mcm", "neglabel"), "l-mcm + neglabel": ("l-mcm", "neglabel")}
"""Sums of scores in units of their standard deviation over the known test images."""

DEFAULT = "subspace"
FAR = ("other_things", "caltech_background")
PAGE = Path(__file__).parent.parent / "docs" / "near_ood_measured.md"
START, END = "<!-- tables -->\n", "<!-- end of tables -->\n"

Areas = dict[str, dict[str, dict[str, list[tuple[float, float]]]]]
"""AUROC and FPR95 in percent by kind of unknown images, score and set, one pair for each fold."""


def with_fused(scores: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    found = dict(scores)
    for name, parts in FUSED.items():
        if all(f"known test/{part}" in scores for part in parts):
            scales = [scores[f"known test/{part}"].std() for part in parts]
            for images in {key.partition("/")[0] for key in scores} - {"accepted"}:
                values = [scores[f"{images}/{part}"] / scale for part, scale in zip(parts, scales, strict=True)]
                found[f"{images}/{name}"] = np.sum(values, axis=0)
    return found


def read(folder: Path, kind: str, shots: int) -> tuple[Areas, dict[str, list[float]]]:
    """Results of all folds, and the shares of known images that pass a threshold by score."""
    areas: Areas = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    accepted: dict[str, list[float]] = defaultdict(list)
    for file in sorted(folder.glob(f"{kind}-*-{shots}-shots-fold-[0-9].npz")):
        name = file.name.removeprefix(f"{kind}-").partition(f"-{shots}-shots")[0]
        with np.load(file) as stored:
            scores = with_fused(dict(stored))
        for key, known in scores.items():
            part, _, score = key.partition("/")
            if part == "accepted":
                accepted[score].append(100 * float(known[0]))
            for unknown in {"known test": ("unknown test", *FAR), "known train": ("unknown train",)}.get(part, ()):
                if f"{unknown}/{score}" in scores:
                    numbers = ood_metrics(known, scores[f"{unknown}/{score}"])
                    areas[unknown][score][name].append((100 * numbers["auroc"], 100 * numbers["fpr95"]))
    return areas, accepted


def means(areas: Areas, unknown: str, score: str) -> dict[str, tuple[float, float]]:
    """Mean AUROC and FPR95 over the folds, by set."""
    return {name: tuple(np.mean(pairs, axis=0)) for name, pairs in areas[unknown][score].items()}


def over_sets(areas: Areas, unknown: str, score: str) -> str:
    found = list(means(areas, unknown, score).values())
    return " / ".join(f"{value:.1f}" for value in np.mean(found, axis=0)) if found else ""


def main_table(areas: Areas) -> list[str]:
    """All scores by mean AUROC on left-out classes, and the difference of the default score from each."""
    own = means(areas, "unknown test", DEFAULT)
    sets = sorted(own)
    complete = {
        name: found
        for name in areas["unknown test"]
        if (found := means(areas, "unknown test", name)).keys() == own.keys()
    }
    lines = [f"| score | {' | '.join(sets)} | mean | {DEFAULT} less this (95 %) | {' | '.join(FAR)} |"]
    lines.append("|---" * (len(sets) + 3 + len(FAR)) + "|")
    for name in sorted(complete, key=lambda name: -np.mean([complete[name][one][0] for one in sets])):
        differences = summary([own[one][0] - complete[name][one][0] for one in sets])
        interval = (
            ""
            if differences.low is None or name == DEFAULT
            else (f"{differences.mean:+.1f} ({differences.low:.1f} to {differences.high:.1f})")
        )
        cells = [f"{complete[name][one][0]:.1f} / {complete[name][one][1]:.0f}" for one in sets]
        far = [over_sets(areas, unknown, name) for unknown in FAR]
        title = name if name.startswith(PEER) else f"**{name}**"
        row = [title, *cells, over_sets(areas, "unknown test", name), interval, *far]
        lines.append(f"| {' | '.join(row)} |")
    return lines


def shots_table(folder: Path, shots: Sequence[int], scores: Sequence[str]) -> list[str]:
    """Scores of the shots alone, by their number."""
    lines = [
        "| shots | score | left-out classes, training photos | left-out classes | other_things | caltech_background |"
        " accepted, mean | accepted, range |",
        "|---" * 8 + "|",
    ]
    for number in shots:
        areas, accepted = read(folder, "shots", number)
        for score in scores if areas else ():
            parts = [over_sets(areas, unknown, score) for unknown in ("unknown train", "unknown test", *FAR)]
            passed = accepted.get(score, [])
            spread = [f"{np.mean(passed):.1f}", f"{min(passed):.0f} to {max(passed):.0f}"] if passed else ["", ""]
            lines.append(f"| {number} | {score} | {' | '.join([*parts, *spread])} |")
    return lines


def write_page(folder: Path) -> None:
    """Replace the tables of the page by those of the stored scores."""
    lines = ["## With few shots\n", *shots_table(folder, (1, 2, 4, 8, 16), ("mahalanobis", "knn", DEFAULT))]
    for kind, title in TITLES.items():
        areas, _ = read(folder, kind, 16)
        if areas:
            lines += [f"\n## All scores, 16 shots, {title}\n", *main_table(areas)]
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    PAGE.write_text(before + START + "\n" + "\n".join(lines) + "\n\n" + END + rest.partition(END)[2], encoding="utf-8")
