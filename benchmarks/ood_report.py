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


def grouped(rows: list[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Rows of OOD numbers by score and pair of sets."""
    groups = defaultdict(list)
    for row in rows:
        if row["kind"] == "ood":
            groups[row["score"], f"{row['set']} / {row['on']}"].append(row)
    return groups


def mean(rows: list[dict[str, Any]], measure: str) -> float:
    return 100 * float(np.mean([row[measure] for row in rows]))


def score_table(rows: list[dict[str, Any]], names: Sequence[str]) -> str:
    groups = grouped(rows)
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
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row["kind"] == "accuracy":
            values[row["on"]].append(100 * row["accuracy"])
    lines = ["| images | accuracy |", "|---|---|"]
    lines += [f"| {on} | {np.mean(found):.1f} ± {np.std(found, ddof=1):.1f} |" for on, found in values.items()]
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
        parts += [f"## {title}\n", score_table(rows, names) + "\n"]
    parts.append("## Accuracy\n\nOf the models above, in %, mean ± standard deviation of three seeds.\n")
    parts.append(accuracy_table(rows))
    arguments.out.write_text("\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
