"""The application that a server runs: API, page, and what guards both."""

from __future__ import annotations

from importlib.metadata import version
from typing import cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from sotglp.errors import SotglpError, short_repr
from sotglp.web.guards import Bounded, OwnRequestsOnly, SafeHeaders, refusal_response
from sotglp.web.limits import Limits
from sotglp.web.live_model import LiveModel
from sotglp.web.page_files import INDEX, page_response, read_page
from sotglp.web.refusal import RefusalError
from sotglp.web.routes import router
from sotglp.web.service import Service


def create_app(live: LiveModel, limits: Limits = Limits(), host: str = "127.0.0.1") -> FastAPI:  # noqa: B008 - frozen
    """Build the application.

    Parameters
    ----------
    live : LiveModel
        The model to serve.
    limits : Limits
        Bounds on requests.
    host : str, default "127.0.0.1"
        Address that the server is bound to; see :class:`sotglp.web.guards.OwnRequestsOnly`.

    Returns
    -------
    FastAPI
        An ASGI application; ``app.state.service`` does its work, and is to be closed at the end.
    """
    service = Service(live, limits)
    app = FastAPI(
        title="sotglp",
        version=version("sotglp"),
        summary="Classes of images, how sure, whether they are known, and where the model looked.",
        # Its page would load scripts from another host.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    app.include_router(router)
    _serve_page(app)
    _tell_errors(app)
    app.add_middleware(Bounded, places=service.requests, max_seconds=limits.max_seconds)
    app.add_middleware(OwnRequestsOnly, host=host)
    app.add_middleware(SafeHeaders)
    return app


def _serve_page(app: FastAPI) -> None:
    files = read_page()

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return page_response(files, INDEX)

    @app.get("/static/{name}", include_in_schema=False)
    async def static(name: str) -> Response:
        return page_response(files, name)


def _tell_errors(app: FastAPI) -> None:
    """Answer every error with one sentence."""

    @app.exception_handler(SotglpError)
    async def unusable(_: Request, error: Exception) -> Response:
        return refusal_response(error if isinstance(error, RefusalError) else RefusalError(422, str(error)))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: Exception) -> Response:
        first = cast(RequestValidationError, error).errors()[0]
        where = first["loc"][-1]
        message = f"{where} = {short_repr(first.get('input'))} can't be used: {first['msg'].lower()}"
        return refusal_response(RefusalError(422, message))

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: Exception) -> Response:
        refusal = cast(HTTPException, error)
        message = {
            404: f"there is nothing at {short_repr(request.url.path)}: /openapi.json tells what there is",
            405: f"{request.method} is not for {short_repr(request.url.path)}: /openapi.json tells what is",
        }.get(refusal.status_code, str(refusal.detail))
        return JSONResponse({"error": message}, refusal.status_code, refusal.headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: Exception) -> Response:
        return refusal_response(RefusalError(400, "the request ended before it was whole"))

    @app.exception_handler(Exception)
    async def failed(_: Request, __: Exception) -> Response:
        return JSONResponse({"error": "the server failed at this request; its own messages tell more"}, 500)
