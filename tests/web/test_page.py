"""The page in Chromium, with one server and one browser; SOTGLP_SCREENSHOTS=FOLDER stores screenshots."""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from sotglp import SOTGLPClassifier
from sotglp.explain.map_style import USED, VEIL
from support.browser import check_page, chromium, transfer_of, watched_page
from support.painted import CLASSES, NEW_CLASS, beside, paint_pictures, paint_unknown, save_all
from support.web_server import server_process

pytest.importorskip("fastapi", reason="the page needs sotglp[web]")

MAX_IMAGES = 4
"""Images per request: a few images need several requests."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures to show to the model."""
    root = tmp_path_factory.mktemp("pictures")
    for name in (*CLASSES, NEW_CLASS):
        save_all(paint_pictures(name, 4, seed=2), root, name)
    save_all(paint_unknown(2, seed=2), root, "texture")
    star, ring = paint_pictures("red star", 1, seed=3)[0], paint_pictures("blue ring", 1, seed=3)[0]
    beside(star, ring).save(root / "wide.png")
    (root / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing behind it")
    return root


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with a calibrated model of five classes."""
    root = tmp_path_factory.mktemp("model")
    for name in CLASSES:
        save_all(paint_pictures(name, 12, seed=0), root / "train" / name, name)
        save_all(paint_pictures(name, 10, seed=1), root / "held_out" / name, name)
    # With a small epsilon prompts share patches out among them, of which there is little to see after a short fit.
    classifier = SOTGLPClassifier("tiny", epochs=6, augment=False, workers=0, epsilon=0.002)
    classifier.fit(root / "train").calibrate(root / "held_out", method="knn").save(root / "shapes.safetensors")
    with server_process(root / "shapes.safetensors", "--max-images", MAX_IMAGES, "--max-image-mb", 1) as (_, url):
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    with watched_page(browser, address) as opened:
        yield opened


def upload(page: Any, *paths: Path) -> None:
    """Choose files and wait until they are read."""
    n_cards = page.locator(".card").count()
    page.set_input_files("#files", list(paths))
    page.locator(".card").nth(n_cards + len(paths) - 1).wait_for()
    page.wait_for_selector("#progress", state="hidden")


def drawn(page: Any) -> Any:
    """Wait until maps are drawn; their canvases: the bare picture, all prompts, each prompt."""
    page.wait_for_selector("#maps:not([aria-busy]) .panel canvas")
    return page.locator(".panel canvas")


def pixels_of(canvas: Any) -> np.ndarray:
    """Colours of a canvas, (height, width, 3)."""
    url = canvas.evaluate("canvas => canvas.toDataURL('image/png')")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGB"), dtype=float)


def assert_looks_like(drawing: np.ndarray, expected: np.ndarray) -> None:
    """Equal but for rounding, and for how a browser draws an enlarged pixel's edge."""
    difference = np.abs(drawing - expected)
    assert difference.mean() < 2
    assert difference.max() < 16


def alert(page: Any) -> str:
    """Wait for an alert."""
    page.wait_for_selector("#alert:not([hidden])")
    return page.inner_text("#alert-text")


def asked(address: str, path: str, picture: Path, field: str = "images", **query: Any) -> Any:
    """Answer of the API for a picture."""
    files = {field: (picture.name, picture.read_bytes())}
    return httpx.post(f"{address}{path}", files=files, params=query, timeout=60).raise_for_status().json()


def percent(share: float) -> str:
    return "< 1\u00a0%" if share < 0.01 else "> 99\u00a0%" if share > 0.99 else f"{round(100 * share)}\u00a0%"


def test_header_and_model_describe_the_model(page: Any) -> None:
    assert page.inner_text("h1") == "sotglp shapes.safetensors"
    assert page.inner_text("#model-facts") == "5 classes \u00b7 sot-glp \u00b7 tiny \u00b7 cpu"
    page.click("#classes-summary")
    assert page.locator("#classes li").all_inner_texts() == sorted(CLASSES)
    assert "below 0." in page.inner_text("#model-note")
    with page.expect_download() as download:
        page.click("text=Download model")
    assert download.value.suggested_filename == "shapes.safetensors"


def test_a_chosen_picture_shows_the_probabilities_of_the_api(page: Any, address: str, folder: Path) -> None:
    picture = folder / "red_star_1.png"
    upload(page, picture)
    (prediction,) = asked(address, "/predict", picture)["predictions"]
    ranked = sorted(prediction["probabilities"].items(), key=lambda entry: -entry[1])[:5]
    bars = page.locator(".bars li")
    assert bars.locator(".bar-name").all_inner_texts() == [name for name, _ in ranked]
    assert bars.locator(".bar-value").all_inner_texts() == [percent(share) for _, share in ranked]
    widths = bars.locator(".bar-track span").evaluate_all("bars => bars.map(bar => parseFloat(bar.style.width))")
    assert widths == pytest.approx([100 * share for _, share in ranked], abs=0.01)
    assert page.inner_text(".card-label") == f"red star, {percent(ranked[0][1])}"
    assert f"{prediction['ood_score']:.3g}" in page.inner_text(".card-words")
    assert page.locator(".badge").is_hidden()
    assert page.locator(".thumb img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 64


def test_pictures_are_dropped_and_pasted(page: Any, folder: Path) -> None:
    dropped = transfer_of(page, [folder / "blue_ring_1.png", folder / "red_star_1.png"])
    page.dispatch_event("#drop", "dragenter", {"dataTransfer": dropped})
    assert "over" in page.get_attribute("#drop", "class").split()
    page.dispatch_event("#drop", "drop", {"dataTransfer": dropped})
    page.locator(".card").nth(1).wait_for()
    assert "over" not in page.get_attribute("#drop", "class").split()
    pasted = transfer_of(page, [folder / "yellow_heart_1.png"])
    page.evaluate(
        "data => document.body.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data, bubbles: true}))", pasted
    )
    page.locator(".card").nth(2).wait_for()
    assert page.locator(".card-name").all_inner_texts() == ["blue_ring_1.png", "red_star_1.png", "yellow_heart_1.png"]


def test_an_unknown_picture_is_marked_with_score_and_threshold(page: Any, address: str, folder: Path) -> None:
    upload(page, folder / "texture_1.png", folder / "red_star_1.png")
    assert page.locator(".badge").evaluate_all("badges => badges.map(badge => !badge.hidden)") == [True, False]
    assert page.locator(".card-label").first.inner_text() == "No known class"
    threshold = httpx.get(f"{address}/model").json()["threshold"]
    words = page.locator(".card-words").all_inner_texts()
    assert [text.startswith("Looks like a known class (") for text in words] == [False, True]
    assert all(text.endswith(f", threshold {threshold:.3g}).") for text in words)
    assert page.inner_text("#status") == "2 images classified, 1 unknown."


def test_maps_of_an_oblong_picture_match_the_boxes_of_explain(page: Any, address: str, folder: Path) -> None:
    upload(page, folder / "wide.png")  # the model sees its middle alone
    canvases = drawn(page)
    explained = asked(address, "/explain", folder / "wide.png", "image")
    (one,) = explained["classes"]
    n_prompts = one["n_prompts"]
    assert canvases.count() == 2 + n_prompts  # the picture, all prompts together, each of them
    picture = pixels_of(canvases.first)
    assert picture.shape == (320, 640, 3)
    scale = 640 / explained["width"]
    dim = (1 - VEIL) * picture
    masses = np.array([patch["mass"] for patch in one["patches"]])
    assert (masses.min(axis=0) < 0.7 * masses.max()).all()  # otherwise brightness shows nothing
    shown = [masses.mean(axis=1), *masses.T]
    left, top, right, bottom = (round(side * scale) for side in explained["seen"])
    assert (left, top, right, bottom) == (160, 0, 480, 320)
    frame = np.zeros((320, 640), dtype=bool)
    frame[top:bottom, left:right] = True
    frame[top + 4 : bottom - 4, left + 4 : right - 4] = False
    for panel, masses_of_panel in enumerate(shown, start=1):
        drawing = pixels_of(canvases.nth(panel))
        beside = ~frame
        for mass, patch in zip(masses_of_panel, one["patches"], strict=True):
            left, top, right, bottom = (side * scale for side in patch["box"])
            beside[max(int(top) - 7, 0) : int(bottom) + 8, int(left) - 7 : int(right) + 8] = False
            margin = 8  # more than the outline
            middle = (slice(int(top + margin), int(bottom - margin)), slice(int(left + margin), int(right - margin)))
            share = mass / masses.max()
            assert_looks_like(drawing[middle], (1 - VEIL * (1 - share)) * picture[middle])
            # The left edge of an unused patch may be the right one of a used patch.
            corner = drawing[round(top) : int(top + margin), round(left)]
            assert share < USED or corner.min() > 200
        assert beside.mean() > 0.5
        assert_looks_like(drawing[beside], dim[beside])
    assert "dashed frame" in page.inner_text("#maps-legend")


def test_maps_have_text_alternatives_and_a_table(page: Any, address: str, folder: Path) -> None:
    picture = folder / "green_square_1.png"
    upload(page, picture)
    labels = drawn(page).evaluate_all("all => all.map(canvas => canvas.ariaLabel)")
    (one,) = asked(address, "/explain", picture, "image")["classes"]
    first = max(one["patches"], key=lambda patch: patch["mass"][0])
    assert labels[2] == (
        f"Prompt 1: mass on {len(one['patches'])} patches; highest mass {percent(first['mass'][0])} "
        f"in row {first['row'] + 1}, column {first['column'] + 1}."
    )
    page.click("#maps summary")
    cells = page.locator("#maps tbody tr").first.locator("td").all_inner_texts()
    top = one["patches"][0]
    assert cells == [str(top["row"] + 1), str(top["column"] + 1), *map(percent, top["mass"])]
    assert f"Global score {one['global_score']:.3g}" in page.inner_text(".facts")


def test_two_classes_are_compared_side_by_side(page: Any, folder: Path) -> None:
    upload(page, folder / "blue_ring_1.png")
    drawn(page)
    page.select_option("#maps-other", "red star")
    page.wait_for_selector(".maps-classes.two")
    assert page.locator(".class-maps h3").all_inner_texts() == ["blue ring", "red star"]
    boxes = [page.locator(".class-maps").nth(index).bounding_box() for index in (0, 1)]
    assert boxes[0]["y"] == boxes[1]["y"]
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    assert re.match(
        r"blue ring .*, red star .*\. For blue ring the global score is 0\.\d+ higher", page.inner_text("#maps-verdict")
    )
    supports = [pixels_of(page.locator(".class-maps").nth(index).locator("canvas").nth(1)) for index in (0, 1)]
    assert (supports[0] != supports[1]).any()
    page.select_option("#maps-class", "red star")  # the other one can't be the same
    page.wait_for_selector(".maps-classes:not(.two)")
    assert page.locator(".class-maps h3").all_inner_texts() == ["red star"]


def test_a_new_class_is_used_at_once_and_can_be_removed(page: Any, address: str, folder: Path) -> None:
    new = folder / f"{NEW_CLASS.replace(' ', '_')}_4.png"
    upload(page, new, folder / "texture_1.png")
    assert NEW_CLASS not in page.locator(".card").first.inner_text()
    page.fill("#adding-name", NEW_CLASS)
    page.set_input_files("#adding-files", [new.with_name(new.name.replace("4", str(shot))) for shot in (1, 2, 3)])
    assert page.inner_text("#adding-count") == "3 examples chosen"
    try:
        page.click("#adding-submit")
        page.wait_for_selector("#status:has-text('Added the class')", timeout=240_000)
        assert page.locator(".card-label").first.inner_text().startswith(f"{NEW_CLASS}, ")
        assert "recalibrated on 63 stored shots" in page.inner_text("#status")
        assert "are unknown" in page.inner_text("#model-note")
        page.click("#classes-summary")
        page.click(f"[aria-label='Remove the class {NEW_CLASS}']")
        page.wait_for_selector("#status:has-text('Removed the class')")
        assert page.evaluate("document.activeElement.id") == "classes-summary"
        assert page.locator(".badge:visible").count() >= 1
    finally:
        httpx.delete(f"{address}/classes/{NEW_CLASS}", timeout=60)
    assert httpx.get(f"{address}/model").json()["classes"] == sorted(CLASSES)


def test_a_class_that_is_incomplete_or_refused_is_a_sentence(page: Any, folder: Path) -> None:
    page.click("#adding-submit")
    assert alert(page) == "Enter a name for the class."
    assert page.evaluate("document.activeElement.id") == "adding-name"
    page.fill("#adding-name", "red star")
    page.click("#adding-submit")
    assert alert(page) == "Choose or drop at least one image of red star."
    page.set_input_files("#adding-files", [folder / "red_star_1.png"])
    page.click("#adding-submit")
    page.wait_for_selector("#alert-text:has-text('already has')")
    assert alert(page).endswith(".")
    assert page.input_value("#adding-name") == "red star"  # to be corrected


def test_broken_and_large_pictures_are_sentences_and_the_others_are_classified(page: Any, folder: Path) -> None:
    page.set_input_files("#files", [folder / "broken.png"])
    assert re.fullmatch(r"Can't read broken\.png.*\.", alert(page))
    assert page.locator(".card").count() == 0
    upload(page, folder / "broken.png", folder / "red_star_1.png")
    assert page.locator("#alert").is_hidden()
    assert "broken.png" in page.locator(".failed .card-words").inner_text()
    assert page.locator(".failed .show-maps").is_hidden()
    assert page.inner_text("#status").startswith("1 image classified, 0 unknown, 1 unreadable")
    large = {"name": "large.png", "mimeType": "image/png", "buffer": bytes(1_500_000)}
    small = {"name": "small.png", "mimeType": "image/png", "buffer": (folder / "red_star_1.png").read_bytes()}
    page.set_input_files("#files", [large, small])
    assert alert(page) == "Images are limited to 1 MB; not sent: large.png (1.5 MB)."
    page.locator(".card").nth(2).wait_for()
    assert page.locator(".card-name").last.inner_text() == "small.png"
    page.click("#alert-close")
    assert page.locator("#alert").is_hidden()


def test_a_stopped_server_is_a_sentence_and_a_busy_one_is_retried(page: Any, folder: Path) -> None:
    page.route("**/predict", lambda route: route.abort())
    page.set_input_files("#files", [folder / "red_star_1.png"])
    assert alert(page).startswith("The server does not respond")
    page.unroute("**/predict")
    tries = []

    def busy_once(route: Any) -> None:
        tries.append(route)
        if len(tries) == 1:
            route.fulfill(status=503, headers={"Retry-After": "1"}, json={"error": "the queue is full"})
        else:
            route.continue_()

    page.route("**/predict", busy_once)
    upload(page, folder / "red_star_1.png")
    assert len(tries) == 2
    assert page.locator("#alert").is_hidden()


def test_a_batch_is_split_into_requests_and_its_table_is_downloaded(page: Any, address: str, folder: Path) -> None:
    requests = []
    page.on("request", lambda request: requests.append(request.url.rpartition("/")[2]))
    pictures = sorted(folder.glob("*_1.png"))
    assert len(pictures) > MAX_IMAGES
    upload(page, *pictures)
    assert page.locator(".card-name").all_inner_texts() == [path.name for path in pictures]
    with page.expect_download() as download:
        page.click("#csv")
    assert download.value.suggested_filename == "predictions.csv"
    lines = list(csv.reader(Path(download.value.path()).read_text().splitlines()))
    assert lines[0] == ["path", "label", "probability", "ood_score", "is_unknown"]
    assert [line[0] for line in lines[1:]] == [path.name for path in pictures]
    for line, picture in zip(lines[1:], pictures, strict=True):
        (prediction,) = asked(address, "/predict", picture)["predictions"]
        assert line[1] == ("unknown" if prediction["is_unknown"] else prediction["label"])
        assert float(line[2]) == pytest.approx(prediction["probability"], abs=1e-5)
    assert requests.count("predict") == requests.count("predict.csv") == -(-len(pictures) // MAX_IMAGES)
    page.click("#clear")
    assert page.locator(".card").count() == 0
    assert page.locator("#empty").is_visible()


def test_from_start_to_maps_by_keyboard_alone(page: Any, folder: Path) -> None:
    def tab_to(selector: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
        pytest.fail(f"{selector} is not reached")

    with page.expect_file_chooser() as chooser:
        tab_to("#choose")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        page.keyboard.press("Enter")
    chooser.value.set_files([folder / "red_star_1.png", folder / "blue_ring_1.png"])
    page.locator(".card").nth(1).wait_for()
    tab_to(".card:nth-child(2) .show-maps")
    page.keyboard.press("Enter")
    drawn(page)
    assert page.evaluate("document.activeElement.id") == "maps-title"
    assert page.inner_text("#maps-title") == "Maps of blue_ring_1.png"
    tab_to("#maps-other")
    page.keyboard.press("ArrowDown")
    page.wait_for_selector(".maps-classes.two")
    page.keyboard.press("Escape")
    assert page.locator("#maps").is_hidden()
    assert page.evaluate("document.activeElement.matches('.card:nth-child(2) .show-maps')")
    tab_to(".card:nth-child(2) .remove")
    page.keyboard.press("Space")
    assert page.locator(".card-name").all_inner_texts() == ["red_star_1.png"]
    assert page.evaluate("document.activeElement.matches('.card .remove')")


def test_a_picture_from_the_camera(page: Any) -> None:
    page.click("#camera-open")
    page.wait_for_selector("#camera-take:focus")  # once the video runs
    page.click("#camera-take")
    page.locator(".card").first.wait_for()
    assert page.inner_text(".card-name") == "camera_1.jpg"
    page.click("#camera-close")
    assert page.evaluate("document.querySelector('#camera-video').srcObject") is None
    assert page.evaluate("document.activeElement.id") == "camera-open"


def test_a_blocked_camera_is_a_sentence(page: Any) -> None:
    page.evaluate(
        """() => {
            navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException("no", "NotAllowedError"));
        }"""
    )
    page.click("#camera-open")
    assert alert(page).startswith("Camera access is blocked")
    assert page.locator("#camera").is_hidden()


def test_a_model_without_maps_threshold_and_new_classes(browser: Any, address: str, folder: Path) -> None:
    less = {"has_maps": False, "n_prompts": 0, "calibrated": False, "tpr": None, "threshold": None}

    def without(route: Any) -> None:
        route.fulfill(json=route.fetch().json() | less | {"can_add_classes": False})

    with watched_page(browser, address) as page:
        page.route("**/model", without)
        page.reload()
        page.wait_for_selector("#state[data-state=ready]")
        upload(page, folder / "red_star_1.png")
        assert page.locator(".show-maps").is_hidden()
        assert page.locator("#maps").is_hidden()
        assert page.locator("#adding").is_hidden()
        assert page.inner_text("#model-note").endswith("rejected as unknown. This kind of model has no maps.")
        assert page.inner_text(".card-words").endswith("no threshold.")


def test_a_format_without_preview_is_classified(page: Any, folder: Path, tmp_path: Path) -> None:
    Image.open(folder / "red_star_1.png").save(tmp_path / "star.tif")
    upload(page, tmp_path / "star.tif")
    page.wait_for_selector("text=No preview in this browser")
    assert page.inner_text(".card-label").startswith("red star")
    assert len(np.unique(pixels_of(drawn(page).nth(2)))) > 2


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Any, address: str, folder: Path, scheme: str, width: int) -> None:
    options = {"color_scheme": scheme, "viewport": {"width": width, "height": 900}, "reduced_motion": "reduce"}
    with watched_page(browser, address, **options) as page:
        check_page(page, "start")
        upload(page, *(folder / f"{name}_1.png" for name in ("red_star", "purple_moon", "texture")))
        check_page(page, "results")
        page.locator(".show-maps").first.click()
        drawn(page)
        check_page(page, "maps")
        page.click("#maps summary")
        check_page(page, "table")
        page.click("#maps summary")
        page.select_option("#maps-other", index=1)
        page.wait_for_selector(".maps-classes.two")
        check_page(page, "compare")
        page.set_input_files("#files", [folder / "broken.png"])
        alert(page)
        check_page(page, "error")


def begin_batch(page: Any, folder: Path) -> Any:
    """Upload more pictures than one request may have; the route of the second request, which is held."""
    routes = []

    def answer_first(route: Any) -> None:
        routes.append(route)
        if len(routes) == 1:
            route.continue_()

    page.route("**/predict", answer_first)
    page.set_input_files("#files", sorted(folder.glob("*_1.png")))
    page.wait_for_selector(f"#progress-text:has-text('{MAX_IMAGES} done')")
    while len(routes) < 2:
        page.wait_for_timeout(20)
    return routes[1]


def test_a_batch_can_be_stopped(page: Any, folder: Path) -> None:
    begin_batch(page, folder)
    page.click("#progress-stop")
    page.wait_for_selector("#progress", state="hidden")
    assert page.locator(".card").count() == MAX_IMAGES
    assert page.inner_text("#status").startswith(f"{MAX_IMAGES} images classified")
    assert page.locator("#alert").is_hidden()
    page.unroute("**/predict")
    upload(page, folder / "red_star_2.png")  # what comes later is read


def test_pictures_that_are_removed_during_a_batch_stay_removed(page: Any, folder: Path) -> None:
    held = begin_batch(page, folder)
    page.click("#clear")
    with page.expect_response("**/predict"):
        held.continue_()
    page.wait_for_selector("#progress", state="hidden")
    assert page.locator(".card").count() == 0
    assert page.locator("#empty").is_visible()


def test_names_are_escaped_and_long_ones_wrap(browser: Any, address: str, folder: Path, tmp_path: Path) -> None:
    odd = tmp_path / f"<img src=x onerror=throw(1)>{'W' * 150}.png"
    odd.write_bytes((folder / "red_star_1.png").read_bytes())
    with watched_page(browser, address, viewport={"width": 390, "height": 844}) as page:
        upload(page, odd)
        drawn(page)
        assert page.inner_text(".card-name") == odd.name
        assert page.inner_text("#maps-title") == f"Maps of {odd.name}"
        assert page.evaluate("document.documentElement.scrollWidth") == 390
