from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sotglp import SOTGLP, Backbone
from sotglp.images.image_set import ImageSet
from sotglp.methods.method import METHODS
from sotglp.methods.registry import build_model
from sotglp.model_file.record import CalibrationRecord
from sotglp.model_file.save import calibration_record
from sotglp.report import page as module
from sotglp.report.findings import Findings, evaluate_for_report
from sotglp.report.page import render
from sotglp.report.template import between, counted, percent, setting
from sotglp.scoring.calibration import calibrate_held_out
from sotglp.scoring.intervals import Interval
from support.report_samples import READING, Page, about, as_predicted, check_alone, named, others, record_of


@pytest.fixture(scope="module")
def whole(model: SOTGLP, images: ImageSet) -> tuple[Findings, bytes]:
    """Findings of a calibrated model with mistakes and OOD sets, and their page."""
    labelled = as_predicted(model, images, wrong=4)
    calibration = calibrate_held_out(model, labelled, READING, 0.6)
    found = evaluate_for_report(model, labelled, {"noise": others(), "more": others(4, 3)}, READING, calibration)
    saved = CalibrationRecord(**calibration_record(calibration) or {})
    record = record_of(model, calibration=saved)
    return found, render(found, about(model, record=record, ood={"noise": "photos/noise", "more": "photos/more"}))


def test_a_page_says_what_was_found(whole: tuple[Findings, bytes]) -> None:
    found, page = whole
    taken = check_alone(page)
    headline = taken.section("headline")
    assert found.accuracy.interval is not None
    for text in (
        percent(found.accuracy.value),
        between(found.accuracy.interval),
        "3 classes",
        f"{found.ood['noise'].figures['auroc']:.3f}",
        "calibrated",
    ):
        assert " ".join(text.split()) in headline
    fields = [attributes.get("style") for attributes in taken.of("td") if "--share" in (attributes.get("style") or "")]
    assert len(fields) == np.count_nonzero(found.confusion.counts)
    worst = found.confusion.worst(9)[0]
    assert worst.label in taken.section("worst")
    assert worst.mistaken_for in taken.section("worst")
    for mistake in found.mistakes:
        assert f"Predicted {mistake.predicted}" in taken.section("mistakes").replace("  ", " ")
        assert mistake.name in taken.section("mistakes")
    assert f"ECE {found.reliability.error:.3f} uncalibrated" in taken.section("calibration")
    assert found.calibrated is not None
    assert f"{found.calibrated.error:.3f} calibrated" in taken.section("calibration")
    assert "FPR95" in taken.section("ood")
    assert "left of the threshold the model answers “unknown”" in taken.section("ood")
    assert found.prompts is not None
    assert f"{found.prompts['use']['overlap']:.3f}" in taken.section("prompts")
    assert "Local contexts of blue sea" in taken.section("prompts")
    assert "Loss: from 3 to 1." in taken.section("training")
    assert "100.0" not in taken.section("training")
    configuration = taken.section("configuration")
    for text in ("n_local_prompts", "learning_rate", "sha256:0123", "green leaf", "0.0.9", "unknown” below the mcm"):
        assert text in configuration
    assert "sotglp fit TRAIN_DIR" in taken.section("reproduce")
    assert "sotglp report m.safetensors photos/test --out r.html" in taken.section("reproduce")
    assert "photos/more" in taken.section("reproduce")
    assert "2026-01-02" in taken.text


def test_maps_lie_over_the_picture(whole: tuple[Findings, bytes]) -> None:
    found, page = whole
    taken = Page(page)
    pictures = [attributes for attributes in taken.of("image") if (attributes.get("id") or "").startswith("picture-")]
    assert len(pictures) == len(found.mistakes) == 4
    used = [attributes["href"] for attributes in taken.of("use") if (attributes["href"] or "").startswith("#picture-")]
    # Of each mistake two classes, of each class all prompts together and two alone.
    assert used == [f"#picture-{i}" for i in range(1, 5) for _ in range(6)]
    boxes = {
        (attributes.get("viewbox") or "")
        for attributes in taken.of("svg")
        if "Patches used" in (attributes.get("aria-label") or "")
    }
    assert boxes == {"0 0 40 40"}
    # Of the support's five patches none is left out that has much of the mass.
    outlines = [attributes["d"] or "" for attributes in taken.of("path") if attributes.get("class") == "outline"]
    assert len(outlines) == 24
    assert {outline.count("M") for outline in outlines} <= set(range(1, 6))


def test_the_same_findings_give_the_same_bytes_but_for_the_date(
    model: SOTGLP, images: ImageSet, whole: tuple[Findings, bytes]
) -> None:
    labelled = as_predicted(model, images, wrong=4)
    pages = [
        render(evaluate_for_report(model, labelled, {"noise": others()}, READING), about(model, made_on=day))
        for day in ("2026-01-02", "2026-01-02", "2027-12-31")
    ]
    assert pages[0] == pages[1]
    assert pages[2].replace(b"2027-12-31", b"2026-01-02") == pages[0] != pages[2]


STRANGE = ["<script>alert(1)</script>", "a & \"b\" 'c'", "</style><b>", "{{ 7 * 7 }}", "$x^2$"]


