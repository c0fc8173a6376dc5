from __future__ import annotations

import base64
import io
import re
import sys
from collections.abc import Callable
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

DRAWN: dict[str, Callable[[], Markup]] = {
    "confusion": lambda: charts.confusion_field(RNG.dirichlet(np.ones(40), 40)),
    "reliability": lambda: charts.reliability_chart(BEFORE, AFTER),
    "reliability, not calibrated": lambda: charts.reliability_chart(BEFORE, None),
    "scores": lambda: charts.score_histogram(INSIDE, OUTSIDE, 0.5, "scores 0"),
    "scores without threshold": lambda: charts.score_histogram(INSIDE, OUTSIDE, None, "scores 1"),
    "scores that are all the same": lambda: charts.score_histogram(0 * INSIDE, 0 * OUTSIDE, None, "scores 2"),
    "a single score": lambda: charts.score_histogram(INSIDE[:1], OUTSIDE[:1], 0.0, "scores 3"),
    "roc": lambda: charts.roc_chart(np.array([0, 0.2, 1]), np.array([0, 0.9, 1]), (0.2, 0.9), "roc 0"),
    "curve": lambda: charts.curve([1, 2, 3], [3.0, 2.0, 1.5], "loss", is_share=False, name="curve loss"),
    "a single epoch": lambda: charts.curve([1], [-3.0], "loss", is_share=True, name="curve one"),
}


@pytest.mark.parametrize("draw", DRAWN.values(), ids=list(DRAWN))
def test_charts_stand_in_a_page_without_changing_it(draw: Callable[[], Markup]) -> None:
    svg = draw()
    root = ElementTree.fromstring(svg)
    assert root.tag == "svg"
    assert set(root.attrib) == {"viewBox", "aria-hidden", "focusable"}
    assert "style" not in [element.tag for element in root.iter()]
    # Nothing from elsewhere, no time of making, no colour that stands for one of the page, no number that is none.
    assert not re.search(r"https?:|<metadata|<!DOCTYPE|#01020|DejaVu|\bnan\b", svg)
    identifiers = re.findall(r'\bid="([^"]*)"', svg)
    assert len(identifiers) == len(set(identifiers))
    assert set(re.findall(r'(?:href="|url\()#([^")]*)', svg)) <= set(identifiers)


def test_the_same_numbers_give_the_same_bytes_and_two_charts_no_common_identifier() -> None:
    one, again = (charts.score_histogram(INSIDE, OUTSIDE, 0.5, "scores 0") for _ in range(2))
    assert one == again
    other = charts.score_histogram(INSIDE, OUTSIDE, 0.5, "scores 1")
    identifiers = [set(re.findall(r'\bid="([^"]*)"', svg)) for svg in (one, other)]
    assert identifiers[0]
    assert not identifiers[0] & identifiers[1]


def test_the_fields_of_a_large_matrix() -> None:
    shares = np.zeros((50, 50))
    shares[3, 7], shares[4, 4] = 0.25, 1
    svg = charts.confusion_field(shares)
    data = re.search(r"data:image/png;base64,([^\"]+)", svg)
    assert data
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data[1]))).convert("RGBA"))
    assert pixels.shape == (50, 50, 4)
    rows, columns = pixels[..., 3].nonzero()
    filled = {place: int(pixels[(*place, 3)]) for place in zip(rows.tolist(), columns.tolist(), strict=True)}
    assert filled == {(3, 7): pytest.approx(128, abs=1), (4, 4): 255}
    # It stands upright: a matrix that only scales and moves.
    assert re.search(r'<image [^>]*transform="matrix\(([\d.]+) 0 0 \1 ', svg)
    assert len(svg) < 60_000


def test_pyplot_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # an import would fail
    assert charts.reliability_chart(BEFORE, AFTER).startswith("<svg")
