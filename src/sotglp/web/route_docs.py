"""What the paths of the API share: the service, and the documentation of refusals and multipart bodies."""

from __future__ import annotations

from typing import Any

from fastapi import Request

from sotglp.web.answers import ErrorAnswer
from sotglp.web.service import Service

_WHY = {
    400: "The body is malformed, or the Host header is not the server's.",
    401: "The token is missing or wrong.",
    403: "The request is cross-origin.",
    404: "Not found.",
    409: "There is no model yet, no more classes can be added, or a training runs.",
    413: "An image, the number of images, or the whole request is too large.",
    415: "The body is not multipart/form-data.",
    422: "An image is unreadable, or a value is invalid.",
    507: "The server has no space for temporary files.",
    503: "The server is busy, or the request took too long; retry after Retry-After.",
}

_RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}

IMAGE = {"type": "string", "format": "binary", "description": "An image file, such as JPEG or PNG."}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of refusals."""
    answers: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorAnswer, "description": _WHY[status]} for status in (400, 401, *statuses, 503)
    }
    answers[503]["headers"] = _RETRY_AFTER
    return answers


def body(required: list[str], **fields: dict[str, Any]) -> dict[str, Any]:
    """Return the documentation of a multipart body, which FastAPI does not read itself."""
    schema = {"type": "object", "properties": fields, "required": required}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


IMAGES = body(["images"], images={"type": "array", "items": IMAGE, "minItems": 1})


def service_of(request: Request) -> Service:
    """Return the service of the application."""
    service: Service = request.app.state.service
    return service
