"""From an empty page to a calibrated model of photos that is downloaded, by mouse and by keyboard alone.

SOTGLP_SCREENSHOTS=FOLDER stores screenshots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sotglp.demo.photo_set import TEST, TRAIN, UNKNOWN, packaged_photos
from sotglp.model_file.load import load_model
from support.browser import check_page, chromium, drop_files, tab_to, watched_page
from support.web_server import server_process

pytest.importorskip("fastapi", reason="the page needs sotglp[web]")

CLASSES = {"kiwi": 3, "banana": 3}
"""Classes and their shots; three, since calibration on fewer warns."""

DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


def photos(part: str, name: str = "", n: int = 1) -> list[Path]:
    return sorted((packaged_photos() / part / name).glob("*.jpg"))[:n]


class ByMouse:
    """Steps of a person with a mouse, who drops files."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def press(self, target: Any) -> None:
        target.click()

    def write(self, target: Any, text: str) -> None:
        target.click()
        self.page.keyboard.type(text)

    def give(self, zone: Any, chooser: Any, files: list[Path]) -> None:
        drop_files(self.page, zone, files)

    def choose(self, target: Any, key: str) -> None:
        target.select_option(label=key)  # the list is drawn by the system


class ByKeyboard(ByMouse):
    """Steps of a person without a mouse, who opens the dialog of files."""

    def press(self, target: Any) -> None:
        self._go_to(target)
        self.page.keyboard.press("Enter")

    def write(self, target: Any, text: str) -> None:
        self._go_to(target)
        self.page.keyboard.type(text)

    def give(self, zone: Any, chooser: Any, files: list[Path]) -> None:
        with self.page.expect_file_chooser() as dialog:
            self.press(chooser)
        dialog.value.set_files(files)

    def choose(self, target: Any, key: str) -> None:
        self._go_to(target)
        self.page.keyboard.type(key)

    def _go_to(self, target: Any) -> None:
        target.wait_for()
        if not target.evaluate("element => element === document.activeElement"):
            tab_to(self.page, target)


def walk(browser: Any, out: Path, person: type[ByMouse], viewport: dict[str, int], scheme: str) -> None:
    """Make classes, train, test, calibrate and download."""
    options = {"viewport": viewport, "color_scheme": scheme, "reduced_motion": "reduce"}
    with server_process("--out", out) as (_, address), watched_page(browser, address, **options) as page:
        user, at = person(page), page.locator
        look: Callable[[str], None] = lambda state: check_page(page, f"photos_{state}")  # noqa: E731
        look("empty")
        for name, shots in CLASSES.items():
            user.write(at("#class-name"), name)
            user.press(at("#class-add"))
            card = at(f".class-card:has([aria-label='Choose images of {name}'])")
            user.give(card.locator(".drop"), card.locator(".choose"), photos(TRAIN, name, shots))
            card.get_by_text(f"{shots} images", exact=True).wait_for()
        look("classes")

        user.press(at("#train-start"))
        at("#train-progress").wait_for()
        assert page.inner_text("#state") == "Training"
        look("training")
        page.wait_for_selector("#status:has-text('Training has ended')", state="attached", timeout=60_000)
        look("trained")

        if person is ByKeyboard:  # the button Stop had the focus
            assert at("#train-test").evaluate("element => element === document.activeElement")
        user.press(at("#train-test"))
        user.give(at("#drop"), at("#choose"), photos(TEST, "kiwi"))
        at(".card-label").get_by_text("kiwi").wait_for()
        at("#maps-classes canvas, #maps-classes img").first.wait_for()
        user.press(at("#maps-close"))
        user.choose(at("#calibrate-tpr"), "90 %")
        user.press(at("#calibrate"))
        page.wait_for_selector("#calibrate-note:has-text('accept 90')")
        at("#calibrate-warnings li:has-text('probabilities')").wait_for()  # all of so few are correct
        user.give(at("#drop"), at("#choose"), photos(UNKNOWN))
        at(".card").nth(1).wait_for()
        look("calibrated")

        with page.expect_download() as download:
            user.press(at("text=Download model"))
        saved = Path(download.value.path())
        assert (download.value.suggested_filename, saved.read_bytes()) == (out.name, out.read_bytes())
        with page.expect_download() as download:
            user.press(at("#download-report"))
        assert download.value.suggested_filename == f"{out.stem}.html"
    model, _, calibration = load_model(out)
    assert list(model.class_names) == list(CLASSES)
    assert calibration is not None
    assert calibration.rejection.tpr == 0.9


def test_a_model_of_photos_by_mouse(browser: Any, tmp_path: Path) -> None:
    walk(browser, tmp_path / "fruit.safetensors", ByMouse, DESK, "light")


def test_a_model_of_photos_by_keyboard_on_a_phone(browser: Any, tmp_path: Path) -> None:
    walk(browser, tmp_path / "fruit.safetensors", ByKeyboard, PHONE, "dark")


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("person", "viewport", "scheme"),
    [
        (ByMouse, PHONE, "light"),
        (ByMouse, PHONE, "dark"),
        (ByMouse, DESK, "dark"),
        (ByKeyboard, DESK, "light"),
        (ByKeyboard, DESK, "dark"),
        (ByKeyboard, PHONE, "light"),
    ],
)
def test_a_model_of_photos_otherwise(
    browser: Any, tmp_path: Path, person: type[ByMouse], viewport: dict[str, int], scheme: str
) -> None:
    walk(browser, tmp_path / "fruit.safetensors", person, viewport, scheme)
