"""The tables of benchmarks/ood_scores.py: AUROC and FPR95 of all scores on left-out classes and far images.

Those of the stage "choice" are nested: the shots of a set are scored with the parameters that the other sets choose.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ood_models import FAR, SETS, Cell
from ood_negatives import NEGATIVES
from ood_own_scores import DEFAULT
from pytorch_ood_scores import PEER
from sotglp.benchmark.statistics import summary

BASELINE = "gl-mcm"
PAGE = Path(__file__).parent.parent / "docs" / "near_ood_measured.md"
START, END = "<!-- tables -->\n", "<!-- end of tables -->\n"

Row = Mapping[str, Mapping[str, Sequence[float]]]
Chosen = Mapping[tuple[int, str], Mapping[str, str]]
"""Parameters of detectors by number of shots and set."""

Areas = dict[str, dict[str, dict[str, list[Sequence[float]]]]]
"""AUROC and FPR95 in percent by kind of unknown images, detector and set, one pair for each draw and group."""


def collect(
    rows: Mapping[Cell, Row], chosen: Mapping[tuple[int, str], Mapping[str, str]], kind: tuple[str, int]
) -> Areas:
    """Results with the chosen parameters for a stage and number of shots."""
    areas: Areas = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for cell, row in rows.items():
        if (cell.stage, cell.shots) == kind:
            for key, parts in row.items():
                detector, _, parameters = key.partition("|")
                if chosen[cell.shots, cell.name].get(detector, parameters) == parameters:
                    for part, pair in parts.items():
                        areas[part][detector][cell.name].append(pair)
    return areas


def means(areas: Areas, part: str, detector: str) -> dict[str, tuple[float, float]]:
    """Mean AUROC and FPR95 over draws and groups, by set."""
    return {name: tuple(np.mean(pairs, axis=0)) for name, pairs in areas[part][detector].items()}


def difference(first: Mapping[str, tuple[float, float]], second: Mapping[str, tuple[float, float]]) -> str:
    """Mean difference of the AUROC with its 95 % interval over sets."""
    result = summary([first[name][0] - second[name][0] for name in first])
    return f"{result.mean:+.1f}" + ("" if result.low is None else f" ({result.low:.1f} to {result.high:.1f})")


def over_sets(found: Mapping[str, tuple[float, float]]) -> str:
    return " / ".join(f"{value:.1f}" for value in np.mean(list(found.values()), axis=0)) if found else ""


def main_table(areas: Areas, chosen: Mapping[str, str]) -> list[str]:
    """All scores by mean AUROC on left-out classes, and the difference of the default score from each."""
    own = means(areas, "unknown", DEFAULT)
    sets = sorted(own)
    complete = {name: found for name in areas["unknown"] if len(found := means(areas, "unknown", name)) == len(own)}
    parts = [part for part in FAR if part in areas]
    lines = [f"| {' | '.join(['score', 'chosen', *sets, 'mean', f'{DEFAULT} less this (95 %)', *parts])} |"]
    lines.append("|---" * (len(sets) + 4 + len(parts)) + "|")
    for name in sorted(complete, key=lambda name: -np.mean([area for area, _ in complete[name].values()])):
        found = complete[name]
        cells = [f"{found[one][0]:.1f} / {found[one][1]:.0f}" for one in sets]
        title = name if name.startswith(PEER) else f"**{name}**"
        less = "" if name == DEFAULT else difference(own, found)
        far = [over_sets(means(areas, part, name)) for part in parts]
        row = [title, chosen.get(name, ""), *cells, over_sets(found), less, *far]
        lines.append(f"| {' | '.join(row)} |")
    return lines


def negatives_table(areas: Areas) -> list[str]:
    """Scores with negatives less gl-mcm on the same models, on each set, near and far."""
    sets = sorted(areas["unknown"][BASELINE])
    lines = [f"| unknown images | score | {' | '.join(sets)} | mean (95 %) |", "|---" * (len(sets) + 3) + "|"]
    for part in (part for part in ("unknown", *FAR) if part in areas):
        base = means(areas, part, BASELINE)
        cells = [f"{base[name][0]:.1f}" if name in base else "" for name in sets]
        mean = np.mean([area for area, _ in base.values()])
        lines.append(f"| {part} | {BASELINE} | {' | '.join(cells)} | {mean:.1f} |")
        for detector in NEGATIVES:
            found = means(areas, part, detector)
            cells = [f"{found[name][0] - base[name][0]:+.1f}" if name in base else "" for name in sets]
            lines.append(f"| | {detector} | {' | '.join(cells)} | {difference(found, base)} |")
    return lines


def most_chosen(chosen: Chosen, shots: int) -> dict[str, str]:
    """The parameters that most sets take, and of how many."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for (number, _), of_detector in chosen.items():
        if number == shots:
            for detector, parameters in of_detector.items():
                counts[detector][parameters] += 1
    found = {}
    for detector, counter in counts.items():
        parameters, n = counter.most_common(1)[0]
        found[detector] = parameters + (f" ({n} of {counter.total()})" if len(counter) > 1 else "")
    return found


def write_page(rows: Mapping[Cell, Row], chosen: Chosen) -> None:
    """Replace the tables of the page by those of the stored results."""
    lines = []
    for stage, title in {"test": "test photos", "choice": "the shots, cross-validated"}.items():
        for shots in (16, 4):
            n_models = Counter(cell.name for cell in rows if (cell.stage, cell.shots) == (stage, shots))
            if len(n_models) < len(SETS):
                continue
            areas = collect(rows, chosen, (stage, shots))
            least, most = min(n_models.values()), max(n_models.values())
            counted = f"{least}" if least == most else f"{least} to {most}"
            lines += [f"## {shots} shots, {title}\n", f"Models of each set: {counted}.\n"]
            lines += [*main_table(areas, most_chosen(chosen, shots)), "", f"Difference from `{BASELINE}`:\n"]
            lines += [*negatives_table(areas), ""]
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    PAGE.write_text(before + START + "\n" + "\n".join(lines) + "\n" + END + rest.partition(END)[2], encoding="utf-8")
