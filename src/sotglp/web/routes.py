"""The paths of the API."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, Response
from starlette.background import BackgroundTask

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
)
from sotglp.web.csv_table import predictions_csv
from sotglp.web.limits import RefusalError
from sotglp.web.service import LONGEST_CLASS_NAME, Service
from sotglp.web.uploads import received

router = APIRouter()

_WHY = {
    400: "The body is broken, or the server was called by another name than its own.",
    403: "The request comes from another web site.",
    404: "There is no such thing.",
    413: "An image, the number of images, or the whole request is too large.",
    415: "The body is not multipart/form-data.",
    422: "An image can't be read, or a value can't be used.",
    503: "Too many images or requests are waiting, or this one took too long; Retry-After says when to come back.",
}

_RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}

_IMAGE = {"type": "string", "format": "binary", "description": "An image file, such as JPEG or PNG."}

Unknown = Annotated[bool, Query(description="Say whether each image is unknown, where the model is calibrated.")]


def _refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """How the document tells of refusals."""
    answers: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorAnswer, "description": _WHY[status]} for status in (400, *statuses, 503)
    }
    answers[503]["headers"] = _RETRY_AFTER
    return answers


def _body(required: list[str], **fields: dict[str, Any]) -> dict[str, Any]:
    """How the document tells of a multipart body, which is read as it streams in and not by FastAPI."""
    schema = {"type": "object", "properties": fields, "required": required}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


_IMAGES = _body(["images"], images={"type": "array", "items": _IMAGE, "minItems": 1})


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


@router.get("/health", responses=_refusals(), summary="Whether the server is up")
async def health(request: Request) -> Health:
    """Name of the model file, its kind, backbone and number of classes, and where it runs."""
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


@router.get("/model", responses=_refusals(), summary="The model and the limits of a request")
async def model(request: Request) -> ModelAnswer:
    """Classes, calibration, and what the model can do; changes with the classes."""
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


@router.post(
    "/predict", responses=_refusals(403, 413, 415, 422), openapi_extra=_IMAGES, summary="The class of each image"
)
async def predict(request: Request, unknown: Unknown = True) -> Predictions:
    """Label, probabilities and in-distribution score of each image, in the order of the upload.

    An image that can't be read has an error in its place, unless no image can be read.
    """
    service = _service(request)
    async with received(request, service.limits, service.received_bytes, "images") as form:
        return Predictions(predictions=await service.predict(form.uploads, unknown))


@router.post(
    "/predict.csv",
    responses={
        200: {
            "description": "A table with the columns path, label, probability and ood_score.",
            "content": {"text/csv": {"schema": {"type": "string"}}},
        },
        **_refusals(403, 413, 415, 422),
    },
    response_class=Response,
    openapi_extra=_IMAGES,
    summary="The class of each image, as a table",
)
async def predict_csv(request: Request, unknown: Unknown = True) -> Response:
    """As /predict; the label of an unknown image is `unknown`, and cells of an unreadable one are empty."""
    said = await predict(request, unknown)
    headers = {"Content-Disposition": 'attachment; filename="predictions.csv"'}
    return Response(predictions_csv(said.predictions), media_type="text/csv; charset=utf-8", headers=headers)


@router.post(
    "/explain",
    responses=_refusals(403, 413, 415, 422),
    openapi_extra=_body(["image"], image=_IMAGE),
    summary="What the model saw in one image",
)
async def explain(
    request: Request,
    classes: Annotated[
        list[str] | None, Query(description="Classes to explain; without any, the most probable one.")
    ] = None,
    top: Annotated[int | None, Query(ge=1, description="Explain so many of the most probable classes.")] = None,
) -> ExplanationAnswer:
    """Scores of classes, and how each local prompt shares its mass among patches of the picture."""
    if classes and top is not None:
        raise RefusalError(422, "classes and top can't go together: give one of them")
    service = _service(request)
    async with received(request, service.limits, service.received_bytes, "image") as form:
        if len(form.uploads) > 1:
            raise RefusalError(422, f"one image is explained at once, and there are {len(form.uploads)}")
        return ExplanationAnswer(**await service.explain(form.uploads[0], classes or [], top or 1))


@router.post(
    "/classes",
    responses=_refusals(403, 413, 415, 422),
    openapi_extra=_body(
        ["name", "images"],
        name={"type": "string", "minLength": 1, "maxLength": LONGEST_CLASS_NAME, "examples": ["wren"]},
        images={"type": "array", "items": _IMAGE, "minItems": 1},
    ),
    summary="Learn one class more",
)
async def add_class(request: Request) -> ClassAdded:
    """Learn a class from a few images of it; it is known to all requests that come later.

    What the model learned for the other classes stays. Its calibration is gone, since that was for other classes. The
    model file on disk is not touched: GET /model/file has the new one.
    """
    service = _service(request)
    async with received(request, service.limits, service.received_bytes, "images") as form:
        served = await service.add_class(form.texts.get("name", ""), form.uploads)
    return ClassAdded(classes=served.classes, added=served.added[-1])


@router.delete("/classes/{name:path}", responses=_refusals(403, 404, 422), summary="Forget a class that was added")
async def remove_class(request: Request, name: str) -> ClassRemoved:
    """Forget a class that was added since the server started; without any, the calibration is back."""
    served = await _service(request).live.remove_class(name)
    return ClassRemoved(classes=served.classes, removed=name)


@router.get(
    "/model/file",
    responses={
        200: {"description": "A model file.", "content": {"application/octet-stream": {}}},
        **_refusals(),
    },
    response_class=FileResponse,
    summary="The model as a file",
)
async def model_file(request: Request) -> FileResponse:
    """A .safetensors file for `sotglp predict` and the others, with the classes as they are now."""
    live = _service(request).live
    folder = await asyncio.to_thread(tempfile.mkdtemp, prefix="sotglp-")
    path = Path(folder, "model.safetensors")
    try:
        await asyncio.to_thread(live.current.save, path)
    except BaseException:
        shutil.rmtree(folder)
        raise
    return FileResponse(
        path,
        media_type="application/octet-stream",
        filename=live.name,
        background=BackgroundTask(shutil.rmtree, folder, ignore_errors=True),
    )
