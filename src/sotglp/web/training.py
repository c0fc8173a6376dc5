"""Training on the page: its images, one training at a time, calibration, and files of the trained model."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import shlex
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Literal

from starlette.responses import Response

from sotglp.backbone import Backbone
from sotglp.backbone.precision import choose_device
from sotglp.backbone_defaults import CLIP, PHOTO
from sotglp.errors import SotglpError, UnknownNameError, UnreadableImageError
from sotglp.model_file.save import save_model
from sotglp.report.findings import describe_predictions
from sotglp.report.page import About, render
from sotglp.scoring.calibration import Calibration, calibrate_crossed
from sotglp.scoring.predict import text_of
from sotglp.scoring.rejection import check_tpr
from sotglp.web.decoding import RequestDecoder
from sotglp.web.download import MAX_DOWNLOADS, FileStream
from sotglp.web.limits import BusyError, Limits, Quota, RefusalError
from sotglp.web.live_model import LiveModel, ServedModel, load_served
from sotglp.web.training_run import Trained, TrainingRun, noted
from sotglp.web.training_set import TrainingImage, TrainingSet, remove_picture
from sotglp.web.uploads import Upload

FileKind = Literal["report", "onnx"]

_WAIT = 0.75
"""Share of the time limit of a request in which it waits for a file; then its client has to ask again."""


@dataclass(frozen=True)
class TrainingOptions:
    """What the page may train on, where models are stored too, and settings of predictions."""

    backbones: tuple[str, ...] = (PHOTO, CLIP)
    out: Path | None = None
    device: str = "auto"
    batch_size: int = 32


@dataclass(frozen=True)
class TrainedState:
    """The trained model that is served, and the sentences about it; ``number`` tells it from others."""

    trained: Trained
    served: ServedModel
    saved_as: Path | None
    number: int
    notes: list[str] = field(default_factory=list)
    calibration_notes: list[str] = field(default_factory=list)


class Training:
    """Everything that the page trains; one thread trains, calibrates and writes files, one after the other."""

    def __init__(self, live: LiveModel, limits: Limits, options: TrainingOptions) -> None:
        self.options = options
        self.images = TrainingSet(limits)
        self.run: TrainingRun | None = None
        self.model: TrainedState | None = None
        self._live = live
        self._wait_seconds = _WAIT * limits.max_seconds
        self._thread = ThreadPoolExecutor(1, "sotglp-training")
        self._backbone: tuple[str, Backbone] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="sotglp-", ignore_cleanup_errors=True)
        self._names = itertools.count(1)
        self._files: dict[FileKind, tuple[TrainedState, asyncio.Future[Path]]] = {}
        self._downloads = Quota(MAX_DOWNLOADS, "downloads")

    @property
    def is_running(self) -> bool:
        """Whether a training runs."""
        return self.run is not None and self.run.status == "running"

    def load_ahead(self) -> None:
        """Load the first backbone, so that the first training need not wait for it."""
        self._thread.submit(self._load, self.options.backbones[0])

    async def add_images(
        self, class_id: int, uploads: Sequence[Upload], decoder: RequestDecoder
    ) -> tuple[list[TrainingImage], list[UnreadableImageError]]:
        """Decode images and add them to a class; return the added ones, and why the others were left out.

        Raises
        ------
        RefusalError
            404 if the class is gone, 413 if there are too many images, 422 if no image can be used.
        """
        self.images.find_class(class_id)
        self.images.check_room(len(uploads))

        async def keep(upload: Upload) -> tuple[Path, bytes] | UnreadableImageError:
            path = self.images.new_path()
            try:
                await decoder.keep(upload, path, path.with_suffix(".jpg"))
                return path, await asyncio.to_thread(lambda: hashlib.sha256(upload.read()).digest())
            except UnreadableImageError as error:
                return error
            except BaseException:
                remove_picture(path)
                raise

        added: list[TrainingImage] = []
        left_out: list[UnreadableImageError] = []
        kept = await asyncio.gather(*map(keep, uploads))
        for upload, one in zip(uploads, kept, strict=True):
            if isinstance(one, UnreadableImageError):
                left_out.append(one)
                continue
            try:
                added.append(self.images.add_image(class_id, upload.name, one[1], one[0]))
            except UnreadableImageError as error:
                left_out.append(error)
                remove_picture(one[0])
            except RefusalError:
                for other in kept:
                    if not isinstance(other, UnreadableImageError) and other[0] not in [image.path for image in added]:
                        remove_picture(other[0])
                raise
        if not added:
            others = "" if len(left_out) == 1 else f" (nor can any of the {len(left_out) - 1} others be used)"
            raise RefusalError(422, str(left_out[0]) + others)
        return added, left_out

    def remove_image(self, image_id: int) -> None:
        """Remove an image."""
        self.images.remove_image(image_id)
        self._sweep()

    def remove_class(self, class_id: int) -> None:
        """Remove a class and its images."""
        self.images.remove_class(class_id)
        self._sweep()

    def start(self, backbone: str | None) -> None:
        """Start a training; RefusalError 409 if one runs, 422 if the images or the backbone can't be used."""
        self._refuse_while_running()
        backbone = backbone or self.options.backbones[0]
        if backbone not in self.options.backbones:
            raise UnknownNameError("backbone", backbone, self.options.backbones)
        run = TrainingRun(self.images.snapshot(), backbone)
        self.run = run
        loop = asyncio.get_running_loop()

        def publish(trained: Trained) -> None:
            self._publish(trained, run.notes)

        def execute() -> None:
            run.execute(self._load, publish)
            # The loop may have ended with the server.
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._sweep)

        loop.run_in_executor(self._thread, execute)

    def stop(self) -> None:
        """Stop the training, if one runs; a model that works already stays."""
        if self.run:
            self.run.stop()

    async def calibrate(self, tpr: float) -> None:
        """Calibrate the model on the predictions of cross-fitting; RefusalError 409 if there are none."""
        check_tpr(tpr)
        checked = self._checked_model()
        loop = asyncio.get_running_loop()
        await asyncio.shield(loop.run_in_executor(self._thread, self._calibrate, checked, tpr))

    async def file(self, kind: FileKind) -> Response:
        """Return the answer with the report or the ONNX file of the model, which is written once.

        Raises
        ------
        RefusalError
            409 while a training runs, or before there is what the file needs; 503 while the file is being written,
            which goes on.
        """
        self._refuse_while_running()
        state = self._checked_model() if kind == "report" else self._trained_model()
        with ExitStack() as held:
            held.enter_context(self._downloads.held())(1)
            of, future = self._files.get(kind, (None, None))
            if future is None or of is not state or (future.done() and not _has_file(future)):
                if future is not None and _has_file(future):
                    # Open downloads go on.
                    future.result().unlink(missing_ok=True)
                write = self._report if kind == "report" else self._onnx
                future = asyncio.get_running_loop().run_in_executor(self._thread, write, state)
                # Without a waiting request, nobody else would take its error.
                future.add_done_callback(lambda done: done.cancelled() or done.exception())
                self._files[kind] = (state, future)
            await asyncio.wait([future], timeout=self._wait_seconds)
            if not future.done():
                raise BusyError("the file is still being written: ask for it again")
            file = future.result().open("rb")
            held.callback(file.close)
            suffix, media_type = {"report": (".html", "text/html"), "onnx": (".onnx", "application/octet-stream")}[kind]
            return FileStream(file, Path(self._live.name).with_suffix(suffix).name, held.pop_all(), media_type)

    def close(self) -> None:
        """Stop the training and delete all files."""
        self.stop()
        self._thread.shutdown(wait=False, cancel_futures=True)
        self.images.close()
        self._folder.cleanup()

    def _refuse_while_running(self) -> None:
        if self.is_running:
            raise RefusalError(409, "a training runs: wait for its end, or stop it")

    def _trained_model(self) -> TrainedState:
        if self.model is None:
            raise RefusalError(409, "there is no model yet: train one first")
        return self.model

    def _checked_model(self) -> TrainedState:
        self._refuse_while_running()
        model = self._trained_model()
        if model.trained.crossed is None:
            raise RefusalError(
                409, "the model has not been checked on held-out images: train with two or more images of each class"
            )
        return model

    def _sweep(self) -> None:
        in_use = {path for run in [self.run] if run and self.is_running for path in run.snapshot.names}
        if self.model:
            in_use |= set(self.model.trained.snapshot.names)
        self.images.sweep(in_use)

    def _load(self, name: str) -> Backbone:
        if self._backbone is None or self._backbone[0] != name:
            self._backbone = None  # two large backbones might not fit into memory
            self._backbone = (name, Backbone.load(name, "auto", device=choose_device(self.options.device)))
        return self._backbone[1]

    def _publish(self, trained: Trained, notes: list[str]) -> None:
        """Serve a model, or note that the served one has been checked."""
        if self.model and self.model.trained.fitted is trained.fitted:
            self.model = replace(self.model, trained=trained)
            return
        served = self._served(trained, None)
        saved_as = self._save(served, None, notes)
        self._live.served = served
        self.model = TrainedState(trained, served, saved_as, next(self._names), notes)

    def _calibrate(self, state: TrainedState, tpr: float) -> None:
        trained, notes = state.trained, list[str]()
        assert trained.crossed is not None
        with noted(notes.append):
            calibration = calibrate_crossed(trained.crossed, trained.fitted.images, trained.inference, tpr)
        served = self._served(trained, calibration)
        saved_as = self._save(served, state.saved_as, notes)
        self._live.served = served
        self.model = TrainedState(trained, served, saved_as, next(self._names), state.notes, notes)

    def _served(self, trained: Trained, calibration: Calibration | None) -> ServedModel:
        """Return the model as its file would be served."""
        path = self._new_path(".safetensors")
        fitted = trained.fitted
        try:
            save_model(path, fitted.model, training=trained.config, history=fitted.history, calibration=calibration)
            return load_served(path, backbone=fitted.model.backbone, batch_size=self.options.batch_size)
        finally:
            path.unlink(missing_ok=True)

    def _save(self, served: ServedModel, saved_as: Path | None, notes: list[str]) -> Path | None:
        """Store a model beside the server too, under a free name unless it replaces its own file."""
        out = self.options.out
        if out is None:
            return None
        path = saved_as or _free_name(out)
        try:
            served.save(path, force=saved_as is not None)
        except SotglpError as error:
            notes.append(f"the model is not saved: {str(error).replace(str(path), path.name)}")
            return None
        return path

    def _report(self, state: TrainedState) -> Path:
        trained, served = state.trained, state.served
        crossed, images = trained.crossed, trained.fitted.images
        assert crossed is not None
        findings = describe_predictions(
            served.model,
            text_of(served.model, served.inference),
            images,
            crossed.predictions,
            {},
            served.inference,
            served.calibration,
            names=[trained.snapshot.names[Path(images.name(index))] for index in range(len(images))],
        )
        about = About(
            self._live.name,
            served.record,
            f"the {len(images)} training images, each classified by a model that was not trained on it "
            f"({len(crossed.models)}-fold cross-fitting)",
            {},
            shlex.join(["sotglp", "serve", *(["--out", self._live.name] if self.options.out else [])]),
            date.today().isoformat(),
        )
        path = self._new_path(".html")
        path.write_bytes(render(findings, about))
        return path

    def _onnx(self, state: TrainedState) -> Path:
        try:
            from sotglp.export.onnx_file import export_model
        except ModuleNotFoundError as error:
            raise SotglpError(f"the export needs {error.name}: pip install 'sotglp[onnx]'") from error
        path, served = self._new_path(".onnx"), state.served
        export_model(
            path,
            served.model,
            classes=list(served.labels),
            inference=served.inference.model_copy(update={"precision": "fp32"}),
            calibration=served.record.calibration,
        )
        return path

    def _new_path(self, suffix: str) -> Path:
        folder = Path(self._folder.name)
        # Some systems remove files from the temporary folder after days.
        folder.mkdir(exist_ok=True)
        return folder / f"{next(self._names)}{suffix}"


def _has_file(future: asyncio.Future[Path]) -> bool:
    is_written = future.done() and not future.cancelled() and future.exception() is None
    return is_written and future.result().exists()


def _free_name(path: Path) -> Path:
    """Return the path, or with a number if it exists."""
    numbered = (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(2))
    return next(one for one in itertools.chain([path], numbered) if not os.path.lexists(one))
