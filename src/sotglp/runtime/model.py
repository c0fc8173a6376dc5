"""An exported model, run by onnxruntime."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sotglp.console.progress import progress_bar
from sotglp.errors import SotglpError, UnreadableImageError, first_line
from sotglp.files.regular import read_regular
from sotglp.images.decode import ImageLike, open_image
from sotglp.runtime.onnx_file import STANDARD_DOMAINS, look_through
from sotglp.runtime.record import METADATA_KEY, PortableRecord, parse_record
from sotglp.runtime.time_limit import TookTooLongError, call_within

SECONDS_TO_LOAD, SECONDS_AN_IMAGE = 300.0, 60.0
"""Times that only a file made to do harm exceeds: a graph may loop without end, also while it is loaded."""

PART_PIXELS = 2**17
"""Pixels that the graph takes at once: feature maps of more of them don't fit the caches of a CPU."""

_DECISIONS = ("probabilities", "ood_score", "label_index")


class PortablePredictions(NamedTuple):
    """Predictions of an exported model for n images.

    Attributes
    ----------
    indices : NDArray
        Positions of the readable images, (n,).
    probabilities : NDArray
        At the calibrated temperature, (n, C).
    ood_scores : NDArray
        Larger is more in-distribution, (n,).
    label_indices : NDArray
        The most probable class, (n,).
    maps : NDArray or None
        Fraction of the mass of each prompt of that class on each patch, (n, N, rows, columns); None for a model without
        a transport plan.
    """

    indices: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    ood_scores: NDArray[np.float32]
    label_indices: NDArray[np.int64]
    maps: NDArray[np.float32] | None


