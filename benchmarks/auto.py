"""What ``--method auto`` chooses, beside each single method, on photos with the backbone ``photo``.

Run ``python benchmarks/auto.py --data ../shared/data`` to add rows to build/auto.jsonl and write docs/auto_measured.md;
the same command resumes an interrupted run, since rows that exist are kept. Fits of SOT-GLP take most of the time:
``--trained`` is the number of draws that have them.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sotglp.backbone import Backbone
from sotglp.backbone_defaults import default_method, preset_for
from sotglp.errors import SotglpWarning
from sotglp.features.cache_folder import default_cache_dir
from sotglp.features.encode import encode_image_features
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel
from sotglp.methods.method import AUTO_METHODS, candidates_on
from sotglp.methods.zero_shot import ZeroShot
from sotglp.scoring.choice import CLEAR
from sotglp.scoring.choose_method import choose_method
from sotglp.scoring.evaluate import evaluate
from sotglp.settings import InferenceConfig, load_preset
from sotglp.training.fit import adapt, drawn_shots

SETS = (
    *("ship/trash", "ship/clothing", "ship/grocery", "pacs_photo", "rsscn7", "eurosat", "flowers102", "cifar10"),
    "caltech101",
)
SHOTS = (4, 16)
TRAINED = default_method("photo")
ROOT = Path(__file__).parent.parent

HEAD = """# Automatic choice of the method

`sotglp fit --method auto` splits the shots into three folds and compares methods on the shots that their models were
not fitted on. Methods without training share the encoded features and are fitted on two splits; SOT-GLP is trained on
the folds once, which takes the steps of two more fits. `pool` is preferred: another method is chosen where it is better
by more than {clear} standard errors of the difference. Sixteen or fewer shots of a class tell methods apart only if
they differ by much, so that a plain choice of the best often errs; the pool of three methods is seldom far from the
best of them.

`python benchmarks/auto.py --data ../shared/data` writes this file: backbone `photo`, default settings, test accuracy
in %, mean of the given number of draws. Sets with 16 training images of each class have one draw of 16 shots. In the
first table, `auto` chooses among the methods without training. The best single method is found on the test images, so
that it is an optimistic bar.

"""


def measure(
    backbone: Backbone, train: ImageSet, test: ImageSet, name: str, shots: int, seed: int, trained: bool
) -> dict[str, Any]:
    cache = default_cache_dir()
    preset = preset_for(backbone.name, load_preset("folder"))
    every = candidates_on(backbone.name, preset, {"shots": shots, "seed": seed, "remember": trained})
    candidates = {name: settings for name, settings in every.items() if trained or name != TRAINED}
    drawn = drawn_shots(train, every[TRAINED][1])
    encode_image_features(backbone, drawn, InferenceConfig(), cache)  # all methods find them in the cache
    row: dict[str, Any] = {"set": name, "shots": shots, "seed": seed, "trained": trained, "accuracy": {}, "seconds": {}}
    start = time.process_time()
    choice = choose_method(backbone, drawn, candidates, cache_dir=cache)
    row |= {"chosen": choice.chosen, "merits": choice.merits, "choosing": time.process_time() - start}
    for method, (model_config, config) in candidates.items():
        start = time.process_time()
        fitted = adapt(backbone, train, model_config, config, cache_dir=cache)
        row["seconds"][method] = time.process_time() - start
        row["accuracy"][method] = accuracy(fitted.model, test)
    return row


@torch.no_grad()
def accuracy(model: AdaptedModel, test: ImageSet) -> float:
    cache = default_cache_dir()
    if not isinstance(model, ZeroShot):
        return float(evaluate(model, test, cache_dir=cache)["accuracy"])
    # Methods on image features need no patches.
    features = encode_image_features(model.backbone, test, InferenceConfig(), cache)
    predicted = model.global_cosines(features, model.encode_text()).argmax(dim=1).numpy()
    return float((predicted == test.targets(model.class_names)).mean())


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Lines of Markdown: for each set and number of shots all methods without training, and auto of them."""
    methods = list(AUTO_METHODS)
    lines = [f"| set | shots | draws | {' | '.join(methods)} | best single | auto | difference | chosen |"]
    lines.append("|---" * (len(methods) + 7) + "|")
    differences, totals = [], []
    for name, shots in product(SETS, SHOTS):
        own = [row for row in rows if (row["set"], row["shots"]) == (name, shots)]
        if not own:
            continue
        means = {one: 100 * float(np.mean([row["accuracy"][one] for row in own])) for one in methods}
        auto = 100 * float(np.mean([row["accuracy"][row["chosen"]] for row in own]))
        singles = {one: mean for one, mean in means.items() if one != "pool"}
        best = max(singles, key=singles.__getitem__)
        chosen = ", ".join(f"{one} {n}" for one in methods if (n := sum(row["chosen"] == one for row in own)))
        differences.append(auto - singles[best])
        totals.append([*means.values(), singles[best], auto])
        cells = [str(len(own)), *(f"{mean:.1f}" for mean in means.values())]
        lines.append(
            f"| {name} | {shots} | {' | '.join(cells)} | {best} | {auto:.1f} | {differences[-1]:+.1f} | {chosen} |"
        )
    *mean, best_mean, auto_mean = np.mean(totals, axis=0).tolist()
    cells = [f"{one:.1f}" for one in mean]
    lines.append(
        f"| mean | | | {' | '.join(cells)} | {best_mean:.1f} | {auto_mean:.1f} | {auto_mean - best_mean:+.1f} | |"
    )
    return lines


