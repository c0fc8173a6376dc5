"""Uploads are decoded in processes that end when they take too much."""

from __future__ import annotations

import asyncio
import contextlib
import io
import operator
import re
import sys
from functools import partial
from typing import Any

import anyio
import numpy as np
import psutil
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from sotglp.backbone import Backbone
from sotglp.errors import UnreadableImageError
from sotglp.images.decode import open_image
from sotglp.web.decode_worker import Bounds, frame
from sotglp.web.decoding import Decoders, RequestDecoder, in_own_process, in_process
from sotglp.web.limits import BusyError
from sotglp.web.service import _preprocessing
from sotglp.web.uploads import Upload
from support.costly_images import jpeg_of_scans, png_of_zeros
from support.web_server import files, png

FAST = Bounds(10**6, 1)
# Stands for a decoder that a small file keeps busy for ever, and for one that takes all memory.
ENDLESS, CONTENT = partial(re.fullmatch, rb"(x+x+)+y"), b"x" * 60
HUGE = partial(operator.mul, 10**9)


@pytest.mark.parametrize("size", [(90, 40), (33, 57), (400, 300), (224, 224), (10, 200)])
def test_a_framed_image_has_the_pixels_of_the_whole_one(size: tuple[int, int]) -> None:
    backbone = Backbone.load("tiny")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    framed = frame(_preprocessing(backbone), buffer.getvalue())
    assert (framed.width, framed.height) == size
    assert framed.image.size == backbone.image_size[::-1]
    np.testing.assert_array_equal(backbone.preprocess(framed.image), backbone.preprocess(open_image(picture)))


@pytest.mark.skipif(sys.platform == "win32", reason="the system has no limits of processes")
def test_a_decoder_that_takes_too_much_is_ended() -> None:
    before = set(psutil.Process().children())

    async def run() -> None:
        with pytest.raises(anyio.BrokenWorkerProcess):
            await in_process(ENDLESS, CONTENT, FAST)
        with pytest.raises(UnreadableImageError, match="more than 1 seconds"):
            await in_own_process(ENDLESS, CONTENT, FAST)
        for run_somewhere in (in_process, in_own_process):
            with pytest.raises(UnreadableImageError, match="too much memory"):
                await run_somewhere(HUGE, CONTENT, FAST)
        assert await in_process(len, CONTENT, FAST) == (True, len(CONTENT))

    asyncio.run(run())
    assert set(psutil.Process().children()) <= before


@pytest.mark.skipif(sys.platform == "win32", reason="the system has no limits of processes")
def test_a_slow_image_does_not_delay_those_of_other_requests() -> None:
    before = set(psutil.Process().children())

    async def run() -> list[str]:
        decoders = Decoders(FAST, Bounds(10**6, 2))
        order = []

        async def one(decoder: RequestDecoder, name: str, work: Any, content: bytes) -> None:
            with contextlib.suppress(UnreadableImageError):
                await decoder.run(Upload(name, io.BytesIO(content)), work)
            order.append(name)

        slow = decoders.of_request()
        hostile = asyncio.create_task(one(slow, "slow", ENDLESS, CONTENT))
        await asyncio.sleep(0.5)
        await asyncio.gather(*(one(decoders.of_request(), "quick", len, CONTENT) for _ in range(9)))
        hostile.cancel()
        await asyncio.wait([hostile])
        return order

    assert asyncio.run(run())[:9] == ["quick"] * 9
    assert set(psutil.Process().children()) <= before


def test_an_image_of_many_pixels_is_decoded_alone_and_few_requests_wait_for_it() -> None:
    async def run() -> None:
        decoders = Decoders(Bounds(100, 1), Bounds(10**6, 5))
        upload = Upload("a.png", io.BytesIO(png(size=40)))
        async with decoders.large:
            waiting = [asyncio.create_task(decoders.of_request().run(upload, len)) for _ in range(16)]
            while decoders.waiting.n_taken < 16:
                await asyncio.sleep(0.01)
            with pytest.raises(BusyError, match="too many large images"):
                await decoders.of_request().run(upload, len)
            for task in waiting[1:]:
                task.cancel()
        assert await waiting[0] == len(png(size=40))

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
