"""Paths of the API."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from sotglp.images.decode import MAX_PIXELS
from sotglp.web.answers import (
    ClassAdded,
    ClassRemoved,
    ErrorAnswer,
    ExplanationAnswer,
    Health,
    LimitsAnswer,
    ModelAnswer,
    Predictions,
    Ready,
    predictions_csv,
)
from sotglp.web.limits import BusyError, RefusalError
from sotglp.web.service import MAX_CLASS_NAME, Service
from sotglp.web.uploads import received

router = APIRouter()

_WHY = {
    400: "The body is malformed, or the Host header is not the server's.",
    401: "The token is missing or wrong.",
    403: "The request is cross-origin.",
    404: "Not found.",
    409: "No more classes can be added.",
    413: "An image, the number of images, or the whole request is too large.",
    415: "The body is not multipart/form-data.",
    422: "An image is unreadable, or a value is invalid.",
    507: "The server has no space for temporary files.",
    503: "The server is busy, or the request took too long; retry after Retry-After.",
}

_RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}

_IMAGE = {"type": "string", "format": "binary", "description": "An image file, such as JPEG or PNG."}

Unknown = Annotated[bool, Query(description="Whether to report unknown images; requires a calibrated model.")]


def _refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of refusals."""
    answers: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorAnswer, "description": _WHY[status]} for status in (400, 401, *statuses, 503)
    }
    answers[503]["headers"] = _RETRY_AFTER
    return answers


def _body(required: list[str], **fields: dict[str, Any]) -> dict[str, Any]:
    """Return the documentation of a multipart body, which FastAPI does not read itself."""
    schema = {"type": "object", "properties": fields, "required": required}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


_IMAGES = _body(["images"], images={"type": "array", "items": _IMAGE, "minItems": 1})


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


@router.get("/health", responses=_refusals(), summary="Liveness check")
async def health(request: Request) -> Health:
    """Return the name of the model file, its kind, backbone, number of classes and device."""
    live = _service(request).live
    model = live.current.model
    return Health(
        status="ok",
        version=version("sotglp"),
        model=live.name,
        kind=model.kind,
        backbone=model.backbone.name,
        n_classes=len(model.class_names),
        device=str(model.backbone.device),
    )


@router.get("/ready", responses=_refusals(403), summary="Readiness check")
async def ready(request: Request) -> Ready:
    """Classify a small image with the current model; 503 if that takes more than five seconds.

    Unlike /health, which only shows that the process answers, this shows that it can predict.
    """
    if not await _service(request).is_ready():
        raise BusyError("the server can't predict at the moment: try again later")
    return Ready(status="ready")


@router.get("/model", responses=_refusals(), summary="Model and limits of a request")
async def model(request: Request) -> ModelAnswer:
    """Return classes, calibration and capabilities of the current model."""
    service = _service(request)
    served, limits = service.live.current, service.limits
    rejection = served.calibration.rejection if served.calibration else None
    return ModelAnswer(
        classes=served.classes,
        added=list(served.added),
        kind=served.model.kind,
        has_maps=served.n_prompts > 0,
        n_prompts=served.n_prompts,
        calibrated=rejection is not None,
        tpr=rejection.tpr if rejection else None,
        ood_method=served.inference.ood_method,
        threshold=rejection.threshold if rejection else None,
        can_add_classes=served.can_add_classes,
        changed=bool(served.added),
        limits=LimitsAnswer(
            max_image_bytes=limits.max_image_bytes,
            max_images=limits.max_images,
            max_seconds=limits.max_seconds,
            max_pixels=MAX_PIXELS,
        ),
    )


@router.post("/predict", responses=_refusals(403, 413, 415, 422, 507), openapi_extra=_IMAGES, summary="Classify images")
async def predict(request: Request, unknown: Unknown = True) -> Predictions:
    """Return label, probabilities and in-distribution score of each image, in the order of the upload.

    An unreadable image has an error instead; the request is refused if no image is readable.
    """
    service = _service(request)
    async with received(request, service.limits, service.received_bytes, "images") as form:
        return Predictions(predictions=await service.predict(form.uploads, unknown))


@router.post(
    "/predict.csv",
    responses={
        200: {
            "description": "CSV with the columns path, label, probability, ood_score and is_unknown.",
            "content": {"text/csv": {"schema": {"type": "string"}}},
        },
        **_refusals(403, 413, 415, 422, 507),
    },
    response_class=Response,
    openapi_extra=_IMAGES,
    summary="Classify images, as CSV",
)
async def predict_csv(request: Request, unknown: Unknown = True) -> Response:
    """Like /predict; unknown images have the label `unknown`, unreadable ones empty cells."""
    answer = await predict(request, unknown)
    headers = {"Content-Disposition": 'attachment; filename="predictions.csv"'}
    return Response(predictions_csv(answer.predictions), media_type="text/csv; charset=utf-8", headers=headers)


@router.post(
    "/explain",
    responses=_refusals(403, 413, 415, 422, 507),
    openapi_extra=_body(["image"], image=_IMAGE),
    summary="Explain one image",
)
async def explain(
    request: Request,
    classes: Annotated[
        list[str] | None, Query(description="Classes to explain; default: the most probable one.")
    ] = None,
    top: Annotated[int | None, Query(ge=1, description="Number of most probable classes to explain.")] = None,
) -> ExplanationAnswer:
    """Return scores per class, and the share of each local prompt's mass on each patch of the image."""
    if classes and top is not None:
        raise RefusalError(422, "classes and top exclude each other: give one of them")
    service = _service(request)
    async with received(request, service.limits, service.received_bytes, "image") as form:
        if len(form.uploads) > 1:
            raise RefusalError(422, f"/explain takes one image, not {len(form.uploads)}: send them one by one")
        return ExplanationAnswer(**await service.explain(form.uploads[0], classes or [], top or 1))


@router.post(
    "/classes",
    responses=_refusals(403, 409, 413, 415, 422, 507),
    openapi_extra=_body(
        ["name", "images"],
        name={"type": "string", "minLength": 1, "maxLength": MAX_CLASS_NAME, "examples": ["wren"]},
        images={"type": "array", "items": _IMAGE, "minItems": 1},
    ),
    summary="Add a class",
)
async def add_class(request: Request) -> ClassAdded:
    """Train a class on a few images; later requests use it.

    The other classes keep their parameters. The calibration is removed, since it holds for the old classes only. The
    model file on disk is not changed: download the new one from /model/file.
    """
    service = _service(request)
    async with received(request, service.limits, service.received_bytes, "images") as form:
        served = await service.add_class(form.texts.get("name", ""), form.uploads)
    return ClassAdded(classes=served.classes, added=served.added[-1])


@router.delete("/classes/{name:path}", responses=_refusals(403, 404, 422), summary="Remove an added class")
async def remove_class(request: Request, name: str) -> ClassRemoved:
    """Remove a class that was added since the server started; without any, the calibration is restored."""
    served = await _service(request).live.remove_class(name)
    return ClassRemoved(classes=served.classes, removed=name)


@router.get(
    "/model/file",
    responses={
        200: {"description": "A model file.", "content": {"application/octet-stream": {}}},
        **_refusals(403, 507),
    },
    response_class=Response,
    summary="Download the model",
)
async def model_file(request: Request) -> Response:
    """Return a .safetensors file for `sotglp predict` and other commands, with the current classes."""
    return await _service(request).model_file.response()
