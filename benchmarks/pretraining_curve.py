"""Draw the curve of a pretraining run: `python benchmarks/pretraining_curve.py RUN/curve.jsonl`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

TERMS = {
    "contrast": ("captions against pictures", "-"),
    "alignment": ("phrases against patches", "--"),
    "patch_attributes": ("attributes of patches", "-."),
    "picture_attributes": ("pairs in pictures", ":"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("curve", type=Path, nargs="?", default=Path("docs/pretraining_curve.jsonl"))
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/pretraining.png"))
    chosen = parser.parse_args()
    records = [json.loads(line) for line in chosen.curve.read_text().splitlines()]
    steps = [record["step"] for record in records]
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    losses, accuracy = figure.subplots(1, 2)
    for name, (label, dashes) in TERMS.items():
        losses.plot(steps, [record[name] for record in records], dashes, label=label)
    losses.set(xlabel="step", ylabel="loss", yscale="log")
    losses.legend(fontsize=8, loc="upper right", framealpha=0.6)
    losses.set_ylim(0.03, 12)
    accuracy.plot(steps, [record["zero_shot"] for record in records], color="black")
    accuracy.axhline(0.05, linestyle=":", color="grey", label="chance")
    accuracy.set(xlabel="step", ylabel="zero-shot accuracy, names of two parts", ylim=(0, 1))
    accuracy.legend(fontsize=8)
    figure.savefig(chosen.out, dpi=110)


if __name__ == "__main__":
    main()
