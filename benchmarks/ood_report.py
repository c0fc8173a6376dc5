"""Tables of benchmarks/ood_scores.py: its rows to docs/ood_scores.md."""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ood_scores import FORMS, WITHOUT_PLAN
from sotglp.scoring.ood import SCORES

INTRODUCTION = """# OOD scores

`benchmarks/ood_scores.py` and `benchmarks/ood_report.py` write this file. Backbone `photo`, SOT-GLP, 16 shots, three
seeds: AUROC / FPR at 95 % TPR in %, means over seeds, temperature 1. `painted` is the world of
`sotglp demo --painted`, measured with `tiny`. [Unknown images](unknown.md) explains the scores.
"""


def grouped(rows: list[dict[str, Any]], projection: bool) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Rows of OOD numbers by score and pair of sets."""
    groups = defaultdict(list)
    for row in rows:
        if row["kind"] == "ood" and row["projection"] == projection:
            groups[row["score"], f"{row['set']} / {row['on']}"].append(row)
    return groups


def mean(rows: list[dict[str, Any]], measure: str) -> float:
    return 100 * float(np.mean([row[measure] for row in rows]))


def score_table(rows: list[dict[str, Any]], names: Sequence[str], projection: bool) -> str:
    groups = grouped(rows, projection)
    pairs = list(dict.fromkeys(pair for _, pair in groups))
    lines = [f"| score | {' | '.join(pairs)} | mean |", "|---" * (len(pairs) + 2) + "|"]
    best = {pair: max(names, key=lambda name: mean(groups[name, pair], "auroc")) for pair in pairs}
    for name in names:
        cells = []
        for pair in pairs:
            auroc, fpr95 = (mean(groups[name, pair], measure) for measure in ("auroc", "fpr95"))
            text = f"{auroc:.1f}"
            cells.append(f"{f'**{text}**' if best[pair] == name else text} / {fpr95:.0f}")
        means = [np.mean([mean(groups[name, pair], measure) for pair in pairs]) for measure in ("auroc", "fpr95")]
        lines.append(f"| {name} | {' | '.join(cells)} | {means[0]:.1f} / {means[1]:.0f} |")
    return "\n".join(lines)


def accuracy_table(rows: list[dict[str, Any]]) -> str:
    values: dict[tuple[str, bool], list[float]] = defaultdict(list)
    for row in rows:
        if row["kind"] == "accuracy":
            values[row["on"], row["projection"]].append(100 * row["accuracy"])
    lines = ["| images | with projection | without |", "|---|---|---|"]
    for on in dict.fromkeys(on for on, _ in values):
        both = (values[on, True], values[on, False])
        lines.append(f"| {on} | " + " | ".join(f"{np.mean(v):.1f} ± {np.std(v, ddof=1):.1f}" for v in both) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, default=Path("build/ood_scores.jsonl"))
    parser.add_argument("--out", type=Path, default=Path("docs/ood_scores.md"))
    arguments = parser.parse_args()
    rows = [json.loads(line) for line in arguments.rows.read_text().splitlines()]
    forms = (*FORMS, WITHOUT_PLAN)
    parts = [INTRODUCTION]
    for title, names in (
        ("Scores of the library", tuple(SCORES)),
        ("Other scores that use the plan, and one without it", forms),
    ):
        for projection in (True, False):
            parts.append(f"## {title}, {'with' if projection else 'without'} the learned projection\n")
            parts.append(score_table(rows, names, projection) + "\n")
    parts.append("## Accuracy\n\nOf the models above, in %, mean ± standard deviation of three seeds.\n")
    parts.append(accuracy_table(rows))
    arguments.out.write_text("\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
