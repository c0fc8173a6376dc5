"""The one fit loop: prompts and projection learned by SGD on a frozen backbone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sotglp.arithmetic import autocast, half_dtype
from sotglp.backbone import Backbone
from sotglp.checkpoint import Checkpoint, run_identity
from sotglp.config import ModelConfig, TrainConfig
from sotglp.dataset import ImageSet
from sotglp.encoding import Batch, FeatureBank, encode_batches, encode_views, training_views
from sotglp.errors import SotglpError
from sotglp.images import UnreadableImageError, open_image
from sotglp.model import SOTGLP, Loss
from sotglp.progress import progress_bar
from sotglp.shots import draw_shots
from sotglp.text_features import TextFeatures

# Streams of random numbers, so that no draw depends on how many another one made.
_ORDER, _VIEW, _DROPOUT = range(3)

History = list[dict[str, float]]
"""``epoch``, ``loss``, ``loss_global``, ``loss_local``, ``accuracy`` and ``learning_rate`` of each epoch."""


@dataclass(frozen=True)
class Fitted:
    """A trained model, its history, and the images that it saw."""

    model: SOTGLP
    history: History
    images: ImageSet


def adapt(
    backbone: Backbone,
    images: ImageSet,
    model_config: ModelConfig,
    config: TrainConfig,
    *,
    classes: Sequence[str] | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    unreadable: list[UnreadableImageError] | None = None,
    show_progress: bool = False,
) -> Fitted:
    """Draw shots from labelled images and learn a model on them.

    Parameters
    ----------
    backbone : Backbone
        Frozen model to adapt.
    images : ImageSet
        Labelled images.
    model_config : ModelConfig
        Settings of the model.
    config : TrainConfig
        Settings of the run.
    classes : sequence of str or None
        Class names in the model's order; None takes the labels, sorted.
    checkpoint : Path or None
        Where the state after each epoch is kept.
    resume : bool, default False
        Go on from ``checkpoint``, if it is there.
    unreadable : list or None
        Collects drawn images that can't be decoded, which are then left out; None raises at the first.
    show_progress : bool, default False
        Show progress bars on a terminal.

    Raises
    ------
    SotglpError
        If images, classes or settings can't be used, or the loss stops being a number.

    References
    ----------
    SOT-GLP, arXiv 2603.08347, implementation details.
    """
    if images.labels is None:
        raise SotglpError("training needs labelled images: a folder for each class, or a manifest with a label column")
    model = SOTGLP(backbone, classes or images.classes, **model_config.model_dump(), seed=config.seed)
    if config.shots is not None:
        images = images.take(draw_shots(images.labels, config.shots, config.seed, draw=config.draw))
    images = _readable(images, unreadable)
    kept = Checkpoint(checkpoint, run_identity(model, images, config)) if checkpoint else None
    history = train(model, images, config, checkpoint=kept, resume=resume, show_progress=show_progress)
    return Fitted(model.eval(), history, images)


def train(
    model: SOTGLP,
    images: ImageSet,
    config: TrainConfig,
    *,
    checkpoint: Checkpoint | None = None,
    resume: bool = False,
    show_progress: bool = False,
) -> History:
    """Train a model's prompts and projection in place; see :func:`adapt`."""
    targets = torch.from_numpy(images.targets(model.class_names))
    optimizer = torch.optim.SGD(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )
    device = model.backbone.device
    scaler = torch.amp.GradScaler(device.type, enabled=half_dtype(device, config.precision) is torch.float16)
    history = checkpoint.read(model, optimizer, scaler) if checkpoint and resume else []
    source = FeatureSource(model.backbone, images, config, show_progress=show_progress)
    steps = len(images) // min(config.batch_size, len(images))
    epochs = config.n_epochs(len(images))
    model.train()
    with progress_bar("training", epochs * steps, "steps", show=show_progress) as advance:
        advance(len(history) * steps, "")
        for epoch in range(len(history), epochs):
            rate = config.learning_rate * (1 + math.cos(math.pi * epoch / epochs)) / 2
            for group in optimizer.param_groups:
                group["lr"] = rate
            tally = np.zeros(4)  # loss, global loss, local loss, right answers; summed over images
            n_seen = 0
            for step, parts in enumerate(source.steps(epoch)):
                generator = torch.Generator().manual_seed(_number(config.seed, _DROPOUT, epoch, step))
                try:
                    tally += _step(model, optimizer, scaler, parts, targets, config, generator)
                except SotglpError as error:  # transport refuses costs that are not numbers
                    raise _diverged(epoch, step, config) from error
                n_seen += sum(len(indices) for indices, _, _ in parts)
                loss, accuracy = tally[0] / n_seen, tally[3] / n_seen
                if not (math.isfinite(loss) and _is_finite(model)):
                    raise _diverged(epoch, step, config)
                advance(1, f"loss {loss:.3f}  accuracy {accuracy:.3f}")
            mean = dict(zip(("loss", "loss_global", "loss_local", "accuracy"), (tally / n_seen).tolist(), strict=True))
            history.append({"epoch": epoch + 1, **mean, "learning_rate": rate})
            if checkpoint:
                checkpoint.write(model, optimizer, scaler, history)
    return history


