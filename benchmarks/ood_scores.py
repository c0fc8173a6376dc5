"""Near OOD on photos: classes left out in turn, our scores beside those of pytorch-ood, on the same fitted models.

``python benchmarks/ood_scores.py --data ../shared/data`` trains the models of benchmarks/ood_models.py, which takes
most of the time, writes the AUROC and FPR95 of each to build/ood_rows, continues where it was interrupted, and writes
docs/near_ood_measured.md.

All detectors choose their parameters by the same rule, on the shots alone: models are trained without a third of the
classes, on two of three folds of the shots of the others; the third fold are known images and the shots of the left-out
classes unknown ones. A set takes the parameters with the largest mean AUROC over the other eight sets, so that nothing
of the set is used. Test photos are scored with these and with the defaults.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from ood_models import Cell, Photos, Seen, all_cells, fitted_model, linear_part, rows_of, seen_by, split
from ood_negatives import negative_candidates
from ood_own_scores import own_candidates
from ood_page import write_page
from pytorch_ood_scores import Candidate, Fitting, peer_candidates
from sotglp.backbone import Backbone
from sotglp.features.cache_folder import default_cache_dir
from sotglp.methods.shot_features import build_shot_memory
from sotglp.scoring.metrics import ood_metrics
from sotglp.settings import InferenceConfig

Row = dict[str, dict[str, tuple[float, float]]]
"""AUROC and FPR95 in percent by candidate and kind of unknown images."""


def measure(backbone: Backbone, photos: Photos, cell: Cell, folder: Path, picked: Mapping[str, str]) -> Row:
    """Score the images of a cell: for "choice" by all candidates of detectors that have several, else by the picked.

    ``picked`` are parameters by detector, for those that have several.
    """
    own = split(photos, cell)
    model = fitted_model(backbone, photos, cell, folder)
    shots = photos.train.take(own.shots)
    model.shots = build_shot_memory(model, shots, InferenceConfig(), cache_dir=default_cache_dir())
    with torch.no_grad():
        text = model.encode_text()
    seen = {part: seen_by(model, text, encoded) for part, encoded in own.parts.items()}
    of_shots = seen_by(model, text, rows_of(photos.encoded["train"], own.shots))
    found = Fitting(of_shots, torch.from_numpy(shots.targets(own.classes)), linear_part(model, text))
    candidates = own_candidates(model, text, found) + negative_candidates(model, text, found) + peer_candidates(found)
    several = {name for name, n in Counter(one.detector for one in candidates).items() if n > 1}
    rows: Row = {}
    for candidate in candidates:
        if candidate.detector in several:
            needed = cell.stage == "choice" or picked.get(candidate.detector) == candidate.parameters
        else:
            needed = cell.stage == "test"
        if needed and (measured := measure_candidate(candidate, seen)):
            rows[candidate.key] = measured
    return rows


def measure_candidate(candidate: Candidate, seen: Mapping[str, Seen]) -> dict[str, tuple[float, float]]:
    """AUROC and FPR95 by kind of unknown images; none, with a warning, if the detector fails."""
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "overflow encountered", RuntimeWarning)  # OpenMax
            score = candidate.fit()
            scores = {part: score(images).double().cpu().numpy() for part, images in seen.items()}
    except (ValueError, RuntimeError, AssertionError, IndexError) as error:
        warnings.warn(f"{candidate.key}: {error}", stacklevel=2)
        return {}
    if not all(np.isfinite(values).all() for values in scores.values()):
        warnings.warn(f"{candidate.key}: scores are not finite", stacklevel=2)
        return {}
    found = {}
    for part in scores.keys() - {"known"}:
        numbers = ood_metrics(scores["known"], scores[part])
        found[part] = round(100 * numbers["auroc"], 3), round(100 * numbers["fpr95"], 3)
    return found


def read_rows(folder: Path) -> dict[Cell, Row]:
    files = {cell: folder / f"{cell.stem}.json" for cell in all_cells()}
    return {cell: json.loads(file.read_text()) for cell, file in files.items() if file.exists()}


def choices(rows: Mapping[Cell, Row]) -> dict[tuple[int, str], dict[str, str]]:
    """The chosen parameters by number of shots and set, and by detector; see the head of this file.

    Equal means are decided for what was measured first. Parameters that fail on one of the other sets are not chosen.
    """
    areas: dict[tuple[int, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for cell, row in rows.items():
        for key, parts in row.items() if cell.stage == "choice" else ():
            areas[cell.shots, key][cell.name].append(parts["unknown"][0])
    chosen: dict[tuple[int, str], dict[str, str]] = {}
    for shots in {shots for shots, _ in areas}:
        sets = {cell.name for cell in rows if cell.stage == "choice" and cell.shots == shots}
        for left_out in sets:
            best: dict[str, tuple[float, str]] = {}
            for (number, key), of_set in areas.items():
                others = [float(np.mean(of_set[name])) for name in sets - {left_out} if name in of_set]
                detector, _, parameters = key.partition("|")
                if number == shots and len(others) == len(sets) - 1:
                    mean = float(np.mean(others))
                    if detector not in best or mean > best[detector][0] + 1e-9:
                        best[detector] = mean, parameters
            chosen[shots, left_out] = {detector: parameters for detector, (_, parameters) in best.items()}
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of the sets; without it, only the page is written")
    parser.add_argument("--rows", type=Path, default=Path("build/ood_rows"))
    parser.add_argument("--models", type=Path, default=Path("build/ood_models"))
    parser.add_argument("--only", nargs=2, metavar=("STAGE", "SHOTS"), help="models of this stage and number of shots")
    chosen = parser.parse_args()
    for folder in (chosen.rows, chosen.models):
        folder.mkdir(parents=True, exist_ok=True)
    if chosen.data:
        backbone, loaded = Backbone.load("photo"), {}
        for stage in ("choice", "test"):
            of_set = choices(read_rows(chosen.rows))
            for cell in all_cells():
                if cell.stage != stage or (chosen.only and [cell.stage, str(cell.shots)] != chosen.only):
                    continue
                file = chosen.rows / f"{cell.stem}.json"
                rows: Row = json.loads(file.read_text()) if file.exists() else {}
                picked = of_set.get((cell.shots, cell.name), {}) if stage == "test" else {}
                if rows and all(f"{detector}|{parameters}" in rows for detector, parameters in picked.items()):
                    continue
                if cell.name not in loaded:
                    loaded[cell.name] = Photos(backbone, chosen.data, cell.name)
                rows |= measure(backbone, loaded[cell.name], cell, chosen.models, picked)
                partial = file.with_suffix(".partial")
                partial.write_text(json.dumps(rows))
                partial.rename(file)
                print(file.name, flush=True)
    rows_of_cells = read_rows(chosen.rows)
    write_page(rows_of_cells, choices(rows_of_cells))


if __name__ == "__main__":
    main()
