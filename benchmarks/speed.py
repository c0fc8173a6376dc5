"""What a training step costs, beside the plain way of computing the same: `python benchmarks/speed.py`.

Random weights, random images, ImageNet's first class names. Ours and the plain one (plain.py) take turns in one process
for each row, so that a machine whose speed varies treats them alike. So does ours with torch's own matrix products
where it uses oneDNN's, on processors with AVX-512. Times are medians of CPU seconds of one thread, which other
processes disturb least; memory is the peak above what the loaded model takes.

Each row is appended to docs/speed.jsonl, from which docs/speed.md and docs/pictures/speed.png are written: an
interrupted run continues with the rows that this kind of processor has none of, and ``--rows text:20 image`` measures
these rows again.

The plain way can't hold the text of many classes, so it goes forward and backward in groups of PLAIN_CLASSES. That is
the same arithmetic with less memory: ratios of time are unchanged, those of memory too small.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import open_clip
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import plain
from sotglp import SOTGLP, Backbone
from sotglp.backbone import blocks
from sotglp.features.cache import FeatureStore
from sotglp.features.rows import EncodedImages
from sotglp.features.views import Views
from sotglp.images.digest import content_digest
from sotglp.images.image_set import ImageSet
from sotglp.methods.text_features import TextFeatures
from sotglp.scoring.predict import predict
from sotglp.settings import InferenceConfig
from speed_report import Row, write_report

PLAIN_CLASSES = 50
MOST_PLAIN_CLASSES = 100
THREADS = 1
DOCS = Path(__file__).parent.parent / "docs"
RESULTS = DOCS / "speed.jsonl"
ROWS = (
    *(Row("image", 20, batch, quick) for batch in (8, 32) for quick in (False, True)),
    *(Row("text", n, 32, quick) for n in (20, 100, 500, 1000) for quick in (False, True) if n <= 100 or not quick),
    *(Row("head", n, 32) for n in (20, 100, 500, 1000)),
    *(Row("step" if n <= MOST_PLAIN_CLASSES else "stored", n, 32) for n in (20, 100, 500, 1000)),
    *(Row("step", n, 32, quick_gelu=True) for n in (20, 100)),
    Row("stored", 1000, 256),
    Row("evaluation", 1000, 1),
)


def class_names(n_classes: int) -> list[str]:
    """The first names of ImageNet as open_clip has them; the second of two equal ones gets a number."""
    names: list[str] = []
    for name in open_clip.zero_shot_metadata.IMAGENET_CLASSNAMES[:n_classes]:
        names.append(f"{name} 2" if name in names else name)
    return names


class Case:
    """A model and inputs, and the work of each part of a step, ours and plain."""

    def __init__(self, backbone: str, n_classes: int, batch: int, *, quick_gelu: bool = False) -> None:
        self.model = SOTGLP(Backbone.load(backbone, quick_gelu=quick_gelu), class_names(n_classes))
        generator = torch.Generator().manual_seed(0)
        height, width = self.model.backbone.image_size
        self.images = torch.randn(batch, 3, height, width, generator=generator)
        self.targets = torch.randint(n_classes, (batch,), generator=generator)
        self.n_classes = n_classes
        n_patches, patch_width = self.model.backbone.n_patches, self.model.backbone.patch_width
        self.stored = (
            torch.randn(batch, self.model.backbone.embed_dim, generator=generator),
            torch.randn(batch, n_patches, patch_width, generator=generator).half(),
        )
        size = self.model.backbone.embed_dim
        self.text = TextFeatures(
            torch.randn(n_classes, self.model.config.n_global_prompts, size, generator=generator),
            torch.randn(n_classes, self.model.config.n_local_prompts, size, generator=generator),
        )

    def leaves(self) -> TextFeatures:
        """Text features that collect gradients."""
        return TextFeatures(*(features.clone().requires_grad_() for features in self.text))

    def slopes(self) -> list[Tensor]:
        """What the last backward pass left at the parameters."""
        parameters = (self.model.global_prompts, self.model.local_prompts, self.model.local_projection)
        return [parameter.grad for parameter in parameters if parameter is not None and parameter.grad is not None]

    @torch.no_grad()
    def image(self) -> tuple[Tensor, Tensor]:
        """Our image features and patch tokens."""
        return self.model.backbone.encode_image(self.images)

    def image_plain(self) -> tuple[Tensor, Tensor]:
        """The same, both attentions with their matrices."""
        return plain.image_features(self.model, self.images)

    @torch.no_grad()
    def image_without_patches(self) -> Tensor:
        """open_clip's own encode_image, which makes no patch tokens."""
        features: Tensor = self.model.backbone.clip.encode_image(self.images)  # type: ignore[operator]
        return features

    def text_both_ways(self) -> None:
        """Our text forward and backward."""
        found = self.model.encode_text()
        torch.autograd.backward(list(found), list(self.text))

    def text_plain(self, slopes: TextFeatures | None = None) -> None:
        """77 tokens forward and backward."""
        for start in range(0, self.n_classes, PLAIN_CLASSES):
            group = slice(start, start + PLAIN_CLASSES)
            found = plain.text_features(self.model, group)
            torch.autograd.backward(found, [slope[group] for slope in slopes or self.text])

    def head(self) -> tuple[Tensor, TextFeatures]:
        """Our scores, transport and losses, forward and backward."""
        leaves = self.leaves()
        loss = self.model.compute_loss(self.model.compare(EncodedImages(*self.stored), leaves), self.targets).total
        loss.backward()
        return loss, leaves

    def head_plain(self, encoded: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, TextFeatures]:
        """The same, dense."""
        leaves = self.leaves()
        image_features, patches = encoded or self.stored
        loss = plain.loss(self.model, plain.scores(self.model, image_features, patches.float(), leaves), self.targets)
        loss.backward()
        return loss, leaves

    def step(self) -> None:
        """Our whole step, images re-encoded."""
        self._step(self.image())

    def step_stored(self) -> None:
        """Our whole step with stored features."""
        self._step(self.stored)

    def _step(self, encoded: tuple[Tensor, Tensor]) -> None:
        self.model.compute_loss(
            self.model.compare(EncodedImages(*encoded), self.model.encode_text()), self.targets
        ).total.backward()

    def step_plain(self) -> None:
        """The plain whole step; the text features in its loss come from outside, so that groups can go back alone."""
        _, leaves = self.head_plain(self.image_plain())
        self.text_plain(TextFeatures(*(leaf.grad for leaf in leaves)))  # type: ignore[arg-type]


