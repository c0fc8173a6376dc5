"""Predictions, explanations and class changes for many requests at once, independent of HTTP."""

from __future__ import annotations

import asyncio
import io
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sotglp.backbone import Backbone
from sotglp.errors import UnreadableImageError
from sotglp.explain.explanation import Explanation, explain
from sotglp.explain.patch_boxes import patch_boxes
from sotglp.images.image_set import ImageSet
from sotglp.runtime.preprocessing import Preprocessing
from sotglp.scoring.predict import predict
from sotglp.web.answers import Prediction, Unreadable
from sotglp.web.batching import Batcher
from sotglp.web.class_names import checked_class_name
from sotglp.web.decoding import Decoders, RequestDecoder
from sotglp.web.download import ModelFile
from sotglp.web.limits import BusyError, Limits, Quota, RefusalError
from sotglp.web.live_model import LiveModel, ServedModel
from sotglp.web.training import Training, TrainingOptions
from sotglp.web.uploads import Upload

_PROBE_SECONDS = 5.0
# A gray PNG of one pixel.
_PROBE = bytes.fromhex(
    "89504e470d0a1a0a0000000d494844520000000100000001080000000"
    "03a7e9b550000000a49444154789c636800000082008177cd72b60000000049454e44ae426082"
)


class _Scores(NamedTuple):
    """Calibrated probabilities (C,) and in-distribution score of one image."""

    probabilities: NDArray[np.float32]
    ood_score: np.float32


class Service:
    """Work for requests: processes decode images, one thread computes batches, another one trains added classes.

    ``images``, ``requests`` and ``received_bytes`` are the quotas that all requests share. ``training`` is None if a
    model file is served.
    """

    def __init__(self, live: LiveModel, limits: Limits, options: TrainingOptions | None = None) -> None:
        self.live = live
        self.limits = limits
        self.training = Training(live, limits, options) if options else None
        self.images = Quota(limits.max_queued, "images")
        self.requests = Quota(limits.max_requests, "requests")
        self.received_bytes = Quota(limits.max_received_bytes, "uploads")
        batch_size = options.batch_size if options else live.current.inference.batch_size
        self._batcher = Batcher(_predict_batch, batch_size)
        self.decoders = Decoders()
        self.model_file = ModelFile(live)
        self._probing = asyncio.Lock()
        self._ready_until = 0.0

    @property
    def n_batches(self) -> int:
        """Number of batches so far."""
        return self._batcher.n_batches

    async def is_ready(self) -> bool:
        """Whether a small image is classified within seconds; the answer holds for some more."""
        if self.live.served is None:
            return True
        async with self._probing:
            if time.monotonic() >= self._ready_until:
                upload = Upload("ready.png", io.BytesIO(_PROBE))
                decoder = self.decoders.of_request()
                try:
                    with anyio.fail_after(_PROBE_SECONDS):
                        await self._predict_one(self.live.current, decoder, upload, False)
                except (TimeoutError, BusyError, OSError):
                    return False
                self._ready_until = time.monotonic() + _PROBE_SECONDS
        return True

    def gauges(self) -> dict[str, tuple[str, float]]:
        """Return the state of the server for metrics: name, help and value."""
        return {
            "open_requests": ("Open requests.", self.requests.n_taken),
            "queued_images": ("Images of open requests.", self.images.n_taken),
            "received_bytes": ("Bytes of open requests.", self.received_bytes.n_taken),
            "waiting_large_images": ("Requests with large images that wait.", self.decoders.waiting.n_taken),
            "batches": ("Batches since the start.", self.n_batches),
            "classes": ("Classes of the model.", len(self.live.served.classes) if self.live.served else 0),
        }

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
            decoder = self.decoders.of_request()
            predictions = await asyncio.gather(
                *(self._predict_one(served, decoder, upload, unknown) for upload in uploads)
            )
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
            backbone = served.model.backbone
            decoder = self.decoders.of_request()
            framed = await decoder.frame(upload, _preprocessing(backbone), served.model.value_ranges)
            image, size = framed.image, (framed.width, framed.height)
            explanation = partial(explain, served.model, image, names or top, served.inference, served.calibration)
            explained: Explanation = await self._batcher.run(partial(explanation, text=served.text))
            explained = replace(explained, boxes=patch_boxes(backbone, *size), picture_size=size)
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
        if self.training:
            raise RefusalError(409, "this server trains its model: add the class through /training, and train again")
        if not served.can_add_classes:
            raise RefusalError(
                422, f"a model of kind {served.model.kind} can't add a class: fit it again with all classes"
            )
        name = checked_class_name(name)
        with self.images.held() as take, tempfile.TemporaryDirectory(prefix="sotglp-") as folder:
            take(len(uploads))
            # Training opens files one by one; all images decoded at once might not fit into memory.
            paths = [Path(folder, str(index)) for index in range(len(uploads))]
            decoder = self.decoders.of_request()
            ranges = served.model.value_ranges
            stored = (decoder.store(upload, path, ranges) for upload, path in zip(uploads, paths, strict=True))
            await asyncio.gather(*stored)
            try:
                return await self.live.add_class(name, ImageSet(tuple(paths)), self.limits.max_added_classes)
            except UnreadableImageError as error:
                names = {str(path): upload.name for path, upload in zip(paths, uploads, strict=True)}
                raise UnreadableImageError(names.get(error.source, error.source), error.reason) from error

    def close(self) -> None:
        """Start no further work, and end the processes."""
        self._batcher.close()
        self.decoders.close()
        self.model_file.close()
        if self.training:
            self.training.close()
        self.live.close()

    async def _predict_one(
        self, served: ServedModel, decoder: RequestDecoder, upload: Upload, unknown: bool
    ) -> Prediction | Unreadable:
        backbone = served.model.backbone
        try:
            framed = await decoder.frame(upload, _preprocessing(backbone), served.model.value_ranges)
        except UnreadableImageError as error:
            return Unreadable(name=upload.name, error=str(error))
        pixels = await asyncio.to_thread(backbone.preprocess, framed.image)
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


def _predict_batch(served: ServedModel, pixels: list[Tensor]) -> list[_Scores]:
    predictions = predict(served.model, ImageSet(tuple(pixels)), served.inference, text=served.text)
    probabilities = predictions.probabilities
    if served.calibration:
        probabilities = served.calibration.probabilities(probabilities)
    return [_Scores(*row) for row in zip(probabilities, predictions.ood_scores, strict=True)]


def _preprocessing(backbone: Backbone) -> Preprocessing:
    """Return what resizes an image like the backbone's own preprocessing, without torch."""
    settings = backbone.preprocess_settings
    # A model file has no other preprocessing.
    assert settings is not None
    return Preprocessing(
        size=backbone.image_size,
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
        interpolation=settings["interpolation"],
        resize_mode=settings["resize_mode"],
        fill_color=settings["fill_color"],
    )