class PortableModel:
    """A model that ``sotglp export`` wrote; create it with :meth:`load`.

    Attributes
    ----------
    record : PortableRecord
        Record of the file.
    """

    def __init__(self, session: Any, record: PortableRecord) -> None:
        self._session = session
        self.record = record

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, threads: int | None = None) -> PortableModel:
        """Read a file that ``sotglp export`` wrote.

        Parameters
        ----------
        path : path
            The file.
        threads : int or None, default None
            Number of threads; None for one per core.

        Raises
        ------
        SotglpError
            If the file is missing, damaged, of another program or a newer sotglp, or uses custom operators or external
            data; or if onnxruntime isn't installed.
        """
        try:
            content = read_regular(Path(path))
        except (OSError, ValueError) as error:
            raise SotglpError(f"there is no exported model {path} that can be read ({_reason(error)})") from error
        return cls.from_bytes(content, os.fspath(path), threads=threads)

    @classmethod
    def from_bytes(cls, content: bytes, name: str, *, threads: int | None = None) -> PortableModel:
        """Load a model from the content of a file, called ``name`` in messages; see :meth:`load`."""
        try:
            found = look_through(content)
            if METADATA_KEY not in found.metadata:
                raise SotglpError(f"{name} isn't an exported model of sotglp: give one that `sotglp export` wrote")
            if found.has_external_data or found.domains - STANDARD_DOMAINS:
                what = "external data" if found.has_external_data else "custom operators"
                raise SotglpError(f"{name} uses {what}, which `sotglp export` never writes: it isn't loaded")
            record = parse_record(found.metadata[METADATA_KEY])
            session = _session(content, threads)
            _check_shapes(session, record)
        except (ValueError, RuntimeError) as error:
            if isinstance(error, SotglpError):
                raise
            raise SotglpError(f"{name} can't be read as an exported model: {_reason(error)}") from error
        return cls(session, record)

    @property
    def classes(self) -> tuple[str | int | float, ...]:
        """Class labels, in the order of the probabilities."""
        return self.record.classes

    def rejects(self, ood_scores: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return whether each image is rejected as unknown, (n,), from its scores.

        Raises
        ------
        SotglpError
            If the model isn't calibrated for its score.
        """
        if self.record.threshold is None:
            raise SotglpError("the exported model has no threshold: export one that is calibrated for its OOD score")
        # In this order, so that a score that is NaN is rejected.
        accepted: NDArray[np.bool_] = ood_scores >= self.record.threshold
        return ~accepted

    def predict(
        self,
        images: Sequence[ImageLike],
        *,
        batch_size: int = 32,
        unreadable: list[UnreadableImageError] | None = None,
        show_progress: bool = False,
    ) -> PortablePredictions:
        """Predict the classes of images.

        Parameters
        ----------
        images : sequence of paths, bytes or PIL images
            n images.
        batch_size : int, default 32
            Images per batch.
        unreadable : list or None
            Collects the errors of images that can't be decoded, which are skipped; None raises the first one.
        show_progress : bool, default False
            Show a progress bar on a terminal.

        Raises
        ------
        UnreadableImageError
            If an image can't be decoded and ``unreadable`` is None.
        SotglpError
            If there are no images or none can be decoded, ``batch_size`` is below 1, or the graph fails.
        """
        if isinstance(images, str | bytes | os.PathLike) or not len(images):
            raise SotglpError("give a list of images, at least one")
        if batch_size < 1:
            raise SotglpError(f"batch_size = {batch_size} must be at least 1")
        rows: list[tuple[NDArray[Any], ...]] = []
        with progress_bar("predicting", len(images), "images", show=show_progress) as advance:
            for indices, pixels in self._batches(images, batch_size, unreadable):
                rows.append((indices, *self.run(pixels)))
                advance(len(indices), "")
        if not rows:
            reason = unreadable[0] if unreadable else "no images"
            raise SotglpError(f"none of the {len(images)} images can be read: {reason}")
        indices, probabilities, scores, labels, *maps = map(np.concatenate, zip(*rows, strict=True))
        grid = self.record.patch_grid
        shaped = maps[0].reshape(*maps[0].shape[:2], *grid) if maps else None
        return PortablePredictions(indices, probabilities, scores, labels, shaped)

    def run(self, pixels: NDArray[np.float32]) -> list[NDArray[Any]]:
        """Return the outputs of the graph for preprocessed images (B, 3, H, W), in the order of the file.

        Raises
        ------
        SotglpError
            If the graph fails, or its outputs are not predictions.
        """
        size = max(1, PART_PIXELS // (pixels.shape[2] * pixels.shape[3]))
        parts = [self._run_part(pixels[start : start + size]) for start in range(0, len(pixels), size)]
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]

    def _run_part(self, pixels: NDArray[np.float32]) -> list[NDArray[Any]]:
        import onnxruntime

        options = onnxruntime.RunOptions()
        options.log_severity_level = 4
        seconds = SECONDS_AN_IMAGE * len(pixels)
        try:
            outputs: list[NDArray[Any]] = call_within(
                seconds,
                lambda: self._session.run(None, {"images": pixels}, options),
                stop=lambda: setattr(options, "terminate", True),
            )
        except TookTooLongError as error:
            raise SotglpError(
                f"the exported model takes more than {seconds:g} seconds for {len(pixels)} images, probably in a loop "
                "without end: don't use a file of somebody you don't trust, or predict with a smaller model"
            ) from error
        except Exception as error:  # onnxruntime raises kinds of its own
            raise SotglpError(f"the exported model fails on these images: {_reason(error)}") from error
        n_images, n_classes = len(pixels), len(self.classes)
        expected: list[tuple[int, ...]] = [(n_images, n_classes), (n_images,), (n_images,)]
        fits = [output.shape for output in outputs[:3]] == expected and all(np.isfinite(one).all() for one in outputs)
        if len(outputs) > 3:
            maps, n_patches = outputs[3], self.record.patch_grid[0] * self.record.patch_grid[1]
            fits = fits and maps.ndim == 3 and (len(maps), maps.shape[2]) == (n_images, n_patches)
        if not fits:
            raise SotglpError("the outputs of the exported model are not predictions: it is damaged, export it again")
        return outputs

    def _batches(
        self, images: Sequence[ImageLike], batch_size: int, unreadable: list[UnreadableImageError] | None
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        for start in range(0, len(images), batch_size):
            indices, pixels = [], []
            for index in range(start, min(start + batch_size, len(images))):
                try:
                    pixels.append(self.record.preprocessing(open_image(images[index], self.record.value_ranges)))
                except UnreadableImageError as error:
                    if unreadable is None:
                        raise
                    unreadable.append(error)
                    continue
                indices.append(index)
            if indices:
                yield np.array(indices, np.int64), np.stack(pixels)


def _session(content: bytes, threads: int | None) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise SotglpError("an exported model needs onnxruntime: install it with pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are reported once, by sotglp
    # Threads that spin while waiting slow down a busy machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return call_within(
            SECONDS_TO_LOAD,
            lambda: onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"]),
        )
    except TookTooLongError as error:
        raise ValueError(f"loading it takes more than {SECONDS_TO_LOAD:g} seconds") from error
    except Exception as error:  # onnxruntime raises kinds of its own
        raise ValueError(_reason(error)) from error


def _check_shapes(session: Any, record: PortableRecord) -> None:
    """Refuse a graph whose inputs or outputs don't match the record."""
    taken, given = session.get_inputs(), session.get_outputs()
    pixels = [3, *record.preprocessing.size]
    if [one.name for one in taken] != ["images"] or taken[0].type != "tensor(float)" or taken[0].shape[1:] != pixels:
        raise ValueError("its input is not the images that its record describes")
    if tuple(one.name for one in given) not in (_DECISIONS, (*_DECISIONS, "maps")):
        raise ValueError("its outputs are not those of an exported model")
    kinds = {"label_index": "tensor(int64)"}
    if any(one.type != kinds.get(one.name, "tensor(float)") for one in given):
        raise ValueError("its outputs have other types than those of an exported model")
    if given[0].shape[1:] != [len(record.classes)]:
        raise ValueError("it has another number of classes than its record")


def _reason(error: Exception) -> str:
    """Return the first line of an error's message."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return first_line(error)
