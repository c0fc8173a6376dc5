"""The ASGI application: API, page and middleware."""

from __future__ import annotations

from importlib import resources
from importlib.metadata import version
from pathlib import PurePosixPath
from typing import cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from sotglp.errors import SotglpError, short_repr
from sotglp.web.guards import RequestLimits, SameOriginOnly, SecurityHeaders, refusal_response
from sotglp.web.limits import Limits, RefusalError
from sotglp.web.live_model import LiveModel
from sotglp.web.routes import router
from sotglp.web.service import Service

# Not the system's table of types, which programs on Windows change.
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


def create_app(live: LiveModel, limits: Limits = Limits(), host: str = "127.0.0.1") -> FastAPI:  # noqa: B008 - frozen
    """Build the ASGI application of a server that binds to ``host``; close ``app.state.service`` at the end."""
    service = Service(live, limits)
    app = FastAPI(
        title="sotglp",
        version=version("sotglp"),
        summary="Image classification with calibrated probabilities, rejection of unknown images, and explanations.",
        # FastAPI's pages load scripts from another host.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    app.include_router(router)
    _add_page(app)
    _add_error_handlers(app)
    app.add_middleware(RequestLimits, quota=service.requests, max_seconds=limits.max_seconds)
    app.add_middleware(SameOriginOnly, host=host)
    app.add_middleware(SecurityHeaders)
    return app


def _add_page(app: FastAPI) -> None:
    folder = resources.files("sotglp.web") / "page"
    files = {entry.name: entry.read_bytes() for entry in folder.iterdir() if PurePosixPath(entry.name).suffix in _TYPES}

    @app.get("/", include_in_schema=False)
    @app.get("/static/{name}", include_in_schema=False)
    async def page_file(name: str = "index.html") -> Response:
        if name not in files:
            raise RefusalError(404, f"the page has no file {name!r}")
        media_type = _TYPES[PurePosixPath(name).suffix]
        return Response(files[name], media_type=media_type, headers={"Cache-Control": "no-cache"})


def _add_error_handlers(app: FastAPI) -> None:
    """Answer every error with one sentence as JSON."""

    @app.exception_handler(SotglpError)
    async def unusable(_: Request, error: Exception) -> Response:
        return refusal_response(error if isinstance(error, RefusalError) else RefusalError(422, str(error)))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: Exception) -> Response:
        first = cast(RequestValidationError, error).errors()[0]
        where = first["loc"][-1]
        message = f"{where} = {short_repr(first.get('input'))} is invalid: {first['msg'].lower()}"
        return refusal_response(RefusalError(422, message))

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: Exception) -> Response:
        refusal = cast(HTTPException, error)
        message = {
            404: f"there is nothing at {short_repr(request.url.path)}: see /openapi.json",
            405: f"{request.method} is not supported at {short_repr(request.url.path)}: see /openapi.json",
        }.get(refusal.status_code, str(refusal.detail))
        return JSONResponse({"error": message}, refusal.status_code, refusal.headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: Exception) -> Response:
        return refusal_response(RefusalError(400, "the request is incomplete"))

    @app.exception_handler(Exception)
    async def failed(_: Request, __: Exception) -> Response:
        return JSONResponse({"error": "internal server error: see the log of the server"}, 500)