def trained_table(rows: list[dict[str, Any]]) -> list[str]:
    """Lines of Markdown: the draws for which SOT-GLP was a candidate too, and the time of choosing."""
    lines = ["| set | shots | draw | sot-glp | pool | auto | chosen | fit of sot-glp (s) | auto (s) | ratio |"]
    lines.append("|---" * 10 + "|")
    for row in rows:
        fit = row["seconds"][TRAINED]
        whole = row["choosing"] + row["seconds"][row["chosen"]]
        accuracy = {name: f"{100 * value:.1f}" for name, value in row["accuracy"].items()}
        lines.append(
            f"| {row['set']} | {row['shots']} | {row['seed']} | {accuracy[TRAINED]} | {accuracy['pool']} | "
            f"{accuracy[row['chosen']]} | {row['chosen']} | {fit:.1f} | {whole:.1f} | {whole / fit:.1f} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=Path, default=Path("build/auto.jsonl"))
    parser.add_argument("--draws", type=int, default=5, help="draws for the methods without training")
    parser.add_argument("--trained", type=int, default=1, help="draws for which SOT-GLP is a candidate too")
    arguments = parser.parse_args()
    arguments.rows.parent.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore", SotglpWarning)
    rows = [json.loads(line) for line in arguments.rows.read_text().splitlines()] if arguments.rows.exists() else []
    done = {(row["set"], row["shots"], row["seed"], row["trained"]) for row in rows}
    backbone = Backbone.load("photo")
    sets = {name: [ImageSet.from_path(arguments.data / name / part) for part in ("train", "test")] for name in SETS}
    cells = [(name, s, seed, False) for seed, s, name in product(range(1, arguments.draws + 1), SHOTS, SETS)]
    cells += [(name, s, seed, True) for seed, s, name in product(range(1, arguments.trained + 1), SHOTS, SETS)]
    for name, shots, seed, trained in cells:
        train, test = sets[name]
        same_draw = seed > 1 and len(train) == shots * len(train.classes)
        if same_draw or (name, shots, seed, trained) in done:
            continue
        rows.append(measure(backbone, train, test, name, shots, seed, trained))
        with arguments.rows.open("a") as file:
            file.write(json.dumps(rows[-1]) + "\n")
    free, costly = ([row for row in rows if row["trained"] == trained] for trained in (False, True))
    lines = table(free)
    if costly:
        lines += ["", "With SOT-GLP as a candidate (seconds of one CPU core):", "", *trained_table(costly)]
    head = HEAD.format(clear=CLEAR)
    (ROOT / "docs" / "auto_measured.md").write_text(head + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
