"""What a user would do without sotglp, beside benchmarks/user_times.py: logistic regression on a tower's features.

`weights FILE` writes random weights of ViT-B/16; `sklearn BACKBONE fit|predict FOLDER FILE [WEIGHTS]` trains on class
folders or predicts; `tower BACKBONE [WEIGHTS]` prints the images a second of the tower alone.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from user_times_page import VIT


def load_tower(backbone: str, weights: str | None) -> tuple[Any, Any]:
    """The tower as a module of open_clip, and its preprocessing."""
    import open_clip

    if backbone == VIT:
        clip, _, preprocess = open_clip.create_model_and_transforms(VIT, pretrained=weights, load_weights=True)
        return clip.eval(), preprocess
    from sotglp import Backbone

    loaded = Backbone.load(backbone)
    return loaded.clip, loaded.preprocess


def make_weights(file: str) -> None:
    """Write random weights of ViT-B/16."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    clip = open_clip.create_model(VIT, pretrained=None)
    save_file({name: value.contiguous() for name, value in clip.state_dict().items()}, file)


def logistic(backbone: str, task: str, folder: str, file: str, weights: str | None = None) -> None:
    """Encode a folder, and train scikit-learn's logistic regression on it or predict with it."""
    import joblib
    import torch
    from PIL import Image
    from sklearn.linear_model import LogisticRegression

    clip, preprocess = load_tower(backbone, weights)
    paths = sorted(Path(folder).rglob("*.jpg"))
    features = []
    with torch.no_grad():
        for start in range(0, len(paths), 32):
            pixels = [preprocess(Image.open(path).convert("RGB")) for path in paths[start : start + 32]]
            features.append(torch.nn.functional.normalize(clip.encode_image(torch.stack(pixels)), dim=-1))
    rows = torch.cat(features).numpy()
    if task == "fit":
        joblib.dump(LogisticRegression(C=10, max_iter=1000).fit(rows, [path.parent.name for path in paths]), file)
    else:
        print(joblib.load(file).predict(rows)[:3])


def tower(backbone: str, weights: str | None = None) -> None:
    """Print the images a second of the tower alone, on pixels in memory."""
    import torch

    clip, _ = load_tower(backbone, weights)
    n_batches = 10 if backbone == "photo" else 1
    pixels = torch.randn(32, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        clip.encode_image(pixels[:2])
        start = time.perf_counter()
        for _ in range(n_batches):
            clip.encode_image(pixels)
        print(n_batches * len(pixels) / (time.perf_counter() - start))


if __name__ == "__main__":
    {"weights": make_weights, "sklearn": logistic, "tower": tower}[sys.argv[1]](*sys.argv[2:])
