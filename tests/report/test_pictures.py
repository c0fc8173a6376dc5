from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from sotglp.explain.explanation import ClassExplanation, Explanation
from sotglp.report.pictures import LONGEST_SIDE, Looked, Thumbnail


def opened(thumbnail: Thumbnail) -> Image.Image:
    kind, _, data = thumbnail.uri.partition(",")
    assert kind == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


@pytest.mark.parametrize(
    ("size", "shown"),
    [((1200, 600), (240, 120)), ((300, 900), (80, 240)), ((64, 48), (64, 48)), ((4000, 5), (240, 1))],
)
def test_thumbnails_are_small_jpegs(size: tuple[int, int], shown: tuple[int, int]) -> None:
    picture = Image.new("RGB", size, (200, 30, 30))
    thumbnail = Thumbnail.of(picture)
    assert (thumbnail.width, thumbnail.height) == opened(thumbnail).size == shown
    assert max(shown) <= LONGEST_SIDE
    assert np.abs(np.asarray(opened(thumbnail)).mean(axis=(0, 1)) - (200, 30, 30)).max() < 3
    assert picture.size == size
    assert thumbnail == Thumbnail.of(picture)


def test_noise_stays_small() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (900, 900, 3), np.uint8)
    assert len(Thumbnail.of(Image.fromarray(noise)).uri) < 40_000


def test_boxes_shrink_with_the_picture() -> None:
    boxes = np.array([[[-60.0, 0, 600, 600], [600, 0, 1260, 600]]])
    classes = tuple(
        ClassExplanation(name, 0.5, 0.2, 0.1, np.full((2, 1, 2), 0.5, np.float32)) for name in ("cat", "dog", "sea")
    )
    explanation = Explanation(
        Image.new("RGB", (1200, 600)), "a.png", boxes, classes, np.empty(0, np.float32), 0.0, "mcm", 1.0, None
    )
    looked = Looked.of(explanation, ("sea", "cat"))
    assert [one.label for one in looked.maps] == ["sea", "cat"]
    np.testing.assert_allclose(looked.maps[0].boxes, boxes / 5)
    np.testing.assert_allclose(looked.maps[1].together, [[0.5, 0.5]])
