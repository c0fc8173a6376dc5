"""OOD scores of the shots alone, with 1 to 16 shots of each class: AUROC, and what a calibrated threshold accepts.

``python benchmarks/ood_few_shots.py --data ../shared/data`` appends a row for each set, draw and number of shots to
build/ood_few_shots.jsonl, continues after the rows that are there, and writes its part of docs/near_ood_measured.md. It
takes about three minutes on one core; benchmarks/ood_models.py describes sets, draws and groups.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ood_models import FAR, GROUPS, SETS, Cell, Photos, split
from sotglp.backbone import Backbone
from sotglp.images.few_shot import deal_folds, draw_shots
from sotglp.methods.shot_memory import ShotMemory, unit_features
from sotglp.scoring.metrics import ood_metrics
from sotglp.scoring.rejection import reject_below

SHOTS = (1, 2, 3, 4, 5, 8, 16)
DRAWS = (1, 2, 3)
FOLDS = 5
SCORES: dict[str, Callable[[ShotMemory, Tensor], Tensor]] = {
    "subspace": ShotMemory.subspace,
    "knn": ShotMemory.nearest,
    "mahalanobis": ShotMemory.mahalanobis,
}
ONCE = "mahalanobis"
"""Score that is computed for the first draw alone, since it takes nearly all of the time."""

PARTS = {"unknown": "left-out classes", "caltech_background": "caltech_background", "other_things": "other_things"}
PAGE = Path(__file__).parent.parent / "docs" / "near_ood_measured.md"
START, END = "<!-- few shots -->\n", "<!-- end of few shots -->\n"


def memory_of(photos: Photos, rows: Sequence[int]) -> ShotMemory:
    features = unit_features(photos.encoded["train"].image_features[rows])
    return ShotMemory(features, features, torch.from_numpy(photos.targets["train"][rows]))


def scores_of(draw: int) -> dict[str, Callable[[ShotMemory, Tensor], Tensor]]:
    return {name: compute for name, compute in SCORES.items() if draw == DRAWS[0] or name != ONCE}


def areas(photos: Photos, name: str, draw: int, shots: int) -> dict[str, dict[str, float]]:
    """AUROC in percent by score and unknown images, mean over the groups of left-out classes."""
    found: dict[str, dict[str, list[float]]] = {score: defaultdict(list) for score in scores_of(draw)}
    for group in range(GROUPS):
        own = split(photos, Cell("test", name, draw, shots, group))
        memory = memory_of(photos, own.shots)
        for score, compute in scores_of(draw).items():
            values = {part: compute(memory, encoded.image_features) for part, encoded in own.parts.items()}
            for part in values.keys() & PARTS.keys():
                found[score][part].append(100 * float(ood_metrics(values["known"], values[part])["auroc"]))
    return {score: {part: float(np.mean(one)) for part, one in parts.items()} for score, parts in found.items()}


def accepted(photos: Photos, draw: int, shots: int) -> dict[str, dict[str, float]]:
    """Share of images in percent above the threshold of five cross-fitted folds of the shots of all classes.

    The threshold is that of :func:`sotglp.scoring.rejection.reject_below`, which accepts 95 % of the shots.
    """
    memory = memory_of(photos, draw_shots(photos.train.labels or (), shots, draw).tolist())
    folds = torch.from_numpy(deal_folds(memory.classes.numpy(), FOLDS))
    found = {}
    for score, compute in scores_of(draw).items():
        held_out = torch.empty(len(folds))
        for fold in range(int(folds.max()) + 1):
            others = memory.of_rows(torch.nonzero(folds != fold)[:, 0].tolist())
            held_out[folds == fold] = compute(others, memory.features[folds == fold])
        threshold = reject_below(held_out.numpy()).threshold
        tested = {"known": photos.encoded["test"], **{far: photos.encoded[far] for far in FAR if far in photos.encoded}}
        found[score] = {
            part: 100 * float((compute(memory, encoded.image_features) >= threshold).float().mean())
            for part, encoded in tested.items()
        }
    return found


def tables(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Mean AUROC over sets and draws, and accepted shares with the least and the largest of a set and draw."""
    numbers = sorted({row["shots"] for row in rows})
    head = f"| {' | '.join(map(str, numbers))} |\n|---" + "|---" * len(numbers) + "|"
    lines = [f"Draws: {len({row['draw'] for row in rows})}; of `{ONCE}` the first alone.\n", f"| AUROC, shots {head}"]
    first = [row for row in rows if row["draw"] == DRAWS[0]]
    for part, title in PARTS.items():
        for score, drawn, note in (*((score, rows, "") for score in SCORES), ("subspace", first, ", first draw alone")):
            means = [np.mean(values_of(drawn, "auroc", score, part, shots)) for shots in numbers]
            lines.append(f"| `{score}`, {title}{note} | {' | '.join(f'{mean:.1f}' for mean in means)} |")
    lines.append(f"\n| accepted, shots {head}")
    for (part, title), score in product({"known": "known test photos", **PARTS}.items(), SCORES):
        of_shots = [values_of(rows, "accepted", score, part, shots) for shots in numbers]
        cells = [f"{np.mean(one):.1f} ({min(one):.0f} to {max(one):.0f})" if one else "" for one in of_shots]
        if any(cells):
            lines.append(f"| `{score}`, {title} | {' | '.join(cells)} |")
    return lines


def values_of(rows: Sequence[dict[str, Any]], kind: str, score: str, part: str, shots: int) -> list[float]:
    """Values of all sets and draws that have one."""
    of_score = [row[kind].get(score, {}) for row in rows if row["shots"] == shots and kind in row]
    return [parts[part] for parts in of_score if part in parts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of the sets; without it, only the page is written")
    parser.add_argument("--rows", type=Path, default=Path("build/ood_few_shots.jsonl"))
    chosen = parser.parse_args()
    rows = [json.loads(line) for line in chosen.rows.read_text().splitlines()] if chosen.rows.exists() else []
    done = {(row["set"], row["draw"], row["shots"]) for row in rows}
    if chosen.data:
        chosen.rows.parent.mkdir(parents=True, exist_ok=True)
        backbone, loaded = Backbone.load("photo"), {}
        for draw, shots, name in product(DRAWS, SHOTS, SETS):
            if (name, draw, shots) not in done:
                if name not in loaded:
                    loaded[name] = Photos(backbone, chosen.data, name)
                row = {"set": name, "draw": draw, "shots": shots, "auroc": areas(loaded[name], name, draw, shots)}
                if shots > 1:  # without a second shot, nothing can be cross-fitted
                    row["accepted"] = accepted(loaded[name], draw, shots)
                rows.append(row)
                with chosen.rows.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    after = rest.partition(END)[2]
    PAGE.write_text(before + START + "\n" + "\n".join(tables(rows)) + "\n\n" + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
