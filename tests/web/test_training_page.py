"""Training on the page in Chromium; SOTGLP_SCREENSHOTS=FOLDER stores screenshots."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.browser import check_page, chromium, transfer_of, watched_page
from support.painted import paint_pictures, paint_unknown, save_all
from support.web_server import server_process

pytest.importorskip("fastapi", reason="the page needs sotglp[web]")

SHAPES = ("red star", "blue ring", "green square")
SHOTS = 2


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    for name in SHAPES:
        save_all(paint_pictures(name, SHOTS + 1, seed=2), root, name)
    save_all(paint_unknown(1, seed=2), root, "texture")
    (root / "broken.png").write_bytes(b"no image")
    return root


def pictures(folder: Path, name: str) -> list[Path]:
    return [folder / f"{name.replace(' ', '_')}_{shot}.png" for shot in range(1, SHOTS + 1)]


def focus(page: Any) -> str:
    label: str = page.evaluate("document.activeElement.ariaLabel ?? document.activeElement.id")
    return label


def alert(page: Any) -> str:
    page.wait_for_selector("#alert:not([hidden])")
    text: str = page.inner_text("#alert-text")
    page.click("#alert-close")
    return text


def busy_at_first(n_attempts: int) -> Callable[[Any], None]:
    """Answer requests for the ONNX file as a server that is still writing it during the first ``n_attempts``."""
    attempts = itertools.count()

    def answer(route: Any) -> None:
        if next(attempts) < n_attempts:
            route.fulfill(status=503, headers={"Retry-After": "0.1"}, json={"error": "the file is still being written"})
        else:
            headers = {"Content-Disposition": 'attachment; filename="shapes.onnx"'}
            route.fulfill(status=200, headers=headers, body=b"graph")

    return answer


def wait_for_images(page: Any, card: int, n: int) -> None:
    text = f"{n} image" + "s" * (n != 1)
    page.locator(".class-count").nth(card).get_by_text(text, exact=True).wait_for()


def test_from_an_empty_page_to_a_calibrated_model_that_is_downloaded(
    browser: Any, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "shapes.safetensors"
    arguments = ("--backbone", "tiny", "--out", out, "--max-images", 2)
    with server_process(*arguments) as (_, address), watched_page(browser, address) as page:
        assert page.locator("#intake").is_hidden()
        assert (page.inner_text("#train-note"), page.is_disabled("#train-start")) == ("Add at least two classes.", True)
        check_page(page, "training_empty")

        # Classes by keyboard; the focus goes to where images come in.
        for name in SHAPES:
            page.focus("#class-name")
            page.keyboard.type(name)
            page.keyboard.press("Enter")
            page.wait_for_selector(f"[aria-label='Choose images of {name}']:focus")
        page.set_input_files(".class-card:nth-child(1) input.files", pictures(folder, SHAPES[0]))
        wait_for_images(page, 0, SHOTS)
        dropped = transfer_of(page, [folder / "broken.png", *pictures(folder, SHAPES[1])])
        page.dispatch_event(".class-card:nth-child(2)", "drop", {"dataTransfer": dropped})
        wait_for_images(page, 1, SHOTS)  # in two requests
        assert "broken.png" in alert(page)
        assert page.inner_text("#train-note") == f"Add images of {SHAPES[2]}."
        page.click("[aria-label='Use camera for green square']")
        page.wait_for_selector(".camera-take:focus")
        page.keyboard.press("Enter")
        wait_for_images(page, 2, 1)
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.click("[aria-label='Remove camera_1.jpg from green square']")
        page.wait_for_selector("[aria-label='Choose images of green square']:focus")
        page.set_input_files(".class-card:nth-child(3) input.files", pictures(folder, SHAPES[2]))
        wait_for_images(page, 2, SHOTS)
        page.fill(".class-card:nth-child(3) input[name]", "Red  STAR")
        page.keyboard.press("Enter")
        assert "already a class" in alert(page)
        assert page.input_value(".class-card:nth-child(3) input[name]") == "green square"
        transfer = transfer_of(page, pictures(folder, SHAPES[0]))
        page.dispatch_event("#train", "drop", {"dataTransfer": transfer})
        assert "no model yet" in alert(page)
        check_page(page, "training_images")

        page.focus("#train-start")
        page.keyboard.press("Enter")
        page.wait_for_selector("#status:has-text('Training has ended')", state="attached", timeout=60_000)
        assert page.inner_text("#train-accuracy").startswith("Accuracy on held-out images: ")
        assert f"of {3 * SHOTS}" in page.inner_text("#train-accuracy")
        page.click("#train-test")
        assert focus(page) == "intake-title"
        page.set_input_files("#files", [folder / f"red_star_{SHOTS + 1}.png"])
        page.wait_for_selector(".card-label:has-text('red star')")
        page.click("#maps-close")
        page.select_option("#calibrate-tpr", "0.9")
        page.click("#calibrate")
        page.wait_for_selector("#calibrate-note:has-text('accept 90')")
        assert "below" in page.inner_text("#model-note")
        assert page.inner_text("#saved-note") == "Saved as shapes.safetensors on the server too."
        for button, name in (("text=Download model", out.name), ("#download-report", "shapes.html")):
            with page.expect_download() as download:
                page.click(button)
            assert download.value.suggested_filename == name
            saved = Path(download.value.path()).read_bytes()
            assert name == "shapes.html" or saved == out.read_bytes()
        page.route("**/training/onnx", busy_at_first(6))
        with page.expect_download() as download:
            page.click("#download-onnx")
        assert download.value.suggested_filename == "shapes.onnx"
        assert Path(download.value.path()).read_bytes() == b"graph"
        check_page(page, "training_model")

        # The state is the server's: a page that is opened again has it.
        page.on("dialog", lambda dialog: dialog.accept())
        page.reload()
        page.wait_for_selector("#state[data-state=ready]")
        assert page.locator(".class-card").count() == len(SHAPES)
        assert page.locator(".class-card img").count() == len(SHAPES) * SHOTS
        assert "accept 90" in page.inner_text("#calibrate-note")
        page.click("[aria-label='Remove the class green square']")
        page.locator(".class-card").nth(2).wait_for(state="detached")
        assert (focus(page), page.inner_text("#train-note")) == (
            "class-name",
            "Classes or images have changed since the training.",
        )
        for width, scheme in ((390, "light"), (390, "dark"), (1280, "dark")):
            options = {"color_scheme": scheme, "viewport": {"width": width, "height": 900}}
            with watched_page(browser, address, **options) as other:
                check_page(other, "training_again")
