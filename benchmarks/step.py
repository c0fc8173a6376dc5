"""Where the time of a training step and of encoding goes: `python benchmarks/step.py --backbone ViT-B-16`.

Prints a Markdown table of medians. Beside our parts stands the plain way of computing the same, where there is one:
open_clip's own image encoding without patch tokens, and text of all 77 tokens. Weights and inputs are random.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import open_clip
import torch
from torch import Tensor

from sotglp import SOTGLP, Backbone
from sotglp.model import TextFeatures


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median time of some work, after one run to warm up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def step_account(backbone: Backbone, n_classes: int, batch: int, repeats: int) -> list[tuple[str, float, float | None]]:
    """Rows of (part, our seconds, plain seconds)."""
    model = SOTGLP(backbone, [f"class number {index}" for index in range(n_classes)])
    images = torch.randn(batch, 3, *backbone.image_size)
    targets = torch.arange(batch) % n_classes
    with torch.no_grad():
        features = backbone.encode_image(images)
        text = model.encode_text()

    def whole_text() -> None:
        """All 77 positions of as many sequences, forward and backward to their embeddings."""
        n_sequences = n_classes * (model.config.n_global_prompts + model.config.n_local_prompts)
        embeddings = torch.randn(n_sequences, backbone.text.context_length, backbone.text.width, requires_grad=True)
        backbone.text.encode(embeddings[0, :1], embeddings[:, 1:], torch.full((n_sequences,), 9)).sum().backward()

    def our_text() -> None:
        found = model.encode_text()
        (found.global_.sum() + found.local.sum()).backward()

    def head() -> None:
        leaves = TextFeatures(*(part.detach().requires_grad_() for part in text))
        model.judge(model.compare(*features, leaves, prompt_dropout=0.75), targets).total.backward()

    def no_grad(work: Callable[[], object]) -> Callable[[], object]:
        return torch.no_grad()(work)

    def step(encoded: Callable[[], tuple[Tensor, Tensor]]) -> None:
        outputs = model.compare(*encoded(), model.encode_text(), prompt_dropout=0.75)
        model.judge(outputs, targets).total.backward()

    encode = no_grad(lambda: backbone.encode_image(images))
    return [
        (
            f"image features and patch tokens, {batch} images",
            seconds(encode, repeats),
            seconds(no_grad(lambda: backbone.clip.encode_image(images)), repeats),
        ),
        (f"text forward and backward, {n_classes} classes", seconds(our_text, repeats), seconds(whole_text, 1)),
        ("heads, loss and transport, forward and backward", seconds(head, repeats), None),
        ("whole step, stored views", seconds(lambda: step(lambda: features), repeats), None),
        ("whole step, images encoded anew", seconds(lambda: step(encode), repeats), None),  # type: ignore[arg-type]
        (
            "encoding of 100 images",
            seconds(encode, repeats) * 100 / batch,
            None,
        ),
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="ViT-B-16")
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    backbone = Backbone.load(chosen.backbone)
    rows = step_account(backbone, chosen.classes, chosen.batch, chosen.repeats)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{chosen.backbone}, random weights, {torch.get_num_threads()} threads, torch {torch.__version__}, ", end="")
    print(f"open_clip {open_clip.__version__}, peak memory {memory:.1f} GiB\n")
    print("| part | seconds | plain way | ratio |\n|---|---|---|---|")
    for part, ours, plain in rows:
        beside = f"{plain:.2f} | {plain / ours:.2f}" if plain else "- | -"
        print(f"| {part} | {ours:.2f} | {beside} |")


if __name__ == "__main__":
    main()
