"""How many wrong labels `sotglp data check` finds, against other rules on the same predictions: about ten minutes.

Labels of each training set are replaced with a fixed seed: by any other class, or by the most similar class.
The former rule (the label's class ranks in the lower half) is compared with the rules of cleanlab. Rows go to a file as
they come, so that a second run resumes; the tables go to docs/label_doubts.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from sotglp.backbone import Backbone
from sotglp.features.cache_folder import default_cache_dir
from sotglp.images.image_set import ImageSet
from sotglp.scoring.label_doubts import FILTER, MIN_SKILL, Agreement, out_of_fold, unit_features
from sotglp.settings import InferenceConfig

DATASETS = (
    *("caltech101", "cifar10", "eurosat", "flowers102", "pacs_photo", "rsscn7"),
    *("ship/clothing", "ship/grocery", "ship/trash"),
)
SEEDS = {"photo": 10, "tiny": 3}
"""`tiny` knows no photographs: it shows what flags are worth where predictions are poor."""

RATES = (0.05, 0.15)
NOISES = {"any": "any other class", "similar": "the most similar class"}
LOWER_HALF = "class in the lower half (former rule)"
RULES = (LOWER_HALF, "prune_by_noise_rate", "prune_by_class", "both", "confident_learning", "predicted_neq_given")
SCORES = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
SKILLS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
DRAWS = 2000
Row = dict[str, Any]

INTRODUCTION = f"""# Doubtful labels

`python benchmarks/label_doubts.py --data ../shared/data` writes this page.

