"""Train the embedded model `tiny` from scratch: `python -m pretraining.painted.pretrain --out FOLDER`."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip import CLIP
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from pretraining.painted.captions import vocabulary
from pretraining.painted.loss import AttributeHeads, encode_texts, pretraining_loss
from pretraining.run_folder import (
    check_recipe,
    pack_state,
    read_curve,
    restore_state,
    write_tensors,
    write_text,
)
from sotglp.backbone.tiny import CONFIG, FILE, build_tiny, pack
from sotglp.backbone.vit import encode_vit
from sotglp.console.progress import progress_bar
from sotglp.demo.task import contains_class, draw_class_pictures, few_shot_task
from sotglp.demo.world import MOST_PARTS, NO_PART, Parts, Pictures, draw_parts, paint
from sotglp.errors import SotglpError
from sotglp.files.atomic import check_output

SAVE_EVERY = 50
TEST_EVERY = 100


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of pretraining.

    Attributes
    ----------
    steps : int
        Number of AdamW steps.
    batch_size : int
        Pictures per step.
    learning_rate, weight_decay : float
        Of AdamW; the learning rate is warmed up over ``warm_up`` steps, then follows a cosine.
    single_parts : float
        Fraction of the steps, at the start, in which a picture has at most one part.
    pool_size : int
        Half of each batch draws its parts from a pool of this size, which makes captions similar (hard negatives).
    seed : int
        Seed of weights, pictures and captions.
    """

    steps: int = 2400
    batch_size: int = 128
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    warm_up: int = 100
    single_parts: float = 0.15
    pool_size: int = 10
    seed: int = 1