def measure(work: dict[str, Callable[[], object]], repeats: dict[str, int], case: Case) -> dict[str, Any]:
    """Median CPU seconds and peak MiB of each, taking turns after a first round that does not count (but in memory)."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    memory = dict.fromkeys(work, 0.0)
    for turn in range(1 + max(repeats.values())):
        for name, run in work.items():
            if turn > repeats[name]:
                continue
            case.model.zero_grad(set_to_none=True)
            before = _fresh_memory()
            start = time.process_time()
            run()
            taken = time.process_time() - start
            memory[name] = max(memory[name], _peak_memory() - before)
            if turn > 0 or repeats[name] == 1:
                seconds[name].append(taken)
            if repeats[name] == 1 and turn == 0:
                repeats = {**repeats, name: 0}  # a long one is not run twice
    return {name: {"seconds": statistics.median(seconds[name]), "MiB": memory[name]} for name in work}


def _fresh_memory() -> float:
    """Give freed memory back, forget the peak so far, and return the MiB in use."""
    if platform.system() == "Linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak_memory() -> float:
    return _status("VmHWM")


def _status(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    raise OSError(f"{name} is not in /proc/self/status")


def relative(ours: Tensor, theirs: Tensor) -> float:
    """Norm of the difference over the norm."""
    return float((ours - theirs).norm() / theirs.norm())


def differences(case: Case) -> dict[str, float]:
    """Largest relative differences between ours and plain."""
    found: dict[str, float] = {}
    with torch.no_grad():
        pairs = zip(case.model.encode_text(), plain.text_features(case.model), strict=True)
        found["text features"] = max(relative(*pair) for pair in pairs)
        found["image features, patch tokens"] = max(
            relative(*pair) for pair in zip(case.image(), case.image_plain(), strict=True)
        )
    case.text_both_ways()
    ours = [slope.clone() for slope in case.slopes()]
    case.model.zero_grad()
    case.text_plain()
    found["gradients of prompts through the text"] = max(
        relative(*pair) for pair in zip(ours, case.slopes(), strict=True)
    )
    case.model.zero_grad()
    loss, leaves = case.head()
    projection = case.slopes()[-1].clone()
    case.model.zero_grad()
    plain_loss, plain_leaves = case.head_plain()
    found["loss"] = abs(loss.item() - plain_loss.item()) / plain_loss.item()
    pairs = [*zip(_slopes(leaves), _slopes(plain_leaves), strict=True), (projection, case.slopes()[-1])]
    found["gradients of text features and projection"] = max(relative(*pair) for pair in pairs)
    return found


def _slopes(leaves: TextFeatures) -> list[Tensor]:
    return [leaf.grad for leaf in leaves if leaf.grad is not None]


def with_torchs_products(run: Callable[[], object]) -> Callable[[], object]:
    """Ours with the matrix products that torch chooses, MKL's on x86."""

    def changed() -> None:
        with patch.object(blocks, "_ONEDNN", None):
            run()

    return changed


