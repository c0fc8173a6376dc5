"""Where the time of `fit` and `fit --calibrate` goes beside logistic regression: `python benchmarks/fit_profile.py`.

One process and one thread; CPU seconds of each part of a fit with the defaults of a backbone, of a calibration on its
shots, and of scikit-learn's logistic regression on the features that open_clip's own encoder gives for the same images.
ViT-B/16 has random weights, which changes no duration.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image

import sotglp.features.views
import sotglp.training.fit
from shared_sets import model_of, settings_of
from sotglp.backbone import Backbone
from sotglp.features.view_cache import ViewCache
from sotglp.images.image_set import ImageSet
from sotglp.scoring.cross_fit import cross_fit
from sotglp.training.fit import adapt

PARTS = {
    "encode views": (sotglp.features.views, "encode_pixels"),
    "training steps": (sotglp.training.fit, "_step"),
    "residual": (sotglp.training.fit, "add_residual"),
    "memory of the shots": (sotglp.training.fit, "build_shot_memory"),
}
"""Name of each part, and the function that does it."""


class Clock:
    """CPU seconds by part; what a part calls counts for the inner part alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self._open: list[str] = []
        self._last = time.process_time()

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function whose time counts for a part."""

        def run(*arguments: Any, **options: Any) -> Any:
            self._switch()
            self._open.append(part)
            self.calls[part] += 1
            try:
                return function(*arguments, **options)
            finally:
                self._switch()
                self._open.pop()

        return run

    def _switch(self) -> None:
        now = time.process_time()
        self.seconds[self._open[-1] if self._open else ""] += now - self._last
        self._last = now

    def table(self, whole: str) -> str:
        """Rows of a table, the whole first."""
        total = self.seconds[whole] + sum(self.seconds[part] for part in PARTS)
        lines = [f"| {whole}, total | | {total:.1f} |"]
        lines += [f"| - {part} | {self.calls[part]} | {self.seconds[part]:.1f} |" for part in PARTS]
        return "\n".join([*lines, f"| - the rest | | {self.seconds[whole]:.1f} |"])


def measured(whole: str, run: Callable[[], Any]) -> Any:
    """Run something and print the CPU seconds of its parts."""
    clock = Clock()
    with ExitStack() as patches:
        for part, (at, name) in PARTS.items():
            patches.enter_context(mock.patch.object(at, name, clock.timed(part, getattr(at, name))))
        result = clock.timed(whole, run)()
    print(clock.table(whole), flush=True)
    return result


def regression(backbone: Backbone, images: ImageSet) -> None:
    """Print the CPU seconds of a logistic regression, encoding included."""
    from sklearn.linear_model import LogisticRegression

    start = time.process_time()
    with torch.no_grad():
        pixels = [backbone.preprocess(Image.open(str(path)).convert("RGB")) for path in images.images]
        features = torch.nn.functional.normalize(backbone.clip.encode_image(torch.stack(pixels)), dim=-1).numpy()
    encoded = time.process_time()
    LogisticRegression(C=10, max_iter=1000).fit(features, images.labels)
    print(f"| logistic regression, total | | {time.process_time() - start:.1f} |")
    print(f"| - encode {len(images)} images, open_clip alone | 1 | {encoded - start:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--backbone", default="ViT-B-16")
    parser.add_argument("--classes", type=int, default=5)
    parser.add_argument("--shots", type=int, default=4)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    backbone = Backbone.load(chosen.backbone, "auto" if chosen.backbone == "photo" else None)
    images = ImageSet.from_path(chosen.data / "flowers102/train")
    classes = images.classes[: chosen.classes]
    images = images.take(np.array([label in classes for label in images.labels or ()]))
    config = settings_of(backbone, 1).model_copy(update={"shots": chosen.shots})
    cache = ViewCache()
    print("| part | calls | CPU s |\n|---|---:|---:|")
    fitted = measured("fit", lambda: adapt(backbone, images, model_of(backbone), config, cache_dir=cache))
    inference = config.inference_config()
    measured("calibration", lambda: cross_fit(fitted.model, fitted.images, config, inference, cache_dir=cache))
    regression(backbone, fitted.images)


if __name__ == "__main__":
    main()
