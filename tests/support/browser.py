"""Headless Chromium for tests of the page."""

from __future__ import annotations

import base64
import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)


@contextmanager
def chromium() -> Iterator[Any]:
    """The system's Chromium, driven by Playwright; the test is skipped without it, but fails in CI."""
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        _skip("there is no chromium on the PATH")
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        _skip("playwright is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(ARGUMENTS))
        yield browser
        browser.close()


def _skip(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"the page can't be tested: {reason}")
    pytest.skip(reason)


@contextmanager
def watched_page(browser: Any, address: str, **context_options: Any) -> Iterator[Any]:
    """Open a page; fail if it requests another host or logs an error, except for refusals of the server."""
    context = browser.new_context(**context_options)
    page = context.new_page()
    page.set_default_timeout(20_000)
    hosts: set[str] = set()
    errors: list[str] = []
    page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    page.on("pageerror", lambda error: errors.append(str(error)))

    def note(message: Any) -> None:
        # Chromium logs each answer of status 400 or more; the server's are part of a test.
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
            errors.append(message.text)

    page.on("console", note)
    page.goto(address)
    page.wait_for_selector("#state[data-state=ready]")
    yield page
    context.close()
    assert hosts <= {urlsplit(address).netloc, ""}  # blob: and data: have no host
    assert errors == []


def transfer_of(page: Any, files: list[Path]) -> Any:
    """Return the DataTransfer of a drop or paste of files."""
    contents = [[path.name, base64.b64encode(path.read_bytes()).decode()] for path in files]
    return page.evaluate_handle(
        """async (contents) => {
            const transfer = new DataTransfer();
            for (const [name, text] of contents) {
                const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
                transfer.items.add(new File([bytes], name, { type: "image/png" }));
            }
            return transfer;
        }""",
        contents,
    )


def drop_files(page: Any, target: Any, files: list[Path]) -> None:
    """Drag files of this computer over an element and let them go, as a mouse does."""
    target.scroll_into_view_if_needed()
    box = target.bounding_box()
    where = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
    session = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, **where, "data": data})
    session.detach()


def tab_to(page: Any, target: Any, *, backwards: bool = False) -> None:
    """Press Tab until an element has the focus; fail if it is not reached, or can't be seen where it is."""
    for _ in range(80):
        page.keyboard.press("Shift+Tab" if backwards else "Tab")
        if target.evaluate("element => element === document.activeElement"):
            break
    else:
        pytest.fail(f"Tab does not reach {target}")
    seen = target.evaluate(
        """element => {
            const { top, bottom, left, right } = element.getBoundingClientRect();
            const style = getComputedStyle(element);
            return {
                inside: bottom > 0 && top < innerHeight && right > 0 && left < innerWidth,
                marked: style.outlineStyle !== "none" || style.boxShadow !== "none",
            };
        }"""
    )
    assert seen == {"inside": True, "marked": True}, target


def check_page(page: Any, state: str) -> None:
    """Fail if axe finds something serious or the page is wider than the screen; store a screenshot if asked for."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    serious = [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]
    assert serious == [], state
    width = page.viewport_size["width"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width, state
    if pictures := os.environ.get("SOTGLP_SCREENSHOTS"):
        scheme = "dark" if page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") else "light"
        save_screenshot(page, Path(pictures, f"web_{state}_{width}_{scheme}.png"))


def save_screenshot(page: Any, path: Path) -> None:
    """The page from its top on a desk, what is in sight on a phone; small enough for the documentation."""
    width = page.viewport_size["width"]
    part = {"full_page": True, "clip": {"x": 0, "y": 0, "width": width, "height": 1100}} if width > 390 else {}
    if part:
        page.evaluate("scrollTo({ top: 0, behavior: 'instant' })")  # where sticky parts are
    shot = Image.open(io.BytesIO(page.screenshot(**part))).convert("RGB")
    shot.quantize(255, kmeans=4, dither=Image.Dither.NONE).save(path, optimize=True)
