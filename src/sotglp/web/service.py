"""What the server does for a request, apart from HTTP."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

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

LONGEST_CLASS_NAME = 100

_PICTURES = 2
"""Pictures that are explained or wait for it at once: each may take half a gigabyte, decoded."""

ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class _Judged:
    """What a model says of one image: calibrated probabilities (C,) and an in-distribution score."""

    probabilities: NDArray[np.float32]
    ood_score: np.float32


class Service:
    """Predictions, explanations and class changes for many requests at once.

    Images are decoded by a few threads and judged in batches by one; classes are learned in a third place, so that
    predictions go on meanwhile.

    Parameters
    ----------
    live : LiveModel
        The model.
    limits : Limits
        Bounds on requests.

    Attributes
    ----------
    images, requests, received_bytes : Places
        How many of each there may be at once.
    """

    def __init__(self, live: LiveModel, limits: Limits) -> None:
        self.live = live
        self.limits = limits
        self.images = Quota(limits.max_queued, "images")
        self.requests = Quota(limits.max_requests, "requests")
        self.received_bytes = Quota(limits.max_received_bytes, "uploads")
        self._batcher = Batcher(_judge, live.current.inference.batch_size)
        self._decoders = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="sotglp-decoder")
        self._pictures = asyncio.Semaphore(_PICTURES)

    @property
    def n_batches(self) -> int:
        """Batches that the model has judged so far."""
        return self._batcher.n_batches

    async def predict(self, uploads: Sequence[Upload], unknown: bool) -> list[Prediction | Unreadable]:
        """Judge images by the model that is served now.

        Raises
        ------
        RefusalError
            422 if none of them can be read, 503 if there are too many images of other requests.
        """
        served = self.live.current
        with self.images.held() as take:
            take(len(uploads))
            found = await asyncio.gather(*(self._predict_one(served, upload, unknown) for upload in uploads))
        unreadable = [one for one in found if isinstance(one, Unreadable)]
        if len(unreadable) == len(found):
            others = "" if len(found) == 1 else f" (and none of the {len(found) - 1} others)"
            raise RefusalError(422, unreadable[0].error + others)
        return found

    async def explain(self, upload: Upload, classes: Sequence[str], top: int) -> dict[str, Any]:
        """Explain one image: the classes named, or the ``top`` most probable ones; with all probabilities.

        Raises
        ------
        SotglpError
            If the model can't explain, there is no such class, or the image can't be read; 503 as in :meth:`predict`.
        """
        served = self.live.current
        if not served.n_prompts:
            raise RefusalError(422, f"a model of kind {served.model.kind} can't tell where it looked")
        wanted = list(dict.fromkeys(classes))
        for name in wanted:
            served.model.class_index(name)
        with self.images.held() as take:
            take(1)
            async with self._pictures:
                picture = await self._decoded(upload, lambda content: open_image(content))
                explained: Explanation = await self._batcher.run(
                    partial(
                        explain,
                        served.model,
                        picture,
                        wanted or top,
                        served.inference,
                        served.calibration,
                        text=served.text,
                    )
                )
        return {
            **explained.to_dict(),
            "path": upload.name,
            "probabilities": dict(zip(served.classes, explained.probabilities.tolist(), strict=True)),
        }

    async def add_class(self, name: str, uploads: Sequence[Upload]) -> ServedModel:
        """Learn one class more from images, and serve the grown model from then on.

        Raises
        ------
        SotglpError
            If the name or an image can't be used, or the model can't learn a class alone; 503 as in :meth:`predict`.
        """
        if not self.live.current.can_add_classes:
            raise RefusalError(
                422, f"a model of kind {self.live.current.model.kind} can't learn one class more: fit it anew"
            )
        name = " ".join(name.split())
        if not name or len(name) > LONGEST_CLASS_NAME or name != printable(name):
            raise RefusalError(
                422, f"a class needs a name of 1 to {LONGEST_CLASS_NAME} letters in the field name, on one line"
            )
        with self.images.held() as take, tempfile.TemporaryDirectory(prefix="sotglp-") as folder:
            take(len(uploads))
            # Files, since a run opens each image when it needs it: all of them decoded might not fit into memory.
            paths = [Path(folder, str(place)) for place in range(len(uploads))]
            await asyncio.to_thread(_write, uploads, paths)
            try:
                return await self.live.add_class(name, ImageSet(tuple(paths)))
            except UnreadableImageError as error:
                names = {str(path): upload.name for path, upload in zip(paths, uploads, strict=True)}
                raise UnreadableImageError(names.get(error.source, error.source), error.reason) from error

    def close(self) -> None:
        """Start nothing more."""
        self._batcher.close()
        self._decoders.shutdown(wait=False, cancel_futures=True)
        self.live.close()

    async def _predict_one(self, served: ServedModel, upload: Upload, unknown: bool) -> Prediction | Unreadable:
        preprocess = served.model.backbone.preprocess
        try:
            pixels = await self._decoded(upload, lambda content: preprocess(open_image(content)))
        except UnreadableImageError as error:
            return Unreadable(name=upload.name, error=str(error))
        judged = await self._batcher.ask(served, pixels)
        best = int(judged.probabilities.argmax())
        rejected = None
        if unknown and served.calibration:
            rejected = bool(served.calibration.rejects(np.array([judged.ood_score]))[0])
        return Prediction(
            name=upload.name,
            label=served.classes[best],
            probability=float(judged.probabilities[best]),
            ood_score=float(judged.ood_score),
            is_unknown=rejected,
            probabilities=dict(zip(served.classes, map(float, judged.probabilities), strict=True)),
        )

    async def _decoded(self, upload: Upload, decode: Callable[[bytes], ResultT]) -> ResultT:
        """What a function makes of an image's content, in another thread; the content is read there too."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._decoders, lambda: decode(upload.read()))
        except UnreadableImageError as error:
            raise UnreadableImageError(upload.name or "an image without a name", error.reason) from error


def _judge(served: ServedModel, pixels: list[Tensor]) -> list[_Judged]:
    said = predict(served.model, ImageSet(tuple(pixels)), served.inference, text=served.text)
    probabilities = said.probabilities
    if served.calibration:
        probabilities = served.calibration.probabilities(probabilities)
    return [_Judged(*row) for row in zip(probabilities, said.ood_scores, strict=True)]


def _write(uploads: Sequence[Upload], paths: Sequence[Path]) -> None:
    for upload, path in zip(uploads, paths, strict=True):
        path.write_bytes(upload.read())
