"""Pixels for the backbone: every image through a transform, in batches, by worker processes if wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from sotglp.errors import SotglpError, UnreadableImageError
from sotglp.images.decode import open_image
from sotglp.images.image_set import ImageSet

Transform: TypeAlias = Callable[[Any], torch.Tensor]
View: TypeAlias = "tuple[int, torch.Tensor | UnreadableImageError]"
_Batch: TypeAlias = "tuple[NDArray[np.int64], torch.Tensor | None, list[UnreadableImageError]]"


class ViewDataset(Dataset[View]):
    """The views of an image set in one epoch.

    An item is (i, pixels) or, where image i can't be read, (i, error): an error raised in a worker process would arrive
    as a page of traceback. Files, PIL images and uint8 tensors go to the transform as PIL images. Float tensors are
    preprocessed already: an evaluation takes them as they are, augmentation transforms them as tensors.

    Parameters
    ----------
    images : ImageSet
        The images.
    transform : callable
        Makes a (3, H, W) float32 tensor of a PIL image (and of a float tensor, if there are any and a seed is given).
        It has to be picklable where worker processes are spawned.
    seed : int, optional
        Seed of the random augmentation, at least 0. What torch draws for view i depends on (seed, epoch, i) alone,
        not on the order, the worker processes or what was drawn before, and it leaves torch's own generator as it was.
        None (default) for evaluation: the transform draws nothing.
    epoch : int, default 0
        Epoch, at least 0; gives other views of the same images.
    """

    def __init__(self, images: ImageSet, transform: Transform, seed: int | None = None, epoch: int = 0) -> None:
        if epoch < 0 or (seed is not None and seed < 0):
            raise SotglpError(f"seed is {seed} and epoch is {epoch}; give numbers from 0")
        self.images = images
        self.transform = transform
        self.seed = seed
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def __getitem__(self, i: int) -> View:
        """Return (i, pixels) or (i, error)."""
        source = self.images.images[i]
        picture: Image.Image | torch.Tensor
        if isinstance(source, torch.Tensor):
            picture = source if source.is_floating_point() else _picture(source)
        else:
            try:
                picture = open_image(source)
            except UnreadableImageError as error:
                return i, UnreadableImageError(self.images.name(i), error.reason)
        if self.seed is None:
            return i, picture if isinstance(picture, torch.Tensor) else self.transform(picture)
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed: it reseeds the GPU as well, whose state nobody would put back.
            torch.default_generator.manual_seed(_view_seed(self.seed, self.epoch, i))
            return i, self.transform(picture)


def training_transform(image_size: int | tuple[int, int], mean: Sequence[float], std: Sequence[float]) -> Transform:
    """Build the published augmentation: a random crop of 8 to 100 % of the area, resized, and a flip half of the time.

    It takes a PIL RGB image or a uint8 tensor (3, H, W) of raw pixels, which it normalises at the end, or a float
    tensor (3, H, W) that is preprocessed already, which it only crops and flips.

    Parameters
    ----------
    image_size : int or (int, int)
        Height and width of the result in pixels.
    mean, std : sequence of 3 floats
        Mean and standard deviation that the backbone's preprocessing uses, for pixels from 0 to 1.

    Returns
    -------
    callable
        Returns a float32 tensor of shape (3, height, width); can be pickled.
    """
    return _Augmentation(image_size, mean, std)


class _Augmentation:
    def __init__(self, image_size: int | tuple[int, int], mean: Sequence[float], std: Sequence[float]) -> None:
        self._crop = transforms.RandomResizedCrop(
            image_size, scale=(0.08, 1.0), interpolation=transforms.InterpolationMode.BICUBIC, antialias=True
        )
        self._flip = transforms.RandomHorizontalFlip()
        self._to_tensor = transforms.ToTensor()
        self._normalise = transforms.Normalize(tuple(mean), tuple(std))

    def __call__(self, image: Image.Image | torch.Tensor) -> torch.Tensor:
        result: torch.Tensor
        if isinstance(image, torch.Tensor) and image.is_floating_point():
            result = self._flip(self._crop(image.float()))
            return result
        picture = _picture(image) if isinstance(image, torch.Tensor) else image
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
    unreadable: list[UnreadableImageError] | None = None,
) -> Iterator[tuple[NDArray[np.int64], torch.Tensor]]:
    """Load images in the batches given; the pixels are the same for any number of workers.

    Parameters
    ----------
    images : ImageSet
        The images.
    transform, seed, epoch
        See `ViewDataset`.
    batches : sequence of sequences of int
        Positions in `images` of each batch's images; a position may come several times.
    workers : int, default 0
        Processes that load batches ahead; 0 loads them in this process, and so is any set of tensors.
    unreadable : list of UnreadableImageError, optional
        If given, images that can't be read are left out, as are batches with no others, and their errors are appended
        here. By default the first of them is raised.

    Yields
    ------
    indices : numpy.ndarray of int64, shape (B,)
        Positions of the images in `images`.
    pixels : torch.Tensor, float32, shape (B, 3, H, W)
        The views, B of them, at least 1.

    Raises
    ------
    UnreadableImageError
        If an image can't be read and `unreadable` isn't given.
    SotglpError
        If `workers`, `seed` or `epoch` is below 0, or a worker process dies.
    """
    if workers < 0:
        raise SotglpError(f"workers is {workers}; give the number of processes that load images, 0 for none")
    in_memory = isinstance(images.images[0], torch.Tensor)
    loader: DataLoader[View] = DataLoader(
        ViewDataset(images, transform, seed, epoch),
        batch_sampler=[[int(i) for i in batch] for batch in batches],
        # Every row of a tensor costs a file descriptor on its way to another process, and needs no decoding.
        num_workers=0 if in_memory else workers,
        collate_fn=_collate,
        # A loader without one of its own takes a number from torch's generator, which training draws from as well.
        generator=torch.Generator(),
    )
    return _batches(loader, unreadable)


def _picture(pixels: torch.Tensor) -> Image.Image:
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def _view_seed(seed: int, epoch: int, i: int) -> int:
    return int(np.random.SeedSequence((seed, epoch, i)).generate_state(1, np.uint64)[0])


def _collate(views: list[View]) -> _Batch:
    loaded = [(i, pixels) for i, pixels in views if isinstance(pixels, torch.Tensor)]
    errors = [error for _, error in views if isinstance(error, UnreadableImageError)]
    pixels = torch.stack([pixels for _, pixels in loaded]) if loaded else None
    return np.array([i for i, _ in loaded], dtype=np.int64), pixels, errors


def _batches(
    loader: DataLoader[View], unreadable: list[UnreadableImageError] | None
) -> Iterator[tuple[NDArray[np.int64], torch.Tensor]]:
    iterator: Iterator[_Batch] = iter(loader)
    while True:
        try:
            indices, pixels, errors = next(iterator)
        except StopIteration:
            return
        except RuntimeError as error:
            if "DataLoader worker (pid" not in str(error):
                raise
            raise SotglpError(
                "a process that loads images died, most often for want of memory or shared memory (/dev/shm); use "
                "fewer workers (0 loads without processes) or smaller batches"
            ) from error
        if errors and unreadable is None:
            # The error keeps this frame alive by its traceback; the worker processes shall end now all the same.
            del iterator
            raise errors[0]
        if unreadable is not None:
            unreadable += errors
        if pixels is not None:
            yield indices, pixels
