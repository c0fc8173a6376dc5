"""The ASGI application: API, page and middleware."""

from __future__ import annotations

import errno
import logging
from importlib import resources
from importlib.metadata import version
from pathlib import PurePosixPath
from typing import cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, RedirectResponse, Response

from sotglp.errors import SotglpError, short_repr
from sotglp.web.access import OPEN_PATHS, Access, SameOriginOnly, TokenRequired
from sotglp.web.guards import HeadAnswers, RequestLimits, SecurityHeaders, UnderRootPath, refusal_response
from sotglp.web.limits import NO_SPACE, BusyError, Limits, RefusalError
from sotglp.web.live_model import LiveModel
from sotglp.web.observing import Metrics, Observed
from sotglp.web.routes import router
from sotglp.web.service import Service
from sotglp.web.training import TrainingOptions
from sotglp.web.training_routes import router as training_router

_LOG = logging.getLogger(__name__)

# Not the system's table of types, which programs on Windows change.
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


def create_app(
    live: LiveModel,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    access: Access = Access(),  # noqa: B008 - frozen
    training: TrainingOptions | None = None,
) -> FastAPI:
    """Build the ASGI application, which trains a model with ``training``; close ``app.state.service`` at the end."""
    service = Service(live, limits, training)
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
    routers = [router, training_router] if training else [router]
    for one in routers:
        app.include_router(one)
    _add_page(app)
    _add_error_handlers(app)
    app.add_middleware(RequestLimits, quota=service.requests, max_seconds=limits.max_seconds, without_place=OPEN_PATHS)
    app.add_middleware(TokenRequired, access=access)
    app.add_middleware(SameOriginOnly, access=access)
    app.add_middleware(HeadAnswers)
    app.add_middleware(SecurityHeaders)
    metrics = Metrics(frozenset(route.path for one in routers for route in one.routes if isinstance(route, APIRoute)))
    app.add_middleware(Observed, metrics=metrics)
    app.add_middleware(UnderRootPath, root_path=access.root_path)

    @app.get("/metrics", include_in_schema=False)
    async def show_metrics() -> Response:
        return Response(metrics.text(service.gauges()), media_type="text/plain; version=0.0.4")

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
        root_path = request.scope.get("root_path", "")
        if root_path and request.scope["path"] == root_path:
            # The page's addresses are relative to the folder.
            return RedirectResponse(f"{root_path}/", 308)
        message = {
            404: f"there is nothing at {short_repr(request.url.path)}: see /openapi.json",
            405: f"{request.method} is not supported at {short_repr(request.url.path)}: see /openapi.json",
        }.get(refusal.status_code, str(refusal.detail))
        return JSONResponse({"error": message}, refusal.status_code, refusal.headers)

    @app.exception_handler(OSError)
    async def no_resources(_: Request, error: Exception) -> Response:
        if cast(OSError, error).errno in (errno.ENOSPC, errno.EDQUOT):
            return refusal_response(RefusalError(507, NO_SPACE))
        _LOG.error("a request failed for lack of resources", exc_info=error)
        return refusal_response(BusyError("the server lacks files, memory or processes: try again in a moment"))

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: Exception) -> Response:
        return refusal_response(RefusalError(400, "the request is incomplete"))

    @app.exception_handler(Exception)
    async def failed(_: Request, __: Exception) -> Response:
        return JSONResponse({"error": "internal server error: see the log of the server"}, 500)
