"""Transformed images in batches for the backbone, optionally loaded by worker processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from sotglp.engines.threads import map_ahead
from sotglp.errors import SotglpError, UnreadableImageError
from sotglp.images.decode import open_image
from sotglp.images.digest import read_unchanged
from sotglp.images.image_set import ImageSet
from sotglp.images.stored import StoredImage

Transform: TypeAlias = Callable[[Any], torch.Tensor]
View: TypeAlias = "tuple[int, torch.Tensor | UnreadableImageError]"
_Batch: TypeAlias = "tuple[NDArray[np.int64], torch.Tensor | None, list[UnreadableImageError]]"

_AHEAD = 2
"""Batches that a thread decodes ahead of the one that is encoded."""


class ViewDataset(Dataset[View]):
    """The views of an image set in one epoch.

    Item i is (i, pixels) or, if image i can't be read, (i, error), since an error raised in a worker process would
    arrive as a long traceback. Files, PIL images and uint8 tensors are passed to the transform as PIL images. Float
    tensors are preprocessed: augmentation transforms them as tensors, and an evaluation, without ``seed``, returns them
    unchanged.

    If ``digests`` of the files are given, an image that has another one by now is an error, not another picture.

    The random numbers of view i depend on (seed, epoch, images.number(i)) alone, and torch's global generator is not
    changed. The transform must be picklable for spawned worker processes.
    """

    def __init__(
        self,
        images: ImageSet,
        transform: Transform,
        seed: int | None = None,
        epoch: int = 0,
        digests: Sequence[str] | None = None,
    ) -> None:
        if epoch < 0 or (seed is not None and seed < 0):
            raise SotglpError(f"seed is {seed} and epoch is {epoch}; give numbers of at least 0")
        self.images = images
        self.transform = transform
        self.seed = seed
        self.epoch = epoch
        self.digests = digests

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def __getitem__(self, i: int) -> View:
        """Return (i, pixels) or (i, error)."""
        source = self.images.images[i]
        assert not isinstance(source, StoredImage)  # it has no pixels
        picture: Image.Image | torch.Tensor
        if isinstance(source, torch.Tensor):
            picture = source if source.is_floating_point() else _as_pil(source)
        else:
            try:
                if self.digests is not None and isinstance(source, Path):
                    content = read_unchanged(source, self.digests[i], self.images.ranges)
                    picture = open_image(content, self.images.ranges)
                else:
                    picture = open_image(source, self.images.ranges)
            except UnreadableImageError as error:
                return i, type(error)(self.images.name(i), error.reason)
        if self.seed is None:
            return i, picture if isinstance(picture, torch.Tensor) else self.transform(picture)
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which reseeds the GPU too, whose state isn't restored.
            torch.default_generator.manual_seed(_view_seed(self.seed, self.epoch, self.images.number(i)))
            return i, self.transform(picture)


class TrainingTransform:
    """The published augmentation: a random crop of 8 to 100 % of the area, resized, and a flip half of the time.

    It converts a PIL RGB image, a uint8 tensor (3, H, W) of raw pixels, or a preprocessed float tensor (3, H, W), which
    is cropped and flipped but not normalised, to a float32 tensor (3, *image_size). ``mean`` and ``std`` are those of
    the backbone's preprocessing, for pixels from 0 to 1.
    """

    def __init__(self, image_size: int | tuple[int, int], mean: Sequence[float], std: Sequence[float]) -> None:
        self._crop = transforms.RandomResizedCrop(
            image_size, scale=(0.08, 1.0), interpolation=transforms.InterpolationMode.BICUBIC, antialias=True
        )
        self._flip = transforms.RandomHorizontalFlip()
        self._to_tensor = transforms.ToTensor()
        self._normalise = transforms.Normalize(tuple(mean), tuple(std))

    def __call__(self, image: Image.Image | torch.Tensor) -> torch.Tensor:
        """Transform one image at random, by torch's global generator."""
        result: torch.Tensor
        if isinstance(image, torch.Tensor) and image.is_floating_point():
            result = self._flip(self._crop(image.float()))
            return result
        picture = _as_pil(image) if isinstance(image, torch.Tensor) else image
        result = self._normalise(self._to_tensor(self._flip(self._crop(picture))))
        return result


def load_batches(
    images: ImageSet,
    transform: Transform,
    batches: Sequence[Sequence[int] | NDArray[np.int64]],
    *,
    workers: int = 0,
    seed: int | None = None,
    epoch: int = 0,
    digests: Sequence[str] | None = None,
    unreadable: list[UnreadableImageError] | None = None,
) -> Iterator[tuple[NDArray[np.int64], torch.Tensor]]:
    """Load the images of given batches of indices; yield indices (B,) and pixels (B, 3, H, W), float32.

    The pixels don't depend on ``workers``, the number of processes that load batches ahead; without any, a thread does,
    except for random views. Tensors are always loaded in this process. ``transform``, ``seed``, ``epoch`` and
    ``digests`` are those of :class:`ViewDataset`. Images that can't be read are skipped and their errors appended to
    ``unreadable``; None raises the first. A worker that dies raises a SotglpError.
    """
    if workers < 0:
        raise SotglpError(f"workers is {workers}; give the number of processes that load images, at least 0")
    dataset = ViewDataset(images, transform, seed, epoch, digests)
    chosen = [[int(i) for i in batch] for batch in batches]
    in_memory = isinstance(images.images[0], torch.Tensor)
    # Random views seed the generator of the whole process for a while.
    if workers == 0 and seed is None and not in_memory:
        # One thread, since two must not load the same PIL image; Pillow decodes without the interpreter's lock.
        ahead = map_ahead(lambda batch: _collate([dataset[i] for i in batch]), chosen, n_threads=1, n_ahead=_AHEAD)
        return _without_errors(ahead, unreadable)
    loader: DataLoader[View] = DataLoader(
        dataset,
        batch_sampler=chosen,
        # A tensor row needs no decoding, and takes a file descriptor when sent between processes.
        num_workers=0 if in_memory else workers,
        collate_fn=_collate,
        # The default would draw from torch's global generator, which training uses.
        generator=torch.Generator(),
    )
    return _without_errors(iter(loader), unreadable)


def _as_pil(pixels: torch.Tensor) -> Image.Image:
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def _view_seed(seed: int, epoch: int, i: int) -> int:
    return int(np.random.SeedSequence((seed, epoch, i)).generate_state(1, np.uint64)[0])


def _collate(views: list[View]) -> _Batch:
    loaded = [(i, pixels) for i, pixels in views if isinstance(pixels, torch.Tensor)]
    errors = [error for _, error in views if isinstance(error, UnreadableImageError)]
    pixels = torch.stack([pixels for _, pixels in loaded]) if loaded else None
    return np.array([i for i, _ in loaded], dtype=np.int64), pixels, errors


def _without_errors(
    loaded: Iterator[_Batch], unreadable: list[UnreadableImageError] | None
) -> Iterator[tuple[NDArray[np.int64], torch.Tensor]]:
    while True:
        try:
            indices, pixels, errors = next(loaded)
        except StopIteration:
            return
        except RuntimeError as error:
            if "DataLoader worker (pid" not in str(error):
                raise
            raise SotglpError(
                "a process that loads images died, probably for lack of memory or shared memory (/dev/shm); use fewer "
                "workers (0 for none) or smaller batches"
            ) from error
        if errors and unreadable is None:
            # Ends the worker processes; the error's traceback would keep them alive.
            del loaded
            raise errors[0]
        if unreadable is not None:
            unreadable += errors
        if pixels is not None:
            yield indices, pixels