def matrix_peak() -> float:
    """Floating-point operations a second of a large product of float32 matrices, the best of ten."""
    one = torch.randn(2048, 2048)
    times = []
    for _ in range(10):
        start = time.process_time()
        blocks.linear(one, one, None)
        times.append(time.process_time() - start)
    return float(2 * 2048**3 / min(times))


def operations(work: Callable[[], object]) -> int:
    """Floating-point operations of some work's matrix products, attention included."""
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def row(wanted: Row, backbone: str) -> dict[str, Any]:
    """One row of the table, measured in this process."""
    part, n_classes = wanted.part, wanted.classes
    case = Case(backbone, n_classes, wanted.batch, quick_gelu=wanted.quick_gelu)
    has_plain = n_classes <= MOST_PLAIN_CLASSES
    works: dict[str, dict[str, Callable[[], object]]] = {
        "text": {"ours": case.text_both_ways, "plain": case.text_plain},
        "head": {"ours": case.head, "plain": case.head_plain},
        "image": {"ours": case.image, "plain": case.image_plain, "open_clip": case.image_without_patches},
        "step": {"ours": case.step, "stored": case.step_stored, "plain": case.step_plain},
        "stored": {"ours": case.step_stored},
    }
    work = {name: run for name, run in works[part].items() if name != "plain" or has_plain}
    if part in ("text", "image") and has_plain and blocks._ONEDNN is not None:
        work["torch"] = with_torchs_products(work["ours"])
    repeats = {name: 1 if (name == "plain" and part in ("text", "step")) or n_classes > 500 else 3 for name in work}
    found: dict[str, Any] = {"threads": torch.get_num_threads(), "peak": matrix_peak()}
    if part in ("text", "image"):
        found["operations"] = operations(with_torchs_products(work["ours"]))
    found |= measure(work, repeats, case)
    if part == "step" and n_classes == 20:
        case.model.zero_grad()
        found["differences"] = differences(case)
    return found


def evaluation(backbone: str, n_classes: int, n_rows: int) -> dict[str, Any]:
    """Stored features of random values on disk, evaluated as `sotglp evaluate --cache-dir` does."""
    case = Case(backbone, n_classes, 1)
    pixels = torch.arange(n_rows).view(-1, 1, 1, 1).expand(-1, 3, 1, 1).float().contiguous()
    images = ImageSet.from_items(pixels)
    own = case.model.backbone
    about = Views(own, images, own.preprocess).describe()
    assert about is not None
    generator = torch.Generator().manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        store = FeatureStore(Path(folder), about)
        for image in images.images:
            store.write(
                FeatureStore.key(content_digest(image), None),
                torch.randn(own.embed_dim, generator=generator),
                torch.randn(own.n_patches, own.patch_width, generator=generator),
            )
        before = _fresh_memory()
        start = time.process_time()
        predictions = predict(case.model, images, InferenceConfig(), cache_dir=Path(folder))
        taken = time.process_time() - start
        assert len(predictions.indices) == n_rows
        return {"seconds": taken, "MiB": _peak_memory() - before, "rows": n_rows}


def main() -> None:
    """Measure the rows that are missing or named, or, as a child, the one row of the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="ViT-B-16")
    parser.add_argument("--rows", nargs="+", metavar="PART[:CLASSES]", help="measure these again, as in text:20 image")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        wanted = Row(**json.loads(chosen.measure))
        measured = evaluation(chosen.backbone, wanted.classes, 5000) if wanted.part == "evaluation" else None
        print(json.dumps(measured or row(wanted, chosen.backbone)))
        return
    found = read_rows()
    vectors = torch.backends.cpu.get_cpu_capability()
    for wanted in (one._replace(vectors=vectors) for one in ROWS):
        if wanted.is_named(chosen.rows) if chosen.rows else wanted not in found:
            found[wanted] = run(wanted, chosen.backbone)
            with RESULTS.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"row": wanted._asdict(), "backbone": chosen.backbone, **found[wanted]}) + "\n")
    processors = sorted({wanted.vectors for wanted in found}, reverse=True)
    every = [wanted._replace(vectors=one) for wanted in ROWS for one in processors]
    write_report({wanted: found[wanted] for wanted in every if wanted in found}, chosen.backbone, DOCS)


def read_rows() -> dict[Row, dict[str, Any]]:
    """The rows measured so far, the last of each."""
    lines = RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.exists() else []
    return {Row(**measured.pop("row")): measured for measured in map(json.loads, lines)}


def run(wanted: Row, backbone: str) -> dict[str, Any]:
    """One row in its own process."""
    command = [sys.executable, __file__, "--backbone", backbone, "--measure", json.dumps(wanted._asdict())]
    environment = os.environ | {"OMP_NUM_THREADS": str(THREADS), "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(wanted, json.dumps(found), file=sys.stderr, flush=True)
    return found


if __name__ == "__main__":
    main()