def _step(
    model: SOTGLP,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    parts: list[Batch],
    targets: Tensor,
    config: TrainConfig,
    generator: torch.Generator,
) -> NDArray[np.float64]:
    """One step of SGD on a batch in parts; returns losses and right answers, summed over its images."""
    optimizer.zero_grad()
    device = model.backbone.device
    with autocast(device, config.precision):
        text = model.encode_text()
    # Text is encoded once for all parts: they add up gradients at its features, which then go back through it once.
    leaves = TextFeatures(*(features.detach().requires_grad_() for features in text))
    batch_size = sum(len(indices) for indices, _, _ in parts)
    tally = np.zeros(4)
    for indices, image_features, patch_tokens in parts:
        part_targets = targets[indices].to(device)
        outputs = model.compare(
            image_features.to(device),
            patch_tokens.to(device),
            leaves,
            prompt_dropout=config.prompt_dropout,
            generator=generator,
        )
        loss = model.judge(outputs, part_targets)
        scaler.scale(loss.total * (len(indices) / batch_size)).backward()
        tally += len(indices) * np.array([loss.total.item(), loss.global_.item(), loss.local.item(), 0.0])
        tally[3] += _n_right(model, loss, part_targets)
    torch.autograd.backward(list(text), [leaf.grad for leaf in leaves])
    scaler.step(optimizer)
    scaler.update()
    return tally


@torch.no_grad()
def _n_right(model: SOTGLP, loss: Loss, targets: Tensor) -> int:
    return int((model.probabilities(loss.outputs).argmax(dim=-1) == targets).sum())


class FeatureSource:
    """Encoded images of each training step, from stored views or encoded as they are needed."""

    def __init__(self, backbone: Backbone, images: ImageSet, config: TrainConfig, *, show_progress: bool) -> None:
        self.backbone = backbone
        self.images = images
        self.config = config
        is_stored = config.views > 0 or not config.augment
        self.bank: FeatureBank | None = (
            encode_views(backbone, images, config, show_progress=show_progress) if is_stored else None
        )

    def steps(self, epoch: int) -> Iterator[list[Batch]]:
        """The steps of an epoch, each a batch in parts of at most ``micro_batch`` images."""
        batches = epoch_batches(len(self.images), self.config, epoch)
        size = self.config.micro_batch or self.config.batch_size
        parts = [[batch[start : start + size] for start in range(0, len(batch), size)] for batch in batches]
        flat = [part for batch in parts for part in batch]
        encoded = self._encode(flat, epoch) if self.bank is None else self._look_up(self.bank, flat, epoch)
        for batch in parts:
            yield [next(encoded) for _ in batch]

    def _encode(self, batches: list[NDArray[np.int64]], epoch: int) -> Iterator[Batch]:
        config = self.config
        return encode_batches(
            self.backbone,
            self.images,
            training_views(self.backbone, config),
            batches,
            precision=config.precision,
            workers=config.workers,
            seed=config.seed,
            epoch=epoch,
        )

    def _look_up(self, bank: FeatureBank, batches: list[NDArray[np.int64]], epoch: int) -> Iterator[Batch]:
        rng = np.random.default_rng([self.config.seed, _VIEW, epoch])
        view_of = rng.integers(len(bank.image_features), size=len(self.images))
        for batch in batches:
            views = view_of[batch]
            yield batch, bank.image_features[views, batch], bank.patch_tokens[views, batch]


def epoch_batches(n_images: int, config: TrainConfig, epoch: int) -> list[NDArray[np.int64]]:
    """Shuffled batches of an epoch; the last incomplete one is dropped, as published, unless it is the only one."""
    order = np.random.default_rng([config.seed, _ORDER, epoch]).permutation(n_images)
    size = min(config.batch_size, n_images)
    return [order[start : start + size] for start in range(0, n_images - size + 1, size)]


def _number(*key: int) -> int:
    """A seed of its own for each key."""
    return int(np.random.SeedSequence(key).generate_state(1)[0])


def _readable(images: ImageSet, unreadable: list[UnreadableImageError] | None) -> ImageSet:
    """The images that can be decoded; better to find the others before an hour of training than in it."""

    def problem(index: int) -> UnreadableImageError | None:
        source = images.images[index]
        if isinstance(source, Tensor):
            return None
        try:
            open_image(source)
        except UnreadableImageError as error:
            return UnreadableImageError(images.name(index), error.reason)
        return None

    with ThreadPoolExecutor() as pool:
        problems = list(pool.map(problem, range(len(images))))
    found = [error for error in problems if error is not None]
    if not found:
        return images
    if unreadable is None:
        raise found[0]
    unreadable.extend(found)
    good = [index for index, error in enumerate(problems) if error is None]
    rest = images.take(good)
    lost = sorted(set(images.classes) - set(rest.classes))
    if lost:
        raise SotglpError(f"no image of the class {lost[0]!r} can be read: put readable images in or remove the class")
    return rest


def _is_finite(model: SOTGLP) -> bool:
    """Whether the step left numbers in everything learned; its loss tells only of the step before."""
    return all(bool(parameter.isfinite().all()) for parameter in model.parameters() if parameter.requires_grad)


def _diverged(epoch: int, step: int, config: TrainConfig) -> SotglpError:
    return SotglpError(
        f"training stopped at epoch {epoch + 1}, step {step + 1}, since its numbers went beyond all bounds: lower the "
        f"learning rate (now {config.learning_rate}) or use precision fp32"
    )
