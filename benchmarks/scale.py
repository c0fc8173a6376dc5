"""What predictions and fits cost, an image and a class, and what follows for many: `python benchmarks/scale.py`.

Measures the CPU seconds of one thread for each stage of a prediction (read, decode, encode, compare, write) with
`tiny`, `photo` and ViT-B/16 on photos of ../shared/data, the CPU seconds of a training step against the number of
classes, and the bytes that processes exchange in a step. Rows are appended to docs/scale.jsonl, an interrupted run
continues with the rows that are missing, and docs/scale.md is written from them.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # before torch is loaded

import torch
from PIL import Image
from torch import Tensor

from scale_report import write_report
from sotglp import SOTGLP, Backbone
from sotglp.console.output import prediction
from sotglp.console.prediction_files import write_parquet
from sotglp.features.distributed import Processes
from sotglp.features.rows import EncodedImages
from sotglp.methods.text_features import TextFeatures
from sotglp.scoring.arrays import join_batches
from sotglp.scoring.predict import Predictions, predict_encoded, text_of
from sotglp.settings import InferenceConfig, TrainConfig
from sotglp.training import fit
from sotglp.training.batches import StepBatch
from speed import class_names

DOCS = Path(__file__).parent.parent / "docs"
RESULTS = DOCS / "scale.jsonl"
DATASET = "pacs_photo"
IMAGES = {"tiny": 64, "photo": 64, "ViT-B-16": 16}
CLASSES = {"photo": (20, 50, 100, 200), "ViT-B-16": (20, 50, 100, 200)}
ROUNDS = 3
BATCH = 32
EXCHANGED_CLASSES = (100, 200)


def stages(name: str, data: Path) -> dict[str, Any]:
    """CPU seconds an image of each stage of a prediction, the median of the rounds; ten classes."""
    n_images = IMAGES[name]
    files = sorted((data / DATASET / "test").glob("*/*.jpg"))[:n_images]
    backbone = Backbone.load(name)
    model, inference = SOTGLP(backbone, class_names(10)).eval(), InferenceConfig()
    text = text_of(model, inference)
    seconds: dict[str, list[float]] = {}

    def timed(stage: str, work: Callable[[], Any]) -> Any:
        start = time.process_time()
        result = work()
        seconds.setdefault(stage, []).append((time.process_time() - start) / n_images)
        return result

    def compare(parts: list[EncodedImages]) -> Predictions:
        numbers = [rows.numpy() for rows in torch.arange(n_images).split(BATCH)]
        pairs = zip(numbers, parts, strict=True)
        return join_batches([predict_encoded([model], [text], *pair, inference)[0] for pair in pairs])

    def write(path: Path, found: Predictions) -> None:
        columns = zip(files, found.probabilities, found.ood_scores.tolist(), strict=True)
        rows = [prediction(str(file), model.class_names, own, score, None) for file, own, score in columns]
        write_parquet(path, rows, force=True)

    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        for _ in range(1 + ROUNDS):
            contents = timed("read", lambda: [file.read_bytes() for file in files])
            pixels = timed("decode", lambda of=contents: [decoded(backbone, content) for content in of])
            batches = torch.stack(pixels).split(BATCH)
            encoded = timed("encode", lambda of=batches: [EncodedImages(*backbone.encode_image(part)) for part in of])
            found = timed("compare", partial(compare, encoded))
            timed("write", partial(write, Path(folder) / "rows.parquet", found))
        return {
            "images": n_images,
            "bytes": sum(map(len, contents)) / n_images,
            "seconds": {stage: statistics.median(found[1:]) for stage, found in seconds.items()},
        }


def decoded(backbone: Backbone, content: bytes) -> Tensor:
    """Pixels (3, H, W) of a file's content."""
    return backbone.preprocess(Image.open(io.BytesIO(content)).convert("RGB"))


def step(name: str, n_classes: int) -> dict[str, Any]:
    """CPU seconds of the text and of the rest of a step with stored features, forward and backward."""
    model, targets, stored = case(name, n_classes)
    seconds: dict[str, list[float]] = {"text": [], "head": []}
    for _ in range(1 + ROUNDS):
        model.zero_grad()
        start = time.process_time()
        text = model.encode_text()
        forward = time.process_time()
        leaves = TextFeatures(*(part.detach().requires_grad_() for part in text))
        model.compute_loss(model.compare(stored, leaves), targets).total.backward()
        compared = time.process_time()
        torch.autograd.backward(list(text), [leaf.grad for leaf in leaves])
        seconds["text"].append(forward - start + time.process_time() - compared)
        seconds["head"].append(compared - forward)
    return {part: statistics.median(found[1:]) for part, found in seconds.items()}


def case(name: str, n_classes: int) -> tuple[SOTGLP, Tensor, EncodedImages]:
    """A model, class indices and random features of a batch."""
    model = SOTGLP(Backbone.load(name), class_names(n_classes))
    backbone, generator = model.backbone, torch.Generator().manual_seed(0)
    features = torch.randn(BATCH, backbone.embed_dim, generator=generator)
    tokens = torch.randn(BATCH, backbone.n_patches, backbone.patch_width, generator=generator)
    return model, torch.randint(n_classes, (BATCH,), generator=generator), EncodedImages(features, tokens)


class CountedProcesses(Processes):
    """The first of two processes, which counts the bytes that it would exchange."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))
        self.count, self.n_bytes = 2, 0

    def add_up(self, tensors: Any) -> None:
        """Count the bytes of the tensors."""
        self.n_bytes += sum(tensor.nbytes for tensor in tensors)


def exchanged(name: str, n_classes: int) -> dict[str, Any]:
    """Bytes of the tensors that are summed over all processes in one step of the fit loop."""
    model, targets, stored = case(name, n_classes)
    processes = CountedProcesses()
    rows = torch.arange(BATCH)
    batch = StepBatch(BATCH, [rows.tolist()], iter([(rows.numpy(), stored)]))
    optimizer = torch.optim.SGD(model.learned, lr=0.0)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    fit._step(model, optimizer, scaler, batch, targets, TrainConfig(), processes, torch.Generator())
    return {"bytes": processes.n_bytes}


def main() -> None:
    """Measure the rows that are missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    chosen = parser.parse_args()
    works: dict[str, Callable[[], dict[str, Any]]] = {}
    works |= {f"stages {name}": partial(stages, name, chosen.data) for name in IMAGES}
    for name, counts in CLASSES.items():
        works |= {f"exchanged {name} {n}": partial(exchanged, name, n) for n in EXCHANGED_CLASSES}
        works |= {f"step {name} {n}": partial(step, name, n) for n in counts}
    lines = RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.exists() else []
    found = {row.pop("row"): row for row in map(json.loads, lines)}
    for key, work in works.items():
        if key not in found:
            found[key] = work()
            print(key, found[key], file=sys.stderr, flush=True)
            with RESULTS.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"row": key, **found[key]}) + "\n")
    write_report(found, DOCS / "scale.md")


if __name__ == "__main__":
    main()
