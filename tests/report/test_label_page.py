from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from sotglp import Backbone
from sotglp.images.check import check_set
from sotglp.images.image_set import ImageSet
from sotglp.report import label_page as module
from sotglp.report.label_page import CONTENTS, LabelPageOrigin, render_label_page
from sotglp.scoring.label_doubts import Agreement
from sotglp.scoring.set_review import LabelReview, SetReview, find_duplicate_groups, review_labels
from support.browser import chromium
from support.report_samples import Page, check_alone
from support.samples import make_class_folders

SECTIONS = [name for name, _ in CONTENTS]
HOSTILE = "<img src=x onerror=alert(1)>\u202e.png"
ORIGIN = LabelPageOrigin("sotglp data check '<b>'", "<b> photos", "tiny", "2026-01-02")


def review(folder: Path, labels: LabelReview | None = None, warnings: tuple[str, ...] = ()) -> SetReview:
    images = ImageSet.from_path(folder)
    return SetReview(str(folder), images, check_set(images), labels, warnings)


def page_of(reviews: list[SetReview]) -> Page:
    content = render_label_page(reviews, find_duplicate_groups(reviews), ORIGIN)
    assert content == render_label_page(reviews, find_duplicate_groups(reviews), ORIGIN)
    return check_alone(content, SECTIONS)


@pytest.fixture
def photos(class_folders: Path) -> Path:
    """Class folders with one of each problem."""
    sea, leaf, brick = (class_folders / name for name in ("blue sea", "green leaf", "red_brick"))
    (brick / "0.png").replace(sea / HOSTILE)
    shutil.copy(leaf / "1.png", leaf / "copy.png")
    shutil.copy(leaf / "2.png", brick / "two labels.png")
    Image.open(sea / "1.png").resize((70, 90)).save(sea / "larger.png")
    (brick / "3.png").write_bytes(b"no image")
    Image.new("RGB", (40, 30), (100, 100, 100)).save(brick / "plain.png")
    Image.new("RGB", (40, 30), (0, 0, 40)).save(sea / "night.png")
    return class_folders


def test_a_page_shows_what_was_found(photos: Path, tiny_backbone: Backbone, tmp_path: Path) -> None:
    one = review(photos, warnings=("3 files <i>were</i> left out",))
    labels = review_labels(one.images, one.finding, tiny_backbone)
    assert labels is not None
    test = make_class_folders(tmp_path / "test", per_class=2, seed=9)
    Image.open(photos / "blue sea" / "2.png").save(test / "blue sea" / "seen.jpg", quality=95)
    taken = page_of([replace(one, labels=labels), review(test)])
    doubts = taken.section("doubts")
    assert r"<img src=x onerror=alert(1)>\u202e.png" in doubts
    assert "Labelled blue sea" in doubts
    assert "looks like red_brick" in doubts
    assert len([image for image in taken.of("img") if (image["src"] or "").startswith("data:image/jpeg")]) >= 8
    duplicates = taken.section("duplicates")
    for text in ("copy.png", "In 2 classes, so a label is wrong", "In several sets", "seen.jpg", "larger.png"):
        assert text in duplicates
    assert "plain.png" in taken.section("odd")
    assert "night.png" in taken.section("odd")
    assert "3.png" in taken.section("left-out")
    assert "3 files <i>were</i> left out" in taken.section("left-out")
    assert "red_brick" in taken.section("layout")
    assert "sotglp data apply '<b> photos' corrections.csv" in taken.section("correct")
    assert f"{len(labels.doubts)} to look at" in taken.section("summary")


def test_a_page_without_findings_says_so(class_folders: Path) -> None:
    taken = page_of([review(class_folders)])
    assert "Labels were not checked" in taken.section("doubts")
    for section in ("duplicates", "odd", "left-out"):
        assert "There are none" in taken.section(section)


def test_doubts_near_chance_are_withheld(class_folders: Path) -> None:
    labels = LabelReview(Agreement(0.4, 1 / 3), (), ("blue sea", "green leaf", "red_brick"))
    taken = page_of([review(class_folders, labels)])
    assert "doubts are withheld" in taken.section("summary")
    assert "labels in doubt – withheld" in taken.section("summary")
    assert "Withheld" in taken.section("doubts")


def test_long_lists_are_cut_and_counted(class_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_MEMBERS", 2)
    monkeypatch.setattr(module, "MAX_ODD", 1)
    for place in range(3):
        shutil.copy(class_folders / "blue sea" / "0.png", class_folders / "blue sea" / f"again {place}.png")
        Image.new("RGB", (30, 30), (9 * place, 9 * place, 50)).save(class_folders / "red_brick" / f"plain {place}.png")
    taken = page_of([review(class_folders)])
    assert "and 2 more images" in taken.section("duplicates")
    assert "more image" in taken.section("odd")


def test_the_page_fits_a_telephone_and_has_no_barriers(photos: Path, tmp_path: Path) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    reviews = [review(photos)]
    (tmp_path / "page.html").write_bytes(render_label_page(reviews, find_duplicate_groups(reviews), ORIGIN))
    with chromium() as browser:
        for scheme in ("light", "dark"):
            context = browser.new_context(
                viewport={"width": 390, "height": 800}, color_scheme=scheme, bypass_csp=True, java_script_enabled=True
            )
            page = context.new_page()
            page.goto((tmp_path / "page.html").as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") == 390
            found = axe.Axe().run(page).response["violations"]
            assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