`sotglp data check` encodes all images with the backbone, predicts each image by a logistic regression that was
fitted without it (five folds), and flags labels by confident learning
([cleanlab](https://github.com/cleanlab/cleanlab), rule `{FILTER}`). Here, 5 % or 15 % of the labels of nine
training sets were replaced, by any other class or by the class whose mean feature is most similar, as people
confuse classes. Backbone `photo`, ten seeds. Brackets are 95 % intervals of the mean over the nine sets (bootstrap
over sets). Labels that were wrong from the start count as correct."""

RULES_TEXT = f"""
## Which rule flags labels

All rules see the same predictions. The former rule flags a label if its class is less probable than half of the
other classes. It misses nine of ten labels that were confused with a similar class, the usual mistake; cleanlab's
rules find three of four of them, at about the same precision. For labels replaced by any class, the former rule is
more precise and finds fewer, and no difference in F1 is certain. `{FILTER}` has the best or nearly the best F1 of
cleanlab's rules in each part, so `data check` uses it. *Flagged*: relative to the number of replaced labels.

| replaced | by | rule | flagged | precision | recall | F1 | F1 above the former rule |
|---|---|---|---|---|---|---|---|"""

SCORES_TEXT = """
## In which order labels are shown

Area under the ROC curve and average precision of replaced labels, all images ranked. `self_confidence` is the
probability of the label's class, by which `data check` sorts.

| replaced | by | score | AUROC | average precision |
|---|---|---|---|---|"""

SETS_TEXT = f"""
## Set by set

5 % replaced by the most similar class, rule `{FILTER}`, mean over ten seeds. *Agreement*: share of the given labels
that predictions agree with. *Likely label*: how often the label that `data check` proposes is the true one, among
flagged labels that were replaced. Where the agreement is 0.9 or more, at least three of four flagged labels are
wrong; at 0.75, one of four or five; at 0.5, one of ten: look at each image before you change its label.

| set | classes | images | agreement | chance | AUROC | flagged | precision | recall | likely label |
|---|---|---|---|---|---|---|---|---|---|"""

SKILL_TEXT = f"""
## When doubts are withheld

*Skill* is (agreement - chance) / (1 - chance), chance the share of the largest class. *Lift* is the precision
divided by the share of replaced labels: 1 means that flagged labels are wrong no more often than any others. Runs
with `photo` (ten seeds) and `tiny` (three seeds), all rates and replacements. Below a skill of {MIN_SKILL}, about
half of the images would be flagged and hardly more often rightly than by chance, so `data check` reports no doubts,
and says so.

| skill | runs | flagged share of images | precision | lift |
|---|---|---|---|---|"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--rows", type=Path, default=Path("build/label_doubts.jsonl"))
    parser.add_argument("--out", type=Path, default=Path("docs/label_doubts.md"))
    arguments = parser.parse_args()
    arguments.rows.parent.mkdir(parents=True, exist_ok=True)
    arguments.rows.touch()
    rows = [json.loads(line) for line in arguments.rows.read_text().splitlines()]
    done = {(row["backbone"], row["set"]) for row in rows}
    for name, seeds in SEEDS.items():
        backbone = Backbone.load(name)
        for dataset in DATASETS:
            if (name, dataset) not in done:
                images = ImageSet.from_path(arguments.data / dataset / "train")
                found = [{"backbone": name, "set": dataset, **row} for row in measure(backbone, images, seeds)]
                with arguments.rows.open("a") as file:
                    file.writelines(json.dumps(row) + "\n" for row in found)
                rows += found
    photo = [row for row in rows if row["backbone"] == "photo"]
    lines = [INTRODUCTION, RULES_TEXT, *rule_lines(photo), SCORES_TEXT, *score_lines(photo)]
    lines += [SETS_TEXT, *set_lines(photo), SKILL_TEXT, *skill_lines(rows)]
    arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


def measure(backbone: Backbone, images: ImageSet, seeds: int) -> Iterable[Row]:
    """One row for each rate, replacement and seed."""
    features = unit_features(backbone, images, InferenceConfig(), default_cache_dir())
    truth = images.targets(images.classes)
    for rate in RATES:
        for noise in NOISES:
            for seed in range(1, seeds + 1):
                yield {"rate": rate, "noise": noise, "seed": seed, **run(features, truth, rate, noise, seed)}


def run(features: NDArray[np.float64], truth: NDArray[np.int64], rate: float, noise: str, seed: int) -> Row:
    """Replace labels, predict out of fold, and count what each rule flags: images, and those that were replaced."""
    rng = np.random.default_rng(seed)
    n_classes = int(truth.max()) + 1
    wrong = rng.choice(len(truth), round(rate * len(truth)), replace=False)
    labels = truth.copy()
    if noise == "similar":
        means = np.stack([features[truth == k].mean(axis=0) for k in range(n_classes)])
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        labels[wrong] = (means @ means.T - 9 * np.eye(n_classes)).argmax(axis=1)[truth[wrong]]
    else:
        labels[wrong] = (truth[wrong] + rng.integers(1, n_classes, len(wrong))) % n_classes
    is_wrong = np.isin(np.arange(len(truth)), wrong)
    table = out_of_fold(features, labels, seed)
    agreement = Agreement.of(table, labels)
    flagged = {rule: flag(rule, table, labels) for rule in RULES}
    found = flagged[FILTER] & is_wrong
    scores = {score: -get_label_quality_scores(labels, table, method=score) for score in SCORES}
    return {
        "n": len(truth),
        "n_classes": n_classes,
        "agreement": agreement.share,
        "chance": agreement.chance,
        "flagged": {rule: [int(mask.sum()), int((mask & is_wrong).sum())] for rule, mask in flagged.items()},
        "likely": [int((table.argmax(axis=1) == truth)[found].sum()), int(found.sum())],
        "auroc": {name: float(roc_auc_score(is_wrong, values)) for name, values in scores.items()},
        "precision": {name: float(average_precision_score(is_wrong, values)) for name, values in scores.items()},
    }


def flag(rule: str, table: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    if rule != LOWER_HALF:
        return np.asarray(find_label_issues(labels, table, filter_by=rule, n_jobs=1))
    own = table[np.arange(len(labels)), labels]
    return np.asarray((table > own[:, None]).sum(axis=1) >= 0.5 * (table.shape[1] - 1) - 1e-9)


def precision(row: Row, rule: str) -> float:
    n, hits = row["flagged"][rule]
    return float(hits / max(n, 1))


def recall(row: Row, rule: str) -> float:
    return float(row["flagged"][rule][1] / n_replaced(row))


def f1(row: Row, rule: str) -> float:
    return float(2 * row["flagged"][rule][1] / (row["flagged"][rule][0] + n_replaced(row)))


def n_replaced(row: Row) -> int:
    return round(row["rate"] * row["n"])


def of_sets(rows: Iterable[Row], value: Callable[[Row], float]) -> NDArray[np.float64]:
    """The mean of each set over its seeds."""
    rows = list(rows)
    return np.array([np.mean([value(row) for row in rows if row["set"] == name]) for name in DATASETS])


def interval(values: NDArray[np.float64]) -> str:
    """Mean over sets, with its 95 % interval by bootstrap."""
    drawn = np.random.default_rng(0).choice(values, (DRAWS, len(values))).mean(axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return f"{values.mean():.2f} [{low:.2f}, {high:.2f}]"


def conditions(rows: list[Row]) -> Iterable[tuple[str, list[Row]]]:
    for rate in RATES:
        for noise, text in NOISES.items():
            yield (
                f"{100 * rate:.0f} % | {text}",
                [row for row in rows if (row["rate"], row["noise"]) == (rate, noise)],
            )


def rule_lines(rows: list[Row]) -> Iterable[str]:
    for about, some in conditions(rows):
        former = of_sets(some, lambda row: f1(row, LOWER_HALF))
        for rule in RULES:
            n, p, r, f = (
                of_sets(some, lambda row, of=of, rule=rule: of(row, rule))
                for of in (lambda row, rule: row["flagged"][rule][0] / n_replaced(row), precision, recall, f1)
            )
            name = rule if rule == LOWER_HALF else f"cleanlab `{rule}`"
            gain = "" if rule == LOWER_HALF else interval(f - former)
            cells = [about, name, f"{n.mean():.1f} times", interval(p), interval(r), f"{f.mean():.2f}", gain]
            yield f"| {' | '.join(cells)} |"


def score_lines(rows: list[Row]) -> Iterable[str]:
    for about, some in conditions(rows):
        for score in SCORES:
            values = (
                of_sets(some, lambda row, kind=kind, score=score: row[kind][score]) for kind in ("auroc", "precision")
            )
            yield f"| {about} | `{score}` | {' | '.join(map(interval, values))} |"


def set_lines(rows: list[Row]) -> Iterable[str]:
    for name in DATASETS:
        some = [row for row in rows if (row["set"], row["rate"], row["noise"]) == (name, 0.05, "similar")]
        numbers = [
            np.mean([row["agreement"] for row in some]),
            np.mean([row["chance"] for row in some]),
            np.mean([row["auroc"]["self_confidence"] for row in some]),
        ]
        n = np.mean([row["flagged"][FILTER][0] for row in some])
        last = [np.mean([of(row, FILTER) for row in some]) for of in (precision, recall)]
        likely = np.sum([row["likely"] for row in some], axis=0)
        cells = [name.removeprefix("ship/"), some[0]["n_classes"], some[0]["n"], *(f"{value:.2f}" for value in numbers)]
        cells += [f"{n:.1f}", *(f"{value:.2f}" for value in last), f"{likely[0] / max(likely[1], 1):.2f}"]
        yield f"| {' | '.join(map(str, cells))} |"


def skill_lines(rows: list[Row]) -> Iterable[str]:
    skills = np.array([(row["agreement"] - row["chance"]) / (1 - row["chance"]) for row in rows])
    for low, high in zip((-1.0, *SKILLS[1:-1]), SKILLS[1:], strict=True):
        some = [row for row, skill in zip(rows, skills, strict=True) if low <= skill < high]
        if some:
            share = np.mean([row["flagged"][FILTER][0] / row["n"] for row in some])
            precisions = np.array([precision(row, FILTER) for row in some])
            lift = np.mean(precisions / [row["rate"] for row in some])
            span = f"below {high}" if low < 0 else f"{low} to {high}"
            yield f"| {span} | {len(some)} | {share:.2f} | {precisions.mean():.2f} | {lift:.1f} |"


if __name__ == "__main__":
    main()
