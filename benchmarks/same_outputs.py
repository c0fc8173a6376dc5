"""Compare what two checkouts compute: `python benchmarks/same_outputs.py BEFORE AFTER [--json FILE] [--keep FOLDER]`.

Both checkouts run COMMANDS, `reference_case` and `public_names` on the same images, in a folder of the same path, on
one CPU thread. Only the command line and the names in `sotglp.__all__` are used, so modules may move between the two.
Each file that a checkout writes is a row: *same* (equal bytes, or equal but for durations), *same numbers* (only texts,
added or renamed keys, figures or bytes of an ONNX file differ; each is listed), or *differs* (a number, class label or
tensor changed or is missing). The exit code is 1 if a row differs or a command fails.

`sotglp demo` has no option for a shorter run, so it runs in full, which is half of the six minutes that both checkouts
take on an idle core; `--without-demo` skips it. Requires POSIX: a command runs in a fork, which saves its imports.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import runpy
import shlex
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image, ImageDraw
from safetensors import safe_open
from safetensors.torch import save_file

SCORES = ("mcm", "l-mcm", "gl-mcm", "msp", "max-logit", "energy", "margin", "entropy")
PEERS = ("zero-shot", "zero-shot-ensemble", "linear-probe", "tip-adapter", "tip-adapter-f", "clip-adapter", "coop")
METHODS = (*PEERS, "locoop", "plot", "gallop", "sot-glp", "sot-glp-projection-free")
FIT = "fit data/train --backbone tiny --set learning_rate=0.1 --out @.safetensors --epochs"
LINES = f"""default fit data/train --backbone tiny --out @.safetensors
views-0 {FIT} 3 --set views=0 --set batch_size=10
calibrated {FIT} 6 --calibrate
calibrated-on {FIT} 3 --calibrate-on data/test --ood-method transport --tpr 0.9 --set relaxation=1 --set top_k=5
no-cache {FIT} 3 --no-cache
two-processes {FIT} 3 --num-processes 2
few-shots {FIT} 3 --shots 3 --seed 5 --set draw=published --set optimizer=adamw --set micro_batch=2
per-prompt {FIT} 3 --set matching=per-prompt --set local_contexts=shared --set local_init=orthonormal
with-backbone {FIT} 3 --include-backbone --preset eurosat --set augment=false --set "local_factor='1'"
evaluate evaluate out/default.safetensors data/test --ood data/ood
evaluate-transport evaluate out/calibrated-on.safetensors data/test --ood data/ood --ood data/added
predict predict out/calibrated.safetensors data/test data/ood --unknown --coverage 0.9 --csv @.csv
explain explain out/calibrated.safetensors data/test/red_disc/1.png --top 2 --out @.png
add classes add out/default.safetensors "green triangle" data/added --others data/train --epochs 3 --out @.safetensors
add-alone classes add out/per-prompt.safetensors "green triangle" data/added --out @.safetensors
add-keys classes add out/tip-adapter.safetensors "green triangle" data/added --out @.safetensors
remove classes remove out/default.safetensors red_disc --out @.safetensors
rename classes rename out/default.safetensors red_disc "crimson disc" --out @.safetensors
export export out/calibrated.safetensors --check data/ood --out @.onnx
predict-exported predict out/export.onnx data/test data/ood --unknown
report report out/calibrated.safetensors data/test --ood data/ood --out report.html
demo demo --out @"""
COMMANDS: dict[str, Any] = {name: f"{FIT} 3 --method {name}" for name in METHODS}
COMMANDS |= dict(line.split(" ", 1) for line in LINES.splitlines())
"""Arguments of `sotglp` by name; `@` stands for out/NAME, and `--json out/NAME.json` is added to each."""
IGNORED_KEYS = {"seconds", "n_bytes"}  # durations, and the size of a file that is a row itself
LABEL_KEYS = {"classes", "label", "looks_like", "path", "predicted", "set", "token"}  # texts that are results


def draw_data(folder: Path) -> None:
    """Write class folders of painted shapes and noise, and images of other classes."""
    rng = np.random.default_rng(0)
    shapes = {"red_disc": (24, 0, "red"), "blue square": (4, 0, "navy"), "added": (3, 0, "green"), "ood": (6, 0, "tan")}
    classes = ("red_disc", "blue square", "coarse noise", "fine noise")
    for place in [*(f"{part}/{name}" for part in ("train", "test") for name in classes), "added", "ood"]:
        name = Path(place).name
        (folder / place).mkdir(parents=True)
        for index in range(6):
            n_cells, size = 8 if name == "coarse noise" else 48, tuple(rng.integers(48, 90, 2).tolist())
            noise = Image.fromarray(rng.integers(0, 256, (n_cells, n_cells, 3), dtype=np.uint8)).resize(size)
            image = noise.copy()
            if name in shapes:
                ImageDraw.Draw(image).regular_polygon((24, 14 + 4 * index, 14), *shapes[name])
            # Faint shapes, grey images and JPEG: some images are misclassified, and several formats are decoded.
            image = Image.blend(noise, image, float(rng.uniform(0.3, 1))).convert("L" if index == 4 else "RGB")
            image.save(folder / place / f"{index}.{'jpg' if index == 5 else 'png'}")


def reference_case(case: str) -> dict[str, Any]:
    """Compute features, logits, losses, gradients, plans and scores of a reference case in tests/data."""
    import sotglp

    sizes = json.loads(Path(f"data/reference/{case}.json").read_text())
    vision = {name: sizes[name] for name in ("image_size", "patch_size", "head_width")}
    vision |= {name: sizes[f"vision_{name}"] for name in ("width", "layers")}
    text = {name: sizes[f"text_{name}"] for name in ("width", "heads", "layers")}
    clip = open_clip.CLIP(sizes["embed_dim"], vision, text, quick_gelu=sizes["quick_gelu"])
    with np.load(f"data/reference/{case}.weights.npz") as weights, np.load(f"data/reference/{case}.npz") as arrays:
        clip.load_state_dict({name: torch.from_numpy(weights[name]) for name in weights})
        given = {name: torch.from_numpy(arrays[name]) for name in arrays}
    backbone, images = sotglp.Backbone.from_open_clip(clip), given["image"]
    settings = ("n_global_prompts", "n_local_prompts", "top_k", "epsilon", "template", "learn_projection")
    model = sotglp.SOTGLP(backbone, sizes["class_names"], **{name: sizes[name] for name in settings})
    model.global_prompts.data, model.local_prompts.data = given["global_prompt"], given["local_prompts"]
    outputs = model(images)
    found = {"global": outputs.global_logits, "local": outputs.local_logits, "predicted": model.predict_proba(images)}
    found["image_features"], found["patch_tokens"] = backbone.encode_image(images)
    found["text_global"], found["text_local"] = model.encode_text()
    found["plan"], found["support"] = model.transport(images)
    for kind, options in (("mean", {"prompt_dropout": 0.0}), ("dropout", {})):
        torch.manual_seed(1)
        loss = model.loss(images, given["target"], **options)
        model.zero_grad()
        loss.total.backward()
        found |= {f"{kind}_total": loss.total, f"{kind}_global": loss.global_, f"{kind}_local": loss.local}
        found |= {f"{kind}_grad_{name}": p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    found |= {f"score_of_outputs_{name}": sotglp.ood.score(outputs, None, name) for name in SCORES[:3]}
    return found | {f"score_{name}": sotglp.ood.score(model, images, name, 0.5) for name in SCORES}


def public_names() -> dict[str, Any]:
    """Compute features of the embedded backbone, scores and probabilities of fitted models, and transport plans."""
    import sotglp

    generator, backbone = torch.Generator().manual_seed(0), sotglp.Backbone.load("tiny")
    images = torch.randn(5, 3, 64, 64, generator=generator)
    cost, sinkhorn = torch.rand(7, 3, 10, 4, generator=generator, dtype=torch.float64), sotglp.transport.sinkhorn
    # A small epsilon and relaxed marginals take another solver than epsilon 0.1.
    found = {f"epsilon_{epsilon}": sinkhorn(cost, epsilon) for epsilon in (1.0, 0.1, 0.01, 0.001)}
    found |= {f"relaxation_{weight}": sinkhorn(cost, 0.1, relaxation=weight) for weight in (0.1, 1.0, 10.0)}
    found["float32"] = sinkhorn(cost.float(), 0.1, row_marginal=torch.arange(1, 11) / 55.0)
    found["image_features"], found["patch_tokens"] = backbone.encode_image(images)
    peers = {name: sotglp.MethodClassifier.load(f"out/{name}.safetensors", backbone=backbone) for name in METHODS}
    found |= {name: peer.predict_proba(images) for name, peer in peers.items()}
    model = sotglp.SOTGLPClassifier.load("out/default.safetensors").model_
    of_shots = ("knn", "mahalanobis", "mahalanobis-patches")
    found |= {name: sotglp.ood.score(model, images, name) for name in (*SCORES, *of_shots)}
    classifier = sotglp.SOTGLPClassifier("tiny", shots=4, epochs=3, n_local_prompts=2, seed=3).fit("data/train")
    classifier.calibrate("data/test", 0.9)
    found |= {"sets": classifier.predict_sets("data/test", 0.8), "is_ood": classifier.is_ood("data/test")}
    return found | {"probabilities": classifier.predict_proba("data/test")}


def run(name: str, task: Any, *, kill: bool = False) -> bool:
    """Run `sotglp` with arguments, or save computed arrays, in a fork; with `kill`, kill it at its first checkpoint."""

    def work() -> None:
        os.dup2(os.open(f"logs/{name}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
        os.dup2(1, 2)
        if isinstance(task, str):
            sys.argv = ["sotglp", *shlex.split(task.replace("@", f"out/{name}")), "--json", f"out/{name}.json"]
            runpy.run_module("sotglp", run_name="__main__", alter_sys=True)
        else:
            arrays = {key: torch.as_tensor(value).detach().clone() for key, value in task().items()}
            save_file(arrays, f"out/{name}.safetensors")

    started = time.perf_counter()
    process = get_context("fork").Process(target=work)
    process.start()
    while kill and process.is_alive() and not list(Path("out").glob(f"{name}.safetensors*")):
        time.sleep(0.005)
    if kill:
        process.kill()
    process.join()
    print(f"  {name}: exit code {process.exitcode}, {time.perf_counter() - started:.1f} s", file=sys.stderr)
    return process.exitcode == (-9 if kill else 0)


def leaves(value: Any, where: str = "", index: tuple[int, ...] = ()) -> Iterator[tuple[tuple[str, Any], Any]]:
    """Yield every number and text in a value with its place: its keys, and its indices in lists and tensors."""
    if isinstance(value, torch.Tensor):
        yield (f"{where} dtype", index), str(value.dtype)
        value = value.tolist() if value.numel() < 2**20 else {"label": hashlib.sha256(value.numpy()).hexdigest()}
    if isinstance(value, dict):
        for key in sorted(value.keys() - IGNORED_KEYS):
            yield from leaves(value[key], f"{where}/{key}".lstrip("/"), index)
    elif isinstance(value, list):
        yield (f"{where} length", index), len(value)  # an added key is allowed, a longer list is not
        for position, element in enumerate(value):
            yield from leaves(element, where, (*index, position))
    else:
        yield (where, index), value


def content(path: Path) -> Any:
    """Read a file; a figure or an ONNX file is one text, since it holds wording or names from the code."""
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            record = {name: json.loads(text) for name, text in (file.metadata() or {}).items()}
            return record | {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if path.suffix in (".json", ".csv"):
        text = path.read_text(encoding="utf-8")
        return json.loads(text) if path.suffix == ".json" else {"label": text.splitlines()}
    return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def compare(before: dict[Any, Any], after: dict[Any, Any]) -> tuple[list[str], list[str]]:
    """Describe which numbers and labels differ, and what else does; floats are equal bit for bit if their `repr` is."""
    numbers, rest, added = defaultdict(list), defaultdict(list), defaultdict(list)
    for place in sorted(after.keys() - before.keys(), reverse=True):
        added[repr(after[place])].append(place)
    for place, value in before.items():
        where, other = place[0], after.get(place, "(absent)")
        if place not in after and added[repr(value)]:
            rest[f"{where} is now {added[repr(value)].pop()[0]}"].append((value, value))
        elif repr(value) != repr(other):
            is_text = all(isinstance(one, str | None) for one in (value, other))
            (rest if is_text and where.rpartition("/")[2] not in LABEL_KEYS else numbers)[where].append((value, other))
    for place in [place for places in added.values() for place in places]:
        rest[place[0]].append(("(absent)", after[place]))

    def describe(where: str, pairs: list[tuple[Any, Any]]) -> str:
        steps = [abs(a - b) for a, b in pairs if isinstance(a, int | float) and isinstance(b, int | float)]
        count = f" ({len(pairs)} places" + (f", by up to {max(steps):.3g})" if any(steps) else ")")
        return f"{where}: {str(pairs[0][0])[:50]} -> {str(pairs[0][1])[:50]}" + count * (len(pairs) > 1)

    return [describe(*item) for item in numbers.items()], [describe(*item) for item in rest.items()]


def rows(before: Path, after: Path) -> Iterator[tuple[str, list[str], list[str], str]]:
    """Yield each file below either of two folders, what differs in numbers and otherwise, and its SHA-256 if equal."""
    for name in sorted({str(path.relative_to(folder)) for folder in (before, after) for path in folder.rglob("*.*")}):
        old, new = before / name, after / name
        if not (old.exists() and new.exists()):
            yield name, ["missing in AFTER"] * old.exists(), ["missing in BEFORE"] * new.exists(), ""
        elif old.read_bytes() == new.read_bytes():
            yield name, [], [], hashlib.sha256(new.read_bytes()).hexdigest()
        else:
            yield name, *compare(*(dict(leaves(content(path))) for path in (old, new))), ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path, help="checkout to compare with")
    parser.add_argument("after", type=Path, help="checkout to compare")
    parser.add_argument("--json", type=Path, default=os.devnull, help="file for the table as JSON")
    parser.add_argument("--keep", type=Path, help="new folder for the files and logs of both")
    parser.add_argument("--without-demo", action="store_true", help="skip `sotglp demo`")
    chosen = parser.parse_args()
    before, after, target = (path.resolve() for path in (chosen.before, chosen.after, chosen.json))
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "SOTGLP_CACHE": "cache"}
    torch.set_num_threads(1)
    tasks, failed, table = COMMANDS | {"public-names": public_names}, [], []
    tasks |= {case: lambda case=case: reference_case(case) for case in ("vit_small_proj", "vit_small_noproj")}
    if chosen.without_demo:
        del tasks["demo"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = (chosen.keep or Path(temporary)).resolve()
        draw_data(folder / "data")
        shutil.copytree(before / "tests/data", folder / "data/reference")
        for side, checkout in (("before", before), ("after", after)):
            os.environ["PYTHONPATH"] = sys.path[0] = str(checkout / "src")
            if not importlib.util.find_spec("sotglp").origin.startswith(sys.path[0]):
                parser.error(f"{checkout} is not a checkout: src/sotglp is missing")
            print(checkout, file=sys.stderr)
            # Both run in a folder of the same path, since paths may be written into files.
            for name in ("out", "logs"):
                (folder / "run" / name).mkdir(parents=True)
            os.chdir(folder / "run")
            shutil.copytree(folder / "data", "data")
            failed += [f"{name} in {side.upper()}" for name, task in tasks.items() if not run(name, task)]
            is_resumed = run("resumed", f"{FIT} 60", kill=True) and run("resumed", f"{FIT} 60 --resume")
            failed += [f"resumed in {side.upper()}"] * (not is_resumed)
            shutil.rmtree("out/demo/photos", ignore_errors=True)  # demo.json has what the models make of them
            (folder / "run").rename(folder / side)
        found = [("exit codes", failed, [], ""), *rows(folder / "before/out", folder / "after/out")]
    for item, numbers, rest, sha256 in found:
        status = "differs" if numbers else "same numbers" if rest else "same"
        table.append({"item": item, "status": status, "numbers": numbers, "rest": rest, "sha256": sha256})
        details = f"\n{'':38} | {'':12} | ".join(numbers + rest) or sha256[:16]
        print(f"{item:38} | {status:12} | {details}")
    counts = Counter(row["status"] for row in table)
    print(", ".join(f"{status}: {counts[status]}" for status in ("same", "same numbers", "differs")))
    target.write_text(json.dumps(table, indent=1) + "\n")
    sys.exit(counts["differs"] > 0)


if __name__ == "__main__":
    main()
