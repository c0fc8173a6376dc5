"""SOT-GLP on one GPU: agreement with the CPU, rates and memory: `python benchmarks/gpu.py`, at most six minutes.

Random weights of ViT-B/16 and the packaged `photo`, in float32, bf16 and fp16, random images, ImageNet's first class
names. Each measurement is appended to docs/gpu.jsonl as it ends, and docs/gpu.md is written from them. Measurements
that would begin after ``--seconds`` are left out and named. ``--device cpu --dry-run`` runs all of them on the CPU
with the packaged `tiny`, a few classes and small batches: it shows that the script works and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import plain
from sotglp import SOTGLP, Backbone
from sotglp.backbone.precision import autocast, choose_device
from sotglp.features.rows import EncodedImages
from sotglp.images.image_set import ImageSet
from sotglp.methods.text_features import TextFeatures
from sotglp.scoring.evaluate import evaluate
from sotglp.settings import InferenceConfig, ModelConfig, Precision, TrainConfig
from sotglp.training.fit import adapt
from sotglp.transport.solver import sinkhorn
from speed import class_names

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from support.samples import REFERENCE_CASES, load_reference

DOCS = Path(__file__).parent.parent / "docs"
TOLERANCES: dict[Precision, float] = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 5e-2}
"""Largest relative difference from float32 on the CPU."""
PLAIN_CLASSES = 50
PUBLISHED_EPOCH = "A user's log of the published code reports 2,022 s and 8.47 GB for such an epoch."


@dataclass(frozen=True)
class Sizes:
    """What is measured: backbones, classes, images of a batch and of a class, and seconds of each rate."""

    backbones: tuple[str, ...] = ("ViT-B-16", "photo")
    classes: int = 100
    batch: int = 32
    shots: int = 16
    seconds: float = 3.0


DRY_RUN = Sizes(backbones=("tiny",), classes=3, batch=2, shots=1, seconds=0.0)
Row = dict[str, Any]


class Bench:
    """Measurements on one device; each yields rows of the table."""

    def __init__(self, device: torch.device, sizes: Sizes) -> None:
        self.device, self.sizes = device, sizes
        self._generator = torch.Generator().manual_seed(0)

    def works(self) -> Iterator[tuple[str, Callable[[], Iterator[Row]]]]:
        """Names of the measurements and their functions, the most important first."""
        yield "published numbers", self.published_numbers
        for backbone in self.sizes.backbones:
            yield f"{backbone}: encode and step", partial(self.encode_and_step, backbone)
        yield "transport", self.transport
        for backbone in self.sizes.backbones:
            yield f"{backbone}: fit and evaluate", partial(self.fit_and_evaluate, backbone)

    def published_numbers(self) -> Iterator[Row]:
        """Outputs and gradients of the two reference cases in tests/data."""
        for case in REFERENCE_CASES:
            reference = load_reference(case)
            numbers, model = reference.numbers, reference.model
            plan_on_cpu, _ = model.transport(numbers["image"])
            model.to(self.device)
            images, targets = numbers["image"].to(self.device), numbers["target"].to(self.device)
            outputs, plan = model(images), model.transport(images)[0]
            model.loss(images, targets, prompt_dropout=0.0).total.backward()
            pairs = {
                "global logits": (outputs.global_logits, numbers["global_logits"].mean(dim=-1)),
                "local logits": (outputs.local_logits, numbers["local_score_converged"]),
                "probabilities": (model.predict_proba(images), numbers["prob"]),
                "gradient of global prompts": (model.global_prompts.grad, numbers["grad_global_prompt"]),
                "gradient of local prompts": (model.local_prompts.grad, numbers["grad_local_prompts"]),
                "plan, against the CPU": (plan, plan_on_cpu),
            }
            for what, pair in pairs.items():
                yield self._agreement(case, "fp32", what, *pair)

    def encode_and_step(self, name: str) -> Iterator[Row]:
        """Images/s and steps/s of each precision with differences from the CPU, and those of the plain way."""
        backbone = Backbone.load(name)
        model = SOTGLP(backbone, class_names(self.sizes.classes), top_k=min(10, backbone.n_patches))
        images = torch.randn(self.sizes.batch, 3, *backbone.image_size, generator=self._generator)
        targets = torch.randint(self.sizes.classes, (self.sizes.batch,), generator=self._generator)
        few = images[:8]  # the CPU is slow
        with torch.no_grad():
            on_cpu = (*backbone.encode_image(few), *model.encode_text())
        model.to(self.device)
        images, few = images.to(self.device), few.to(self.device)
        stored: EncodedImages | None = None
        for precision in TOLERANCES:

            def encode(pixels: Tensor = images, precision: Precision = precision) -> tuple[Tensor, Tensor]:
                with torch.no_grad(), autocast(self.device, precision):
                    return backbone.encode_image(pixels)

            def text(precision: Precision = precision) -> TextFeatures:
                with autocast(self.device, precision):
                    return model.encode_text()

            with torch.no_grad():
                found = (*encode(few), *text())
            kinds = ("image features", "patch tokens", "global text features", "local text features")
            for what, ours, theirs in zip(kinds, found, on_cpu, strict=True):
                yield self._agreement(name, precision, what, ours, theirs)
            yield self._rate(name, precision, "encode", encode, self.sizes.batch, "images/s")
            stored = stored or EncodedImages(*encode())

            def step(text: Callable[[], TextFeatures] = text, stored: EncodedImages = stored) -> None:
                model.zero_grad()
                model.compute_loss(model.compare(stored, text()), targets).total.backward()

            yield self._rate(name, precision, "step, stored features", step, 1, "steps/s")
        if isinstance(getattr(backbone.clip, "text_projection", None), Tensor):  # plain.py reads an open_clip.CLIP
            yield from self._plain(name, model, images, targets.to(self.device))

    def _plain(self, name: str, model: SOTGLP, images: Tensor, targets: Tensor) -> Iterator[Row]:
        """The same, the plain way: 77 tokens, all patches, text in groups that fit into memory."""

        def encode() -> tuple[Tensor, Tensor]:
            return plain.image_features(model, images)

        yield self._rate(name, "fp32", "encode, plain", encode, self.sizes.batch, "images/s")
        image, patches = encode()

        def step() -> None:
            model.zero_grad()
            groups = [slice(at, at + PLAIN_CLASSES) for at in range(0, self.sizes.classes, PLAIN_CLASSES)]
            with torch.no_grad():
                parts = zip(*(plain.text_features(model, group) for group in groups), strict=True)
                leaves = [torch.cat(part).requires_grad_() for part in parts]
            plain.loss(model, plain.scores(model, image, patches, (leaves[0], leaves[1])), targets).backward()
            for group in groups:
                torch.autograd.backward(plain.text_features(model, group), [leaf.grad[group] for leaf in leaves])

        yield self._rate(name, "fp32", "step, stored features, plain", step, 1, "steps/s")

    def transport(self) -> Iterator[Row]:
        """Problems of ten patches and four prompts."""
        cost = torch.rand(self.sizes.batch, self.sizes.classes, 10, 4, generator=self._generator)
        on_cpu = sinkhorn(cost, 0.1)
        cost = cost.to(self.device)
        yield self._agreement("-", "fp32", "plan", sinkhorn(cost, 0.1), on_cpu)
        n_problems = self.sizes.batch * self.sizes.classes
        yield self._rate("-", "fp32", "transport", lambda: sinkhorn(cost, 0.1), n_problems, "problems/s")

    def fit_and_evaluate(self, name: str) -> Iterator[Row]:
        """One epoch that encodes each image again, as published, and an evaluation of its images."""
        backbone = Backbone.load(name, device=self.device)
        size, classes = backbone.image_size, class_names(self.sizes.classes)
        n_images = self.sizes.classes * self.sizes.shots
        pixels = torch.randint(256, (n_images, 3, *size), dtype=torch.uint8, generator=self._generator)
        images = ImageSet.from_items(pixels, [classes[index % len(classes)] for index in range(n_images)])
        for precision in TOLERANCES:
            training = TrainConfig(epochs=1, views=0, shots=self.sizes.shots, remember=False, precision=precision)
            config = ModelConfig(top_k=min(10, backbone.n_patches))
            fit = partial(adapt, backbone, images, config, training)
            fitted, row = self._once(name, precision, "fit, one epoch", fit)
            yield row | {"images": n_images, "classes": len(classes)}
            predict = partial(evaluate, fitted.model, images, inference=InferenceConfig(precision=precision))
            _, row = self._once(name, precision, "evaluate", predict)
            yield row | {"rate": n_images / row["seconds"], "unit": "images/s"}

    def _agreement(self, name: str, precision: Precision, what: str, ours: Tensor, theirs: Tensor) -> Row:
        ours, theirs = (tensor.detach().double().cpu() for tensor in (ours, theirs))
        difference = float((ours - theirs).norm() / theirs.norm())
        agrees = difference <= TOLERANCES[precision]
        return {"of": name, "precision": precision, "what": what, "difference": difference, "agrees": agrees}

    def _rate(
        self, name: str, precision: Precision, what: str, work: Callable[[], object], per_call: int, unit: str
    ) -> Row:
        """Repeat some work for the seconds of a rate, after one call that warms up."""
        work()
        calls, seconds = 0, 0.0
        self._reset_memory()
        while calls == 0 or seconds < self.sizes.seconds:
            seconds += self._seconds(work)
            calls += 1
        rate = {"rate": calls * per_call / seconds, "unit": unit, "GiB": self._peak_memory()}
        return {"of": name, "precision": precision, "what": what, **rate}

    def _once(self, name: str, precision: Precision, what: str, work: Callable[[], Any]) -> tuple[Any, Row]:
        results: list[Any] = []
        self._reset_memory()
        seconds = self._seconds(lambda: results.append(work()))
        row = {"of": name, "precision": precision, "what": what, "seconds": seconds, "GiB": self._peak_memory()}
        return results[0], row

    def _seconds(self, work: Callable[[], object]) -> float:
        start = time.perf_counter()
        work()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    def _reset_memory(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def _peak_memory(self) -> float | None:
        """Peak of allocated memory in GiB, weights included; None on a CPU."""
        return torch.cuda.max_memory_allocated() / 2**30 if self.device.type == "cuda" else None


def page(device: str, rows: list[Row], left_out: list[str]) -> str:
    """The page of some rows."""
    lines = [
        "# SOT-GLP on a GPU",
        "",
        f"`python benchmarks/gpu.py` wrote this page. {device}, torch {torch.__version__}.",
    ]
    lines += [f"Left out for lack of time: {', '.join(left_out)}."] if left_out else []
    lines += ["", "| backbone | precision | | rate | s | GiB |", "|---|---|---|---:|---:|---:|"]
    for row in rows:
        if "difference" not in row:
            rate = f"{row['rate']:.1f} {row['unit']}" if "rate" in row else "-"
            seconds, memory = (f"{row[key]:.2f}" if row.get(key) is not None else "-" for key in ("seconds", "GiB"))
            lines.append(f"| {row['of']} | {row['precision']} | {row['what']} | {rate} | {seconds} | {memory} |")
    fits = [row for row in rows if "images" in row]
    if fits:
        lines += ["", f"An epoch has {fits[0]['classes']} classes and {fits[0]['images']} images. {PUBLISHED_EPOCH}"]
    limits = ", ".join(f"{precision} {limit:g}" for precision, limit in TOLERANCES.items())
    lines += [
        "",
        f"Relative differences from float32 on the CPU or from the published numbers (tolerance: {limits}):",
        "",
    ]
    lines += ["| of | precision | | difference | agrees |", "|---|---|---|---:|---|"]
    for row in rows:
        if "difference" in row:
            agrees = "yes" if row["agrees"] else "NO"
            cells = (row["of"], row["precision"], row["what"], f"{row['difference']:.1e}", agrees)
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Measure, and return 1 if a difference is above its tolerance."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=330, help="no measurement begins later")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--out", type=Path, default=DOCS, help="folder of gpu.jsonl and gpu.md")
    chosen = parser.parse_args(arguments)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    device = choose_device(chosen.device)
    start, rows, left_out = time.perf_counter(), [], []
    with (chosen.out / "gpu.jsonl").open("w", encoding="utf-8") as file:
        for name, work in Bench(device, DRY_RUN if chosen.dry_run else Sizes()).works():
            if time.perf_counter() - start > chosen.seconds:
                left_out.append(name)
                continue
            for row in work():
                rows.append(row)
                file.write(json.dumps(row) + "\n")
                file.flush()
                print(row, flush=True)
    title = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    (chosen.out / "gpu.md").write_text(page(title, rows, left_out), encoding="utf-8")
    return 0 if all(row.get("agrees", True) for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
