"""Pictures of README and docs from the photos of the demo: the maps of an explanation, the page and the report.

Fits a calibrated model on eight photos of each class, serves it, and drives the page in the system's Chromium. Writes
docs/pictures/explain.png, web_results.png, web_maps.png, web_compare.png, web_phone.png, report_head.png and
report_mistakes.png, and demo_photos.png from --demo; takes some minutes.
"""

from __future__ import annotations

import argparse
import io
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from sotglp.demo.photo_set import copy_photos

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
SHOWN = ("test/banana", "test/lemon", "unknown")
"""Folders whose first photo is put on the page."""


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=PICTURES)
    parser.add_argument("--model", type=Path, help="a model of the demo's photos that is fitted already")
    parser.add_argument("--demo", type=Path, help="demo/prompts.png of `make demo`, for demo_photos.png")
    given = parser.parse_args()
    if given.demo:
        keep(Image.open(given.demo), given.out / "demo_photos.png")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        work = Path(folder)
        copy_photos(work / "photos")
        model = work / "groceries.safetensors"
        if given.model:
            shutil.copy(given.model, model)
        else:
            settings = ("--backbone", "photo", "--method", "sot-glp", "--shots", "8", "--calibrate")
            sotglp(work, "fit", "photos/train", "--out", model, *settings)
        first = sorted((work / "photos/test/lemon").iterdir())[0]
        sotglp(work, "explain", model, first.relative_to(work), "--out", "explain.png", "--top", "2")
        keep(Image.open(work / "explain.png"), given.out / "explain.png")
        sotglp(work, "report", model, "photos/test", "--ood", "photos/unknown", "--out", "report.html")
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        picture_report(browser, work / "report.html", given.out)
        photos = [sorted((work / "photos" / name).glob("*.jpg"))[0] for name in SHOWN]
        with served(work, model) as address:
            picture_page(browser, address, photos, given.out)
        browser.close()


def sotglp(folder: Path, *words: object) -> None:
    """Run a command."""
    subprocess.run([sys.executable, "-m", "sotglp", *map(str, words)], cwd=folder, check=True)


@contextmanager
def served(folder: Path, model: Path) -> Iterator[str]:
    """Serve a model on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "sotglp", "serve", str(model), "--port", str(port)]
    process = subprocess.Popen(command, cwd=folder)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            with suppress(OSError), urllib.request.urlopen(f"{address}/model"):
                break
            time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait()


def picture_report(browser: Any, report: Path, out: Path) -> None:
    """Picture the start of a report, and its mistakes in dark mode."""
    page = browser.new_page(viewport={"width": 1000, "height": 1000})
    page.goto(report.as_uri())
    shoot(page, out / "report_head.png", height=760)
    page.emulate_media(color_scheme="dark")
    heading = page.locator("h2", has_text="mistakes").first
    shoot(page, out / "report_mistakes.png", top=heading.bounding_box()["y"] - 16, height=760)
    page.close()


def picture_page(browser: Any, address: str, photos: list[Path], out: Path) -> None:
    """Picture predictions, maps, two classes compared, and maps on a phone."""
    page = browser.new_page(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    page.set_default_timeout(120_000)
    page.goto(address)
    page.set_input_files("#files", photos)
    page.locator(".card").nth(len(photos) - 1).wait_for()
    page.wait_for_selector("#progress", state="hidden")
    shoot(page, out / "web_results.png", height=860)
    page.locator(".show-maps").first.click()
    page.wait_for_selector("#maps:not([aria-busy]) .panel canvas")
    shoot(page, out / "web_maps.png", height=1000)
    page.set_viewport_size({"width": 390, "height": 844})
    page.locator("#maps").scroll_into_view_if_needed()
    keep(Image.open(io.BytesIO(page.screenshot())), out / "web_phone.png")
    page.set_viewport_size({"width": 1280, "height": 900})
    page.emulate_media(color_scheme="dark")
    page.select_option("#maps-other", index=1)
    page.wait_for_selector(".maps-classes.two")
    shoot(page, out / "web_compare.png", height=1000)
    page.close()


def shoot(page: Any, path: Path, *, top: float = 0, height: int) -> None:
    """Store a part of a page in its whole width."""
    clip = {"x": 0, "y": top, "width": page.viewport_size["width"], "height": height}
    keep(Image.open(io.BytesIO(page.screenshot(full_page=True, clip=clip))), path)


def keep(picture: Image.Image, path: Path) -> None:
    """Store a picture with 255 colours, which takes a third of the space."""
    picture.convert("RGB").quantize(255, kmeans=4, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
