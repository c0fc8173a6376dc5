from __future__ import annotations

import base64
import io
import re
import sys
from collections.abc import Callable
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
from markupsafe import Markup
from PIL import Image

from sotglp.report import charts
from sotglp.report.reliability import Reliability

RNG = np.random.default_rng(0)
INSIDE, OUTSIDE = RNG.normal(1, 1, 60).astype(np.float32), RNG.normal(0, 1, 40).astype(np.float32)
BEFORE, AFTER = (
    Reliability.of(RNG.dirichlet(np.ones(3), 50).astype(np.float32), RNG.integers(3, size=50)) for _ in "ab"
)
SHARES = np.zeros((50, 50))
SHARES[3, 7], SHARES[4, 4] = 0.25, 1

CHARTS: dict[str, Callable[[], Markup]] = {
    "confusion": lambda: charts.confusion_matrix(SHARES),
    "reliability": lambda: charts.reliability_diagram(BEFORE, AFTER),
    "reliability, not calibrated": lambda: charts.reliability_diagram(BEFORE, None),
    "scores": lambda: charts.score_histogram(INSIDE, OUTSIDE, 0.5),
    "equal scores": lambda: charts.score_histogram(0 * INSIDE, 0 * OUTSIDE, None),
    "a single score": lambda: charts.score_histogram(INSIDE[:1], OUTSIDE[:1], 0.0),
    "roc": lambda: charts.roc_curve(np.array([0, 0.2, 1]), np.array([0, 0.9, 1]), (0.2, 0.9)),
    "curve": lambda: charts.training_curve([1, 2, 3], [3.0, 2.0, 1.5], "loss", is_share=False),
    "a single epoch": lambda: charts.training_curve([1], [-3.0], "loss", is_share=True),
}


def svg_of(image: Markup) -> str:
    kind, _, data = image.partition(",")
    assert kind == "data:image/svg+xml"
    return unquote(data)


@pytest.mark.parametrize("draw", CHARTS.values(), ids=list(CHARTS))
def test_a_chart_is_a_small_reproducible_svg_image_that_fits_an_attribute(draw: Callable[[], Markup]) -> None:
    image = draw()
    assert not re.search('[<>"&#]', image)
    svg = svg_of(image)
    assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
    assert not re.search(r"<metadata><rdf|<!DOCTYPE|DejaVu|\bnan\b", svg)
    assert len(image) < 30_000
    assert draw() == image


def test_the_cells_of_a_large_matrix() -> None:
    svg = svg_of(CHARTS["confusion"]())
    data = re.search(r"data:image/png;base64,([^']+)", svg)
    assert data
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data[1]))).convert("RGBA"))
    assert pixels.shape == (50, 50, 4)
    rows, columns = pixels[..., 3].nonzero()
    filled = {cell: int(pixels[(*cell, 3)]) for cell in zip(rows.tolist(), columns.tolist(), strict=True)}
    assert filled == {(3, 7): pytest.approx(128, abs=1), (4, 4): 255}
    # Not mirrored: a matrix that only scales and moves.
    assert re.search(r"<image [^>]*transform='matrix\(([\d.]+) 0 0 \1 ", svg)


def test_pyplot_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # an import would fail
    assert CHARTS["reliability"]().startswith("data:")
