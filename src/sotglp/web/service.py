"""Predictions, explanations and class changes for many requests at once, independent of HTTP."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sotglp.console.text import printable
from sotglp.errors import UnreadableImageError
from sotglp.explain.explanation import Explanation, explain
from sotglp.images.decode import open_image
from sotglp.images.image_set import ImageSet
from sotglp.scoring.predict import predict
from sotglp.web.answers import Prediction, Unreadable
from sotglp.web.batching import Batcher
from sotglp.web.limits import Limits, Quota, RefusalError
from sotglp.web.live_model import LiveModel, ServedModel
from sotglp.web.uploads import Upload

MAX_CLASS_NAME = 100

_MAX_EXPLANATIONS = 2
"""Explanations that decode at once: a decoded image can take half a gigabyte."""

ResultT = TypeVar("ResultT")


class _Scores(NamedTuple):
    """Calibrated probabilities (C,) and in-distribution score of one image."""

    probabilities: NDArray[np.float32]
    ood_score: np.float32


class Service:
    """Work for requests: threads decode images, one thread computes batches, another one trains added classes.

    ``images``, ``requests`` and ``received_bytes`` are the quotas that all requests share.
    """

    def __init__(self, live: LiveModel, limits: Limits) -> None:
        self.live = live
        self.limits = limits
        self.images = Quota(limits.max_queued, "images")
        self.requests = Quota(limits.max_requests, "requests")
        self.received_bytes = Quota(limits.max_received_bytes, "uploads")
        self._batcher = Batcher(_predict_batch, live.current.inference.batch_size)
        self._decoders = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="sotglp-decoder")
        self._explanations = asyncio.Semaphore(_MAX_EXPLANATIONS)

    @property
    def n_batches(self) -> int:
        """Number of batches so far."""
        return self._batcher.n_batches

    async def predict(self, uploads: Sequence[Upload], unknown: bool) -> list[Prediction | Unreadable]:
        """Classify images with the current model.

        Raises
        ------
        RefusalError
            422 if no image is readable, 503 if the quota of images is used up.
        """
        served = self.live.current
        with self.images.held() as take:
            take(len(uploads))
            predictions = await asyncio.gather(*(self._predict_one(served, upload, unknown) for upload in uploads))
        unreadable = [one for one in predictions if isinstance(one, Unreadable)]
        if len(unreadable) == len(predictions):
            others = "" if len(predictions) == 1 else f" (nor any of the {len(predictions) - 1} others)"
            raise RefusalError(422, unreadable[0].error + others)
        return predictions

    async def explain(self, upload: Upload, classes: Sequence[str], top: int) -> dict[str, Any]:
        """Explain one image for the named classes, or for the ``top`` most probable ones.

        Raises
        ------
        SotglpError
            If the model has no maps, a class is unknown, or the image is unreadable; 503 if the quota is used up.
        """
        served = self.live.current
        if not served.n_prompts:
            raise RefusalError(422, f"a model of kind {served.model.kind} has no maps: use /predict instead")
        names = list(dict.fromkeys(classes))
        for name in names:
            served.model.class_index(name)
        with self.images.held() as take:
            take(1)
            async with self._explanations:
                image = await self._decoded(upload, lambda content: open_image(content))
                explanation = partial(explain, served.model, image, names or top, served.inference, served.calibration)
                explained: Explanation = await self._batcher.run(partial(explanation, text=served.text))
        return {
            **explained.to_dict(),
            "path": upload.name,
            "probabilities": dict(zip(served.classes, explained.probabilities.tolist(), strict=True)),
        }

    async def add_class(self, name: str, uploads: Sequence[Upload]) -> ServedModel:
        """Add a class from images; later requests use the new model.

        Raises
        ------
        SotglpError
            If the name or an image is unusable, or the kind of model can't add classes; 503 if the quota is used up.
        """
        served = self.live.current
        if not served.can_add_classes:
            raise RefusalError(
                422, f"a model of kind {served.model.kind} can't add a class: fit it again with all classes"
            )
        name = " ".join(name.split())
        if not name or len(name) > MAX_CLASS_NAME or name != printable(name):
            raise RefusalError(422, f"the field name must have 1 to {MAX_CLASS_NAME} printable characters on one line")
        with self.images.held() as take, tempfile.TemporaryDirectory(prefix="sotglp-") as folder:
            take(len(uploads))
            # Training opens files one by one; all images decoded at once might not fit into memory.
            paths = [Path(folder, str(index)) for index in range(len(uploads))]
            await asyncio.to_thread(_write, uploads, paths)
            try:
                return await self.live.add_class(name, ImageSet(tuple(paths)))
            except UnreadableImageError as error:
                names = {str(path): upload.name for path, upload in zip(paths, uploads, strict=True)}
                raise UnreadableImageError(names.get(error.source, error.source), error.reason) from error

    def close(self) -> None:
        """Start no further work."""
        self._batcher.close()
        self._decoders.shutdown(wait=False, cancel_futures=True)
        self.live.close()

    async def _predict_one(self, served: ServedModel, upload: Upload, unknown: bool) -> Prediction | Unreadable:
        preprocess = served.model.backbone.preprocess
        try:
            pixels = await self._decoded(upload, lambda content: preprocess(open_image(content)))
        except UnreadableImageError as error:
            return Unreadable(name=upload.name, error=str(error))
        probabilities, ood_score = await self._batcher.ask(served, pixels)
        best = int(probabilities.argmax())
        is_unknown = None
        if unknown and served.calibration:
            is_unknown = bool(served.calibration.rejects(np.array([ood_score]))[0])
        return Prediction(
            name=upload.name,
            label=served.classes[best],
            probability=float(probabilities[best]),
            ood_score=float(ood_score),
            is_unknown=is_unknown,
            probabilities=dict(zip(served.classes, map(float, probabilities), strict=True)),
        )

    async def _decoded(self, upload: Upload, decode: Callable[[bytes], ResultT]) -> ResultT:
        """Read and decode an upload in another thread."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._decoders, lambda: decode(upload.read()))
        except UnreadableImageError as error:
            raise UnreadableImageError(upload.name or "an image without a name", error.reason) from error


def _predict_batch(served: ServedModel, pixels: list[Tensor]) -> list[_Scores]:
    predictions = predict(served.model, ImageSet(tuple(pixels)), served.inference, text=served.text)
    probabilities = predictions.probabilities
    if served.calibration:
        probabilities = served.calibration.probabilities(probabilities)
    return [_Scores(*row) for row in zip(probabilities, predictions.ood_scores, strict=True)]


def _write(uploads: Sequence[Upload], paths: Sequence[Path]) -> None:
    for upload, path in zip(uploads, paths, strict=True):
        path.write_bytes(upload.read())
