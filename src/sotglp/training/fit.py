"""The fit loop of all methods: SGD or AdamW on a frozen backbone, in one or several processes."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sotglp.backbone import Backbone
from sotglp.backbone.precision import autocast, half_dtype
from sotglp.console.progress import progress_bar
from sotglp.errors import DivergedError, SotglpError, UnreadableImageError
from sotglp.features.distributed import Processes
from sotglp.features.encode import encode_image_features
from sotglp.features.view_cache import CacheDir, ViewCache
from sotglp.images.check import readable_images
from sotglp.images.few_shot import draw_shots
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel, Loss
from sotglp.methods.fused_model import FusedModel
from sotglp.methods.registry import build_model
from sotglp.methods.shot_features import build_shot_memory
from sotglp.methods.text_features import TextFeatures
from sotglp.settings import Settings, TrainConfig
from sotglp.training.batches import DROPOUT_STREAM, FeatureSource, StepBatch
from sotglp.training.callbacks import EpochResult, TrainingCallback, reporting
from sotglp.training.checkpoint import Checkpoint, run_identity
from sotglp.training.fusion import add_residual
from sotglp.transport.solver import NonFiniteCostError

History = list[dict[str, float]]
"""``epoch``, ``loss``, ``loss_global``, ``loss_local``, ``accuracy`` and ``learning_rate`` of each epoch."""


@dataclass(frozen=True)
class Fitted:
    """A trained model, its history and its training images."""

    model: AdaptedModel
    history: History
    images: ImageSet


def adapt(
    backbone: Backbone,
    images: ImageSet,
    model_config: Settings,
    config: TrainConfig,
    *,
    classes: Sequence[str] | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    cache_dir: CacheDir = None,
    unreadable: list[UnreadableImageError] | None = None,
    show_progress: bool = False,
    title: str = "training",
    callbacks: Sequence[TrainingCallback] = (),
) -> Fitted:
    """Draw shots from labelled images and fit a model on them.

    Parameters
    ----------
    backbone : Backbone
        Frozen model to adapt.
    images : ImageSet
        Labelled images.
    model_config : Settings
        Settings of the model, whose class determines the kind of model.
    config : TrainConfig
        Settings of the run.
    classes : sequence of str or None
        Class names in the model's order; None uses the sorted labels.
    checkpoint : Path or None
        File that stores the state after each epoch.
    resume : bool, default False
        Resume from ``checkpoint`` if it exists.
    cache_dir : Path, ViewCache or None
        Folder of the feature cache, or a cache that other fits on these images share; None keeps features in memory.
    unreadable : list or None
        Collects drawn images that can't be decoded, which are skipped; None raises at the first.
    show_progress : bool, default False
        Show progress bars on a terminal.
    title : str
        Title of the progress bar.
    callbacks : sequence of TrainingCallback
        Told the result of each epoch; see :mod:`sotglp.training.trackers`.

    Raises
    ------
    SotglpError
        If images, classes or settings are invalid, or training diverges.

    References
    ----------
    SOT-GLP, arXiv 2603.08347, implementation details.
    """
    if images.labels is None:
        raise SotglpError("training needs labelled images: a folder for each class, or a manifest with a label column")
    model = build_model(backbone, classes or images.classes, model_config, config.seed)
    images = readable_images(drawn_shots(images, config), unreadable)
    model.value_ranges = images.ranges
    cache = ViewCache.of(cache_dir)
    kept = Checkpoint(checkpoint, run_identity(model, images, config)) if checkpoint else None
    if not Processes(backbone.device).is_first:
        callbacks = ()
    settings = {"method": model.kind, "backbone": backbone.name, "classes": len(model.class_names)}
    settings |= {"images": len(images), **model_config.model_dump(), **config.model_dump()}
    with reporting(callbacks, settings):
        history = train(
            model,
            images,
            config,
            checkpoint=kept,
            resume=resume,
            cache_dir=cache,
            show_progress=show_progress,
            title=title,
            callbacks=callbacks,
        )
    if isinstance(model, FusedModel) and model.config.residual is not None:
        add_residual(model, images, config.inference_config(), cache_dir=cache)
    if config.remember:
        model.shots = build_shot_memory(model, images, config.inference_config(), cache_dir=cache)
    return Fitted(model.eval(), history, images)


def drawn_shots(images: ImageSet, config: TrainConfig) -> ImageSet:
    """Draw the training images of a run; all of them if ``shots`` is None."""
    if config.shots is None:
        return images
    return images.take(draw_shots(images.labels or (), config.shots, config.seed, draw=config.draw))


def train(
    model: AdaptedModel,
    images: ImageSet,
    config: TrainConfig,
    *,
    checkpoint: Checkpoint | None = None,
    resume: bool = False,
    cache_dir: CacheDir = None,
    show_progress: bool = False,
    title: str = "training",
    callbacks: Sequence[TrainingCallback] = (),
) -> History:
    """Train a model in place and return its history, which is empty if it has no learnable parameters.

    Arguments are those of :func:`adapt`. If several processes were launched, each encodes its share of the images and
    of the classes, and all end with the same model: that of a single process, up to rounding.
    """
    targets = torch.from_numpy(images.targets(model.class_names))
    if model.needs_shot_features:
        features = encode_image_features(model.backbone, images, config.inference_config(), cache_dir)
        model.fit_features(features, targets)
    if not model.learned:
        return []
    model.check_training(config)
    optimizer = _optimizer(model, config)
    device = model.backbone.device
    processes = Processes(device)
    show_progress = show_progress and processes.is_first
    scaler = torch.amp.GradScaler(device.type, enabled=half_dtype(device, config.precision) is torch.float16)
    history = checkpoint.read(model, optimizer, scaler) if checkpoint and resume else []
    processes.wait()  # before any process writes a newer checkpoint
    steps = config.steps_per_epoch(len(images))
    epochs = config.n_epochs(len(images))
    if len(history) == epochs:
        return history
    source = FeatureSource(model, images, config, processes, cache_dir=cache_dir, show_progress=show_progress)
    model.train()
    with progress_bar(title, epochs * steps, "steps", show=show_progress) as advance:
        advance(len(history) * steps, "")
        for epoch in range(len(history), epochs):
            began = time.perf_counter()
            rate = config.rate(epoch, epochs)
            for group in optimizer.param_groups:
                group["lr"] = rate
            tally = np.zeros(4)  # loss, global loss, local loss, correct predictions; summed over images
            n_seen = 0
            for step, batch in enumerate(source.steps(epoch)):
                generator = torch.Generator().manual_seed(_seed(config.seed, DROPOUT_STREAM, epoch, step))
                try:
                    tally += _step(model, optimizer, scaler, batch, targets, config, processes, generator)
                except NonFiniteCostError as error:
                    raise _diverged(epoch, step, config) from error
                n_seen += batch.size
                loss, accuracy = tally[0] / n_seen, tally[3] / n_seen
                if not (math.isfinite(loss) and _is_finite(model)):
                    raise _diverged(epoch, step, config)
                advance(1, f"loss {loss:.3f}  accuracy {accuracy:.3f}")
            mean = dict(zip(("loss", "loss_global", "loss_local", "accuracy"), (tally / n_seen).tolist(), strict=True))
            history.append({"epoch": epoch + 1, **mean, "learning_rate": rate})
            if checkpoint and processes.is_first:
                checkpoint.write(model, optimizer, scaler, history)
            seconds = time.perf_counter() - began
            for callback in callbacks:
                callback.on_epoch_end(EpochResult(epoch + 1, epochs, **mean, learning_rate=rate, seconds=seconds))
    return history


def _optimizer(model: AdaptedModel, config: TrainConfig) -> torch.optim.Optimizer:
    learned, rate, decay = model.learned, config.learning_rate, config.weight_decay
    if config.optimizer == "adam":
        return torch.optim.Adam(learned, lr=rate, weight_decay=decay)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(learned, lr=rate, weight_decay=decay)
    return torch.optim.SGD(learned, lr=rate, momentum=config.momentum, weight_decay=decay)


def _step(
    model: AdaptedModel,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    batch: StepBatch,
    targets: Tensor,
    config: TrainConfig,
    processes: Processes,
    generator: torch.Generator,
) -> NDArray[np.float64]:
    """Take one step and return losses and correct predictions, summed over the images of all processes."""
    optimizer.zero_grad()
    device = model.backbone.device
    classes = processes.share(range(len(model.class_names)))
    model.begin_step(generator.initial_seed())
    with autocast(device, config.precision):
        text = model.encode_text(classes or [0])
    if not classes:  # more processes than classes: no rows, which still take part in all sums
        text = TextFeatures(*(part[:0] for part in text))
    # Text is encoded once for all parts of the batch, each class by one process. Parts accumulate gradients at the text
    # features, which are then propagated to the prompts once.
    leaves = _gather(text, classes, len(model.class_names), processes)
    drawn = model.draw_prompts(batch.size, config.prompt_dropout, generator)
    tally = torch.zeros(4, dtype=torch.float64)
    for rows, (indices, encoded) in zip(batch.rows, batch.parts, strict=True):
        part_targets = targets[indices].to(device)
        outputs = model.compare(
            encoded.to(device), leaves, drawn_prompts=None if drawn is None else drawn[rows], for_loss=True
        )
        loss = model.compute_loss(outputs, part_targets)
        scaler.scale(loss.total * (len(indices) / batch.size)).backward()
        losses = [loss.total.item(), loss.global_.item(), loss.local.item()]
        tally += torch.tensor([*(len(indices) * value for value in losses), _n_correct(model, loss, part_targets)])
    gradients = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
    processes.add_up([*gradients, tally])
    learned = [(own, gradient[classes]) for own, gradient in zip(text, gradients, strict=True) if own.requires_grad]
    if learned:
        torch.autograd.backward([own for own, _ in learned], [gradient for _, gradient in learned])
    processes.add_up_gradients(model.learned)
    scaler.step(optimizer)
    scaler.update()
    return tally.numpy()


def _gather(text: TextFeatures, classes: list[int], n_classes: int, processes: Processes) -> TextFeatures:
    """Collect the features that each process encoded, as leaves that accumulate gradients if learned."""
    if len(classes) == n_classes:
        return TextFeatures(*(own.detach().requires_grad_(own.requires_grad) for own in text))
    whole = []
    for own in text:
        features = own.new_zeros(n_classes, *own.shape[1:])
        features[classes] = own.detach()
        whole.append(features)
    processes.add_up(whole)
    return TextFeatures(*(part.requires_grad_(own.requires_grad) for part, own in zip(whole, text, strict=True)))


@torch.no_grad()
def _n_correct(model: AdaptedModel, loss: Loss, targets: Tensor) -> int:
    return int((model.probabilities(loss.outputs).argmax(dim=-1) == targets).sum())


def _seed(*key: int) -> int:
    return int(np.random.SeedSequence(key).generate_state(1)[0])


def _is_finite(model: AdaptedModel) -> bool:
    """Whether all learned parameters are finite; the loss only shows the step before."""
    return all(bool(parameter.isfinite().all()) for parameter in model.learned)


def _diverged(epoch: int, step: int, config: TrainConfig) -> DivergedError:
    return DivergedError(
        f"training diverged at epoch {epoch + 1}, step {step + 1}: lower the learning rate (now "
        f"{config.learning_rate}) or use precision fp32"
    )
