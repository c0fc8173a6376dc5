"""The results of the demo over seeds and shots: `make evidence`, about half an hour.

Rows are written as JSON lines when they are finished; the same command resumes an interrupted run. The tables go to
docs/demo_evidence.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from torch.nn import functional as F

from sotglp.backbone import Backbone
from sotglp.demo.comparison import (
    METHODS,
    SETTINGS,
    DemoSets,
    draw_shots_of_task,
    draw_test_sets,
    evaluate_method,
    fit_method,
    pixels_of,
    variant,
)
from sotglp.demo.task import draw_class_pictures, image_set
from sotglp.demo.world import COLOURS, FILLS, NO_PART, SHAPES, slot_shares, with_article
from sotglp.features.views import Views, in_order
from sotglp.images.image_set import ImageSet

SEEDS = (1, 2, 3)
SHOTS = (1, 4, 16)
TEST_PER_CLASS = 50
N_OTHERS = 500
TEST_SEED = 2_000_000

SEEN_SHARE = 0.4
"""A patch shows a part that covers at least this share of its pixels, as in pretraining."""

ORDINARY = "SOT-GLP, ordinary patch tokens"
PROBE = "linear probe"
VARIANTS = (*METHODS, variant("uniform plan", matching="uniform"), variant(ORDINARY))


def image_features(backbone: Backbone, images: ImageSet) -> np.ndarray:
    views = Views(backbone, images, backbone.preprocess, precision="fp32")
    batches = views.encode_batches(in_order(len(images), 100))
    return torch.cat([F.normalize(encoded.image_features, dim=-1) for _, encoded in batches]).numpy()


def linear_probe(backbone: Backbone, train: ImageSet, sets: DemoSets) -> dict[str, Any]:
    """Logistic regression on the image features, its strength chosen by cross-validation on the shots."""
    labels = np.array(train.labels)
    regression: Any = LogisticRegression(C=100, max_iter=2000)
    if np.unique(labels, return_counts=True)[1].min() >= 4:
        regression = GridSearchCV(regression, {"C": [1, 10, 100, 1000]}, cv=4)
    regression.fit(image_features(backbone, train), labels)
    return {"accuracy": float(regression.score(image_features(backbone, sets.images), sets.images.labels))}


@torch.no_grad()
def best_patch(backbone: Backbone) -> dict[str, float]:
    """How often the patch most similar to a part's phrase shows that part, on the test pictures of the task."""
    pictures, _ = draw_class_pictures(25, TEST_SEED + 1)
    images = pixels_of(backbone, image_set(pictures.images).images)
    patches = torch.cat([backbone.project_patches(backbone.encode_image(part)[1]) for part in images.split(100)])
    shares = slot_shares(pictures, backbone.patch_grid)
    truth = np.take_along_axis(pictures.parts, shares.argmax(axis=-1)[:, :, None], axis=1)  # (n, P, 3)
    truth[shares.max(axis=-1) < SEEN_SHARE] = NO_PART
    picture, slot = (pictures.parts[:, :, 0] != NO_PART).nonzero()
    wanted = pictures.parts[picture, slot]  # (m, 3)
    phrases = [with_article(f"{FILLS[fill]} {COLOURS[colour]} {SHAPES[shape]}") for shape, colour, fill in wanted]
    text = backbone.clip.encode_text(open_clip.tokenize([f"a photo of {phrase}" for phrase in phrases]))
    similarity = torch.einsum("mpd,md->mp", F.normalize(patches[picture], dim=-1), F.normalize(text, dim=-1))
    shows_part = (truth[picture] == wanted[:, None]).all(axis=-1)  # (m, P)
    there = shows_part.any(axis=1)
    hit = shows_part[np.arange(len(wanted)), similarity.argmax(dim=1).numpy()]
    return {"hit": float(hit[there].mean()), "chance": float(shows_part[there].mean()), "n": int(there.sum())}


def cells() -> list[tuple[str, str, int, int]]:
    """Kind, name, shots and seed of everything to measure."""
    on_world = [
        ("world", name, shots, seed)
        for shots in SHOTS
        for seed in SEEDS
        for name in (*(method.name for method in VARIANTS), PROBE)
        if name != "zero-shot" or (shots, seed) == (SHOTS[0], SEEDS[0])
    ]
    return [("patches", kind, 0, 0) for kind in ("value", "ordinary")] + on_world


