"""Headless Chromium for tests of the page."""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

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
