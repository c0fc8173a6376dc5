"""Learn, evaluate and predict with the command line, on photos that this script draws: `make demo`.

Nothing is downloaded, so the backbone has random weights: colours and textures are all that it can tell apart. The
pictures show the machinery at work, not what pretrained weights are able to.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

matplotlib.use("Agg")

SIZE = 224
BACKBONE = ["--backbone", "ViT-S-16-alt", "--pretrained", "none"]

# Random weights need longer steps than the default, which is for pretrained ones.
SETTINGS = ["--shots", "8", "--epochs", "40", "--set", "learning_rate=0.3", "--set", "augment=false"]

Pixels = NDArray[np.float64]


def stripes(rng: np.random.Generator) -> Pixels:
    """A wave in a random direction, (SIZE, SIZE), from 0 to 1."""
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    angle, phase = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
    return 0.5 + 0.5 * np.sin(40 * (x * np.cos(angle) + y * np.sin(angle)) + phase)


def dots(rng: np.random.Generator) -> Pixels:
    """Spots on a jittered grid."""
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE + rng.uniform(0, 1, (2, 1, 1))
    return ((np.sin(28 * x) * np.sin(28 * y)) > 0.3).astype(np.float64)


def plain(rng: np.random.Generator) -> Pixels:
    """A soft gradient."""
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    return np.clip(rng.uniform(0.2, 0.5) + rng.normal(0, 0.3) * x + rng.normal(0, 0.3) * y, 0, 1)


CLASSES = {
    "red_stripes": (stripes, (210, 60, 50)),
    "red_dots": (dots, (210, 60, 50)),
    "green_stripes": (stripes, (70, 170, 80)),
    "green_dots": (dots, (70, 170, 80)),
    "blue_wall": (plain, (60, 90, 200)),
}
OTHERS = {"violet_stripes": (stripes, (140, 60, 190)), "yellow_wall": (plain, (220, 200, 60))}


def photo(rng: np.random.Generator, kind: tuple[object, tuple[int, int, int]]) -> Image.Image:
    """A patch of the class's texture on a noisy grey ground."""
    texture, colour = kind
    ground = rng.normal(rng.uniform(70, 180), 18, size=(SIZE, SIZE, 1)).repeat(3, axis=2)
    weight = texture(rng)[:, :, None]  # type: ignore[operator]
    painted = weight * np.array(colour) + (1 - weight) * rng.uniform(200, 255, 3)
    top, left = rng.integers(0, SIZE // 3, 2)
    side = int(rng.integers(SIZE // 2, SIZE * 2 // 3))
    ground[top : top + side, left : left + side] = painted[top : top + side, left : left + side]
    return Image.fromarray((ground + rng.normal(0, 8, ground.shape)).clip(0, 255).astype(np.uint8))


def draw_photos(root: Path) -> None:
    """Fill train, test and others with photos, the same each time."""
    rng = np.random.default_rng(0)
    for part, kinds, count in (("train", CLASSES, 8), ("test", CLASSES, 12), ("others", OTHERS, 20)):
        for name, kind in kinds.items():
            folder = root / part / name
            folder.mkdir(parents=True, exist_ok=True)
            for index in range(count):
                photo(rng, kind).save(folder / f"{index:02}.jpg", quality=92)


def run(*arguments: object) -> None:
    """Show a command, then run it."""
    command = ["sotglp", *map(str, arguments)]
    print(f"\n$ {shlex.join(command)}", flush=True)
    subprocess.run([sys.executable, "-m", *command], check=True)


def picture_of_plan(model_file: Path, image_file: Path, target: Path) -> None:
    """Draw the support of the predicted class, and the mass that each local prompt took of its patches."""
    from matplotlib import pyplot as plt

    from sotglp import SOTGLPClassifier

    model = SOTGLPClassifier.load(model_file, device="cpu").model_
    image = Image.open(image_file)
    pixels = model.backbone.preprocess(image).unsqueeze(0)
    best = int(model.predict_proba(pixels).argmax())
    plan, support = (tensor[0, best].numpy() for tensor in model.transport(pixels))
    rows, columns = model.backbone.patch_grid
    n_prompts = plan.shape[1]
    figure, panels = plt.subplots(1, n_prompts + 2, figsize=(2.1 * (n_prompts + 2), 2.5), layout="constrained")
    panels[0].imshow(image)
    panels[0].set_title("image")
    masses = [np.full(len(support), 1 / len(support)), *(plan * n_prompts).T]
    titles = [f"support: {len(support)} of {rows * columns}", *(f"prompt {j + 1}" for j in range(n_prompts))]
    for panel, title, mass in zip(panels[1:], titles, masses, strict=True):
        grid = np.zeros(rows * columns)
        grid[support] = mass
        panel.imshow(image.convert("L"), cmap="gray", vmin=0, vmax=400)
        shown = panel.imshow(
            np.ma.masked_equal(grid.reshape(rows, columns), 0),
            extent=(0, image.width, image.height, 0),
            cmap="viridis",
            vmin=0,
            vmax=max(mass.max() for mass in masses),
            alpha=0.8,
        )
        panel.set_title(title)
    for panel in panels:
        panel.set_axis_off()
    figure.colorbar(shown, ax=panels, label="share of the prompt's mass", shrink=0.8)
    figure.suptitle(f"predicted: {model.class_names[best].replace('_', ' ')}")
    figure.savefig(target, dpi=110)
    print(f"\npicture of the transport plan: {target}")


def main() -> None:
    """Run the demonstration in a folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for photos, model and results")
    root = parser.parse_args().out
    draw_photos(root)
    model = root / "textures.safetensors"
    run("fit", root / "train", "--out", model, *BACKBONE, *SETTINGS, "--force")
    run("evaluate", model, root / "test", "--ood", root / "others", "--json", root / "result.json")
    run("predict", model, root / "test" / "green_dots" / "00.jpg", root / "others" / "yellow_wall" / "00.jpg")
    picture_of_plan(model, root / "test" / "green_dots" / "00.jpg", root / "plan.png")
    print("\nNext: sotglp fit YOUR_PHOTOS --out mine.safetensors (a folder for each class; downloads CLIP once)")


if __name__ == "__main__":
    main()
