"""The page of benchmarks/user_times.py: medians of its rows."""

from __future__ import annotations

import os
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

DOCS = Path(__file__).parent.parent / "docs"

VIT = "ViT-B-16"
SIZES = {"photo": (10, 16), VIT: (3, 4)}
"""Classes and shots by backbone."""

WHO = {"sklearn": "logistic regression", "before": "before", "after": "after"}


def write_page(rows: list[dict[str, Any]]) -> None:
    found: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    rates: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row["case"] == "tower":
            rates[row["backbone"]].append(row["images_per_second"])
        else:
            found[row["backbone"], row["case"]][row["who"]].append(row)
    lines = [
        "# Time of each command, measured",
        "",
        "`benchmarks/user_times.py` writes this page: wall seconds and, in brackets, CPU seconds of the whole process, "
        "imports included,\nwith an empty feature cache; medians, and the number of runs of each. Logistic regression "
        "is scikit-learn's on features of the same\ntower. *Before* is the checkout of `--before`. Memory is the "
        "largest resident set. On a shared machine, compare CPU seconds. The processor has "
        f"{torch.backends.cpu.get_cpu_capability()} and {os.cpu_count()} cores.",
    ]
    for backbone in dict.fromkeys(row["backbone"] for row in rows):
        n_classes, n_shots = SIZES[backbone]
        title = "`photo`" if backbone == "photo" else "ViT-B/16, random weights"
        lines += [
            "",
            f"## {title}, {n_classes} classes x {n_shots} shots",
            "",
            "| command | "
            + " | ".join(WHO.values())
            + " | after / before | after / logistic regression | MB after | runs |",
            "|---|" + "---:|" * 7,
        ]
        for (own, case), by_who in found.items():
            if own == backbone:
                lines.append(line_of(case, by_who))
        lines += rate_lines(backbone, found, rates[backbone])
    (DOCS / "user_times.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def line_of(case: str, by_who: dict[str, list[dict[str, Any]]]) -> str:
    def median(who: str, name: str) -> float | None:
        return statistics.median(row[name] for row in by_who[who]) if by_who.get(who) else None

    def ratio(name: str, other: str) -> str:
        return "" if median(other, name) is None else f"{median('after', name) / median(other, name):.2f}"

    cells = [
        "" if median(who, "seconds") is None else f"{median(who, 'seconds'):.1f} ({median(who, 'cpu_seconds'):.1f})"
        for who in WHO
    ]
    ratios = [
        "" if not ratio("seconds", other) else f"{ratio('seconds', other)} ({ratio('cpu_seconds', other)})"
        for other in ("before", "sklearn")
    ]
    memory = f"{median('after', 'megabytes'):.0f}"
    return f"| `{case}` | {' | '.join([*cells, *ratios, memory, str(len(by_who['after']))])} |"


def rate_lines(
    backbone: str, found: dict[tuple[str, str], dict[str, list[dict[str, Any]]]], rates: list[float]
) -> list[str]:
    """Images a second of predictions without start-up, as a share of the tower's own rate."""
    cases = sorted(
        (int(case.split()[1]), case) for own, case in found if own == backbone and case.startswith("predict ")
    )
    if not rates or len(cases) < 2:
        return []
    (fewest, first), (most, last) = cases[0], cases[-1]
    texts = []
    for who in ("before", "after"):
        if found[backbone, last].get(who):
            few, many = (
                statistics.median(row["seconds"] for row in found[backbone, case][who]) for case in (first, last)
            )
            rate = (most - fewest) / (many - few)
            texts.append(f"{who} {rate:.1f}, {rate / statistics.median(rates):.2f} of it")
    rate = statistics.median(rates)
    return ["", f"Images a second beyond start-up, {most} images: the tower alone {rate:.1f}; {'; '.join(texts)}."]