def measure(kind: str, name: str, shots: int, seed: int, sets: DemoSets) -> dict[str, Any]:
    if kind == "patches":
        return best_patch(Backbone.load("tiny", patch_attention=name))  # type: ignore[arg-type]
    train = draw_shots_of_task(shots, seed)
    if name == PROBE:
        return linear_probe(Backbone.load("tiny"), train, sets)
    method = next(one for one in VARIANTS if one.name == name)
    backbone = Backbone.load("tiny", patch_attention="ordinary" if name == ORDINARY else "value")
    started = time.perf_counter()
    model = fit_method(method, backbone, train, SETTINGS.model_copy(update={"seed": seed, "shots": shots}))
    return {"seconds": time.perf_counter() - started, **evaluate_method(model, sets)}


def mean_and_interval(values: list[float]) -> str:
    """Mean and half of the 95 % interval by Student's t over seeds."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:.3f}"
    factor = {2: 12.706, 3: 4.303}[len(values)]
    return f"{mean:.3f} ± {factor * statistics.stdev(values) / len(values) ** 0.5:.3f}"


def report(rows: list[dict[str, Any]]) -> str:
    """All tables, as Markdown."""

    def of(kind: str, name: str, shots: int) -> list[dict[str, Any]]:
        if name == "zero-shot":
            shots = SHOTS[0]
        return [row["result"] for row in rows if row["cell"][:3] == [kind, name, shots]]

    lines = ["### Accuracy", "", "| method | " + " | ".join(f"{shots} shots" for shots in SHOTS) + " |"]
    lines.append("|---|" + "---|" * len(SHOTS))
    for name in (*(method.name for method in VARIANTS), PROBE):
        scores = [mean_and_interval([one["accuracy"] for one in of("world", name, shots)]) for shots in SHOTS]
        lines.append(f"| {name} | " + " | ".join(scores) + " |")
    lines += ["", "### Sixteen shots: out-of-distribution (GL-MCM), what local prompts look at, time", ""]
    lines.append("| method | AUROC near | mid | far | FPR95 far | mass on parts | overlap | prompt cosine | fit, s |")
    lines.append("|---|" + "---|" * 8)
    for name in (method.name for method in VARIANTS):
        found = of("world", name, 16)
        values = [mean_and_interval([one["ood"][far]["auroc"] for one in found]) for far in ("near", "mid", "far")]
        values.append(mean_and_interval([one["ood"]["far"]["fpr95"] for one in found]))
        for key in ("mass_on_parts", "overlap", "similarity"):
            values.append(mean_and_interval([one["local"][key] for one in found]) if found[0]["local"] else "-")
        values.append(f"{statistics.fmean([one['seconds'] for one in found]):.0f}")
        lines.append(f"| {name} | " + " | ".join(values) + " |")
    chance = next(row["result"]["local"]["chance"] for row in rows if row["result"].get("local"))
    lines += ["", f"Mass spread evenly over all patches gives {chance:.3f} on parts.", ""]
    for kind in ("value", "ordinary"):
        (found_patch,) = of("patches", kind, 0)
        lines.append(
            f"- {kind} patch tokens: the patch most similar to a part's phrase shows the part in "
            f"{found_patch['hit']:.1%} "
            f"of {found_patch['n']} cases (chance {found_patch['chance']:.1%})."
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=Path, default=Path("build/demo_evidence.jsonl"), help="results so far")
    parser.add_argument("--out", type=Path, default=Path("docs/demo_evidence.md"))
    chosen = parser.parse_args()
    chosen.rows.parent.mkdir(parents=True, exist_ok=True)
    lines = chosen.rows.read_text().splitlines() if chosen.rows.exists() else []
    rows = [json.loads(line) for line in lines]
    done = {tuple(row["cell"]) for row in rows}
    sets = draw_test_sets(TEST_PER_CLASS, N_OTHERS, TEST_SEED)
    for cell in cells():
        if cell in done:
            continue
        rows.append({"cell": list(cell), "result": measure(*cell, sets)})
        with chosen.rows.open("a") as file:
            file.write(json.dumps(rows[-1]) + "\n")
        print(cell, rows[-1]["result"].get("accuracy"), flush=True)
    chosen.out.write_text(report(rows))


if __name__ == "__main__":
    main()
