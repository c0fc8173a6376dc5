"""The page's files, which lie in the package."""

from __future__ import annotations

from importlib import resources
from pathlib import PurePosixPath

from starlette.responses import Response

from sotglp.web.refusal import RefusalError

INDEX = "index.html"

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""Not the system's table of types, which some programs on Windows spoil."""


def read_page() -> dict[str, bytes]:
    """Content of the page's files by name."""
    folder = resources.files("sotglp.web") / "page"
    return {entry.name: entry.read_bytes() for entry in folder.iterdir() if PurePosixPath(entry.name).suffix in _TYPES}


def page_response(files: dict[str, bytes], name: str) -> Response:
    """One of the files.

    Raises
    ------
    RefusalError
        404 if there is none of that name.
    """
    if name not in files:
        raise RefusalError(404, f"the page has no file {name!r}")
    return Response(files[name], media_type=_TYPES[PurePosixPath(name).suffix], headers={"Cache-Control": "no-cache"})
