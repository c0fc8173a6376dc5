"""Uploads are decoded in processes that end when they take too much."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from sotglp.backbone import Backbone
from sotglp.errors import UnreadableImageError
from sotglp.images.decode import open_image
from sotglp.web.decode_worker import Bounds
from sotglp.web.decoding import Decoders, FramedImage, Job, RequestDecoder, WorkerEndedError
from sotglp.web.limits import BusyError
from sotglp.web.service import _preprocessing
from sotglp.web.uploads import Upload
from support import odd_worker
from support.costly_images import jpeg_of_scans, png_of_zeros
from support.web_server import files, png

FAST, SLOW = Bounds(10**6, 1), Bounds(10**6, 2)
COMMAND = (sys.executable, str(Path(odd_worker.__file__)))
JOBS = ("length", "endless", "huge", "full", "noise")
LENGTH, ENDLESS, HUGE, FULL, NOISE = (Job(name, {}) for name in JOBS)


def upload(content: bytes = b"12345", name: str = "a.png") -> Upload:
    return Upload(name, io.BytesIO(content))


@contextlib.contextmanager
def decoders(ordinary: Bounds = FAST, large: Bounds = SLOW, **options: Any) -> Iterator[Decoders]:
    """Decoding processes with further jobs; none is left at the end."""
    before = set(psutil.Process().children())
    own = Decoders(ordinary, large, **{"command": COMMAND, **options})
    try:
        yield own
    finally:
        own.close()
    assert set(psutil.Process().children()) <= before


@pytest.mark.parametrize("size", [(90, 40), (33, 57), (400, 300), (224, 224), (10, 200)])
def test_a_framed_image_has_the_pixels_of_the_whole_one(size: tuple[int, int]) -> None:
    backbone = Backbone.load("tiny")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")

    async def run() -> FramedImage:
        with decoders() as own:
            return await own.of_request().frame(upload(buffer.getvalue()), _preprocessing(backbone), {})

    framed = asyncio.run(run())
    assert (framed.width, framed.height) == size
    assert framed.image.size == backbone.image_size[::-1]
    np.testing.assert_array_equal(backbone.preprocess(framed.image), backbone.preprocess(open_image(picture)))


@pytest.mark.skipif(sys.platform == "win32", reason="the system has no limits of processes")
def test_a_decoder_that_takes_too_much_is_ended() -> None:
    async def run() -> None:
        with decoders(large=FAST) as own:
            with pytest.raises(WorkerEndedError):
                await own.in_process(ENDLESS, upload())
            with pytest.raises(UnreadableImageError, match="more than 1 seconds"):
                await own.in_own_process(ENDLESS, upload())
            for run_somewhere in (own.in_process, own.in_own_process):
                with pytest.raises(UnreadableImageError, match="too much memory"):
                    await run_somewhere(HUGE, upload())
            answer = await own.in_process(LENGTH, upload())
            assert answer is not None
            assert answer.header["length"] == 5

    asyncio.run(run())


def test_a_decoder_that_answers_with_something_else_is_ended() -> None:
    async def run() -> None:
        with decoders() as own:
            with pytest.raises(WorkerEndedError):
                await own.in_process(NOISE, upload())
            with pytest.raises(UnreadableImageError):
                await own.of_request().run(upload(), NOISE)

    asyncio.run(run())


def test_a_full_disk_is_no_fault_of_the_image() -> None:
    async def run() -> None:
        with decoders() as own:
            with pytest.raises(OSError, match="No space left on device") as caught:
                await own.of_request().run(upload(), FULL)
            assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, None)

    asyncio.run(run())


@pytest.mark.skipif(sys.platform == "win32", reason="the system has no limits of processes")
def test_a_slow_image_does_not_delay_those_of_other_requests() -> None:
    async def run() -> list[str]:
        order = []
        with decoders() as own:

            async def one(decoder: RequestDecoder, name: str, job: Job) -> None:
                with contextlib.suppress(UnreadableImageError):
                    await decoder.run(upload(name=name), job)
                order.append(name)

            hostile = asyncio.create_task(one(own.of_request(), "slow", ENDLESS))
            await asyncio.sleep(0.5)
            await asyncio.gather(*(one(own.of_request(), "quick", LENGTH) for _ in range(9)))
            hostile.cancel()
            await asyncio.wait([hostile])
        return order

    assert asyncio.run(run())[:9] == ["quick"] * 9


def test_an_image_of_many_pixels_is_decoded_alone_and_few_requests_wait_for_it() -> None:
    async def run() -> None:
        large = png(size=40)
        with decoders(Bounds(100, 1), Bounds(10**6, 5)) as own:
            async with own.large:
                waiting = [asyncio.create_task(own.of_request().run(upload(large), LENGTH)) for _ in range(16)]
                while own.waiting.n_taken < 16:
                    await asyncio.sleep(0.01)
                with pytest.raises(BusyError, match="too many large images"):
                    await own.of_request().run(upload(large), LENGTH)
                for task in waiting[1:]:
                    task.cancel()
            assert (await waiting[0]).header["length"] == len(large)

    asyncio.run(run())


def test_a_large_image_is_decoded_whatever_its_header_reserves(shared: TestClient) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (9000, 9000)).save(buffer, "WEBP", quality=1, method=0)
    assert shared.post("/predict", files=files(buffer.getvalue())).status_code == 200


def test_a_class_is_added_from_ordinary_images_only(shared: TestClient) -> None:
    refused = shared.post("/classes", files=files(png_of_zeros(5001, 5000)), data={"name": "fog"})
    assert (refused.status_code, "25000000 pixels" in refused.json()["error"]) == (422, True)


def test_an_upload_that_is_no_image_is_named(shared: TestClient) -> None:
    refused = shared.post("/predict", files=files(("bomb.jpg", jpeg_of_scans(500, 500, 5000))))
    assert (refused.status_code, "can't read bomb.jpg: it has more than 100 scans" in refused.text) == (422, True)