class Pretraining:
    """A pretraining run that can be saved and resumed.

    Parameters
    ----------
    recipe : Recipe
        Hyperparameters.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.step = 0
        self.clip: CLIP = build_tiny(recipe.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.heads = AttributeHeads(CONFIG["vision_cfg"]["width"], CONFIG["embed_dim"])
        self._parameters = [*self.clip.parameters(), *self.heads.parameters()]
        matrices = [parameter for parameter in self._parameters if parameter.ndim > 1]
        vectors = [parameter for parameter in self._parameters if parameter.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
            lr=recipe.learning_rate,
            betas=(0.9, 0.98),
        )

    def run(self, until: int | None = None) -> Iterator[dict[str, float]]:
        """Train up to step ``until`` (default: the recipe's last), yielding the losses of each step."""
        last = self.recipe.steps if until is None else until
        while self.step < last:
            for group in self.optimizer.param_groups:
                group["lr"] = self._learning_rate()
            rng = np.random.default_rng([self.recipe.seed, self.step])
            pictures = paint(self._draw(rng), rng)
            loss = pretraining_loss(self.clip, self.heads, pictures, as_pixels(pictures.images), rng)
            self.optimizer.zero_grad()
            loss.total.backward()
            nn.utils.clip_grad_norm_(self._parameters, 1.0)
            self.optimizer.step()
            with torch.no_grad():
                self.clip.logit_scale.clamp_(0, math.log(100))
            self.step += 1
            yield {"step": self.step, **{name: float(value.detach()) for name, value in loss._asdict().items()}}

    def state(self) -> dict[str, Tensor]:
        """Return everything needed to resume, as copied tensors by name."""
        return pack_state({"clip": self.clip, "heads": self.heads}, self.optimizer, self.step)

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Resume from the tensors that :meth:`state` returned.

        Raises
        ------
        SotglpError
            If the tensors are not a state of this run.
        """
        if misfits := self._misfits(tensors):
            raise SotglpError(f"{len(misfits)} tensors are missing, unknown or of another shape, such as {misfits[0]}")
        self.step = restore_state({"clip": self.clip, "heads": self.heads}, self.optimizer, tensors)

    def _misfits(self, tensors: dict[str, Tensor]) -> list[str]:
        """Names of tensors that are missing, unknown or have another shape than in :meth:`state`."""
        wanted = {f"clip.{name}": tensor.shape for name, tensor in self.clip.state_dict().items()}
        wanted |= {f"heads.{name}": tensor.shape for name, tensor in self.heads.state_dict().items()}
        wanted["step"] = torch.Size()
        is_begun = "step" not in tensors or bool(tensors["step"].any())
        parameters = [one for group in self.optimizer.param_groups for one in group["params"]] if is_begun else []
        for i, parameter in enumerate(parameters):
            wanted |= {f"adam.{i}.exp_avg": parameter.shape, f"adam.{i}.exp_avg_sq": parameter.shape}
            wanted[f"adam.{i}.step"] = torch.Size()
        found = {name: tensor.shape for name, tensor in tensors.items()}
        return sorted(name for name in wanted | found if wanted.get(name) != found.get(name))

    def _learning_rate(self) -> float:
        recipe = self.recipe
        warm = min(1.0, (self.step + 1) / recipe.warm_up)
        return recipe.learning_rate * warm * (0.5 + 0.5 * math.cos(math.pi * self.step / recipe.steps))

    def _draw(self, rng: np.random.Generator) -> Parts:
        """Draw the parts of one batch: at first at most one, later up to four, never those of a class of the task."""
        recipe = self.recipe
        if self.step < recipe.single_parts * recipe.steps:
            return draw_parts(recipe.batch_size, rng, fewest=0, most=1)
        half = recipe.batch_size // 2
        pool = draw_parts(recipe.pool_size, rng, fewest=1, most=1)[:, 0]
        parts = np.concatenate(
            [
                draw_parts(recipe.batch_size - half, rng, fewest=0, most=MOST_PARTS),
                draw_parts(half, rng, fewest=1, most=MOST_PARTS, pool=np.unique(pool, axis=0)),
            ]
        )
        while (forbidden := contains_class(parts)).any():
            parts[forbidden, rng.integers(MOST_PARTS)] = NO_PART
        return parts


def as_pixels(images: NDArray[np.uint8]) -> Tensor:
    """Preprocess painted images (n, SIZE, SIZE, 3) into normalised pixels (n, 3, SIZE, SIZE)."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))
    return ((pixels - mean) / deviation).contiguous()


@torch.no_grad()
def zero_shot_accuracy(clip: CLIP, pictures: Pictures, targets: NDArray[np.int64]) -> float:
    """Compute the zero-shot accuracy on pictures of the task's classes."""
    names = [f"a photo of a {name}" for name in few_shot_task().names]
    text = F.normalize(encode_texts(clip, names), dim=-1)
    image = F.normalize(encode_vit(clip.visual, as_pixels(pictures.images))[0], dim=-1)
    return float(((image @ text.T).argmax(dim=-1).numpy() == targets).mean())


def pretrain(out: Path, recipe: Recipe, *, show_progress: bool = True) -> CLIP:
    """Train in a folder, or resume the run in it.

    ``curve.jsonl`` and ``state.safetensors`` are updated during the run; ``tiny.safetensors``, written at the end, is
    the file that ships with sotglp.

    Parameters
    ----------
    out : Path
        Folder of the run.
    recipe : Recipe
        Hyperparameters.
    show_progress : bool, default True
        Show a progress bar on a terminal.

    Raises
    ------
    SotglpError
        If the folder can't be written, or contains a damaged run or a run of another recipe.
    """
    state_file, curve_file = out / "state.safetensors", out / "curve.jsonl"
    check_output(state_file, force=True)
    check_recipe(out / "recipe.json", recipe, is_begun=state_file.exists())
    run = Pretraining(recipe)
    curve: list[dict[str, float]] = []
    if state_file.exists():
        _restore(run, state_file)
        curve = [one for one in read_curve(curve_file) if one["step"] <= run.step]
    before = curve[-1]["seconds"] if curve else 0.0
    started = time.monotonic()
    test_pictures, test_targets = draw_class_pictures(20, seed=0)
    with progress_bar("pretraining", recipe.steps - run.step, "steps", show=show_progress) as advance:
        for record in run.run():
            if run.step % TEST_EVERY == 0 or run.step == recipe.steps:
                accuracy = zero_shot_accuracy(run.clip, test_pictures, test_targets)
                curve.append({**record, "zero_shot": accuracy, "seconds": before + time.monotonic() - started})
            if run.step % SAVE_EVERY == 0 or run.step == recipe.steps:
                # The curve first: entries later than the state are dropped on resuming.
                write_text(curve_file, "".join(json.dumps(one) + "\n" for one in curve))
                write_tensors(state_file, run.state())
            advance(1, f"loss {record['total']:.2f}")
    write_tensors(out / FILE, pack(run.clip.state_dict(), vocabulary()))
    return run.clip


def _restore(run: Pretraining, path: Path) -> None:
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise SotglpError(f"{path} can't be read ({error}): choose another folder, or delete it to restart") from error
    try:
        run.restore(tensors)
    except SotglpError as error:
        raise SotglpError(f"{path} is not a state of this run ({error}): choose another folder") from error


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run, resumed if interrupted")
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    chosen = parser.parse_args()
    try:
        pretrain(chosen.out, Recipe(steps=chosen.steps, seed=chosen.seed))
    except SotglpError as error:
        parser.exit(2, f"pretrain: error: {error}\n")


if __name__ == "__main__":
    main()