def test_names_are_text_whatever_they_hold(model: SOTGLP, tmp_path: Path) -> None:
    strange = named(model, STRANGE)
    rng = np.random.default_rng(0)
    folder = tmp_path / "a <i>&amp; b"
    folder.mkdir()
    paths = []
    for i in range(6):
        paths.append(folder / f"<img onerror={i}>.png")
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)).save(paths[-1])
    labelled = as_predicted(strange, ImageSet.from_items(paths), wrong=6)
    found = evaluate_for_report(strange, labelled, {"<svg/onload=x>&": others()}, READING)
    command, test = "sotglp report '<a b>'", "x<y \u202eturned"
    origin = about(strange, model_file="<u>m & n</u>.safetensors", command=command, test=test)
    page = render(found, origin)
    taken = check_alone(page)
    for name in (*STRANGE, "<svg/onload=x>&", "<u>m & n</u>.safetensors", "'<a b>'", "x<y", str(paths[0])):
        assert name in taken.text
    # What would turn the text that follows round is written out.
    assert "\u202e" not in page.decode()
    assert r"x<y \u202eturned" in taken.text


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_page(tiny_backbone: Backbone, images: ImageSet, method: str) -> None:
    chosen = METHODS[method]
    model = build_model(tiny_backbone, images.classes, chosen.config_class(**chosen.settings))
    found = evaluate_for_report(model, as_predicted(model, images, wrong=2), {"noise": others()}, READING)
    taken = check_alone(render(found, about(model)))
    assert METHODS[method].title in taken.section("headline")
    assert ("no maps" in taken.section("mistakes")) is not found.has_maps
    assert ("no learned contexts" in taken.section("prompts")) is (found.words is None)
    assert "no threshold" in taken.section("ood")


def test_sections_that_have_nothing_say_so(model: SOTGLP, images: ImageSet) -> None:
    found = evaluate_for_report(model, as_predicted(model, images), {}, READING)
    taken = check_alone(render(found, about(model, record=record_of(model, history=[], training=None, versions={}))))
    assert "No class has a mistake" in taken.section("worst")
    assert "There are no mistakes" in taken.section("mistakes")
    assert "No other images were given" in taken.section("ood")
    assert "no training curve" in taken.section("training")
    assert "contains no training settings" in taken.section("configuration")
    assert "not calibrated" in taken.section("configuration")
    assert "no command reproduces this model" in taken.section("reproduce")
    assert "100.0" in taken.section("headline")


def test_a_hundred_classes_are_a_picture_and_a_table_of_pairs(model: SOTGLP, images: ImageSet) -> None:
    many = named(model, [f"kind {i}" for i in range(100)])
    found = evaluate_for_report(many, as_predicted(many, images, wrong=3), {}, READING)
    page = render(found, about(many))
    taken = check_alone(page)
    assert not [attributes for attributes in taken.of("td") if "--share" in (attributes.get("style") or "")]
    for pair in found.confusion.most_confused(20):
        assert f"{pair.label} {pair.predicted} {pair.count} {pair.n}" in taken.section("confusion")
    assert f"There are no test images of {len(found.confusion.untested)} classes" in taken.section("confusion")
    assert "The other classes are omitted" in taken.section("prompts")
    assert len(taken.of("li")) >= 100
    assert len(page) < 400_000
    perfect = check_alone(render(evaluate_for_report(many, as_predicted(many, images), {}, READING), about(many)))
    assert "No image is misclassified" in perfect.section("confusion")


def test_many_prompts_on_all_patches(tiny_backbone: Backbone, images: ImageSet) -> None:
    model = SOTGLP(tiny_backbone, images.classes, n_local_prompts=12, top_k=None)
    found = evaluate_for_report(model, as_predicted(model, images, wrong=12), {}, READING)
    taken = check_alone(render(found, about(model)))
    assert "the first 8 prompts" in taken.section("mistakes")
    outlines = [attributes for attributes in taken.of("path") if attributes.get("class") == "outline"]
    assert len(outlines) == 12 * 2 * (1 + module.MAX_PROMPTS)


def test_a_single_local_prompt_has_no_overlap(tiny_backbone: Backbone, images: ImageSet) -> None:
    model = SOTGLP(tiny_backbone, images.classes, n_local_prompts=1)
    taken = check_alone(render(evaluate_for_report(model, as_predicted(model, images, 1), {}, READING), about(model)))
    assert "a single local prompt" in taken.section("prompts")
    assert "overlap" not in taken.section("prompts")


def test_what_a_model_or_a_file_lacks(model: SOTGLP, whole: tuple[Findings, bytes]) -> None:
    bad = replace(whole[0].mistakes[0], name="caf\udce9\x00.png")
    ood = {"far": replace(whole[0].ood["noise"], interval=None)}
    found = replace(whole[0], mistakes=(bad,), ood=ood, unreadable=tuple(f"{i}.png" for i in range(7)))
    page = check_alone(render(found, about(model)))
    assert r"caf\udce9\x00.png" in page.section("mistakes")
    assert "no interval" in page.section("headline")
    skipped = "7 images could not be read and were skipped: 0.png, 1.png, 2.png, 3.png, 4.png and others."
    assert skipped in page.section("headline")


def test_words_for_numbers() -> None:
    assert percent(0.1234) == "12.3\N{NO-BREAK SPACE}%"
    assert between(Interval(0.1, 0.25)) == "10.0 to 25.0\N{NO-BREAK SPACE}%"
    assert [counted(n, "class", "classes") for n in (0, 1, 2)] == ["0 classes", "1 class", "2 classes"]
    assert counted(2, "image") == "2 images"
    assert [setting(value) for value in (None, True, False, 1, 0, 0.5, "x", (1, 2))] == [
        *("none", "yes", "no", "1", "0", "0.5", "x"),
        "1, 2",
    ]
