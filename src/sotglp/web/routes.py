"""Paths of the API."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from sotglp.web.answers import (
    ClassAdded,
    ClassRemoved,
    ExplanationAnswer,
    Health,
    ModelAnswer,
    Predictions,
    Ready,
    limits_answer,
    predictions_csv,
)
from sotglp.web.class_names import MAX_CLASS_NAME
from sotglp.web.limits import BusyError, RefusalError
from sotglp.web.route_docs import IMAGE, IMAGES, body, refusals, service_of
from sotglp.web.uploads import received

router = APIRouter()

Unknown = Annotated[bool, Query(description="Whether to report unknown images; requires a calibrated model.")]


@router.get("/health", responses=refusals(), summary="Liveness check")
async def health(request: Request) -> Health:
    """Return the name of the model file, its kind, backbone, number of classes and device."""
    service = service_of(request)
    model = service.live.served.model if service.live.served else None
    return Health(
        status="ok",
        version=version("sotglp"),
        model=service.live.name if model else None,
        kind=model.kind if model else None,
        backbone=model.backbone.name if model else None,
        n_classes=len(model.class_names) if model else 0,
        device=str(model.backbone.device) if model else None,
        trains=service.training is not None,
    )


@router.get("/ready", responses=refusals(403), summary="Readiness check")
async def ready(request: Request) -> Ready:
    """Classify a small image with the current model; 503 if that takes more than five seconds.

    Unlike /health, which only shows that the process answers, this shows that it can predict. A server that trains is
    ready before it has a model.
    """
    if not await service_of(request).is_ready():
        raise BusyError("the server can't predict at the moment: try again later")
    return Ready(status="ready")


@router.get("/model", responses=refusals(409), summary="Model and limits of a request")
async def model(request: Request) -> ModelAnswer:
    """Return classes, calibration and capabilities of the current model."""
    service = service_of(request)
    served = service.live.current
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
        can_add_classes=served.can_add_classes and service.training is None,
        changed=bool(served.added),
        limits=limits_answer(service.limits),
    )


@router.post(
    "/predict", responses=refusals(403, 409, 413, 415, 422, 507), openapi_extra=IMAGES, summary="Classify images"
)
async def predict(request: Request, unknown: Unknown = True) -> Predictions:
    """Return label, probabilities and in-distribution score of each image, in the order of the upload.

    An unreadable image has an error instead; the request is refused if no image is readable.
    """
    service = service_of(request)
    async with received(request, service.limits, service.received_bytes, "images") as form:
        return Predictions(predictions=await service.predict(form.uploads, unknown))


@router.post(
    "/predict.csv",
    responses={
        200: {
            "description": "CSV with the columns path, label, probability, ood_score and is_unknown.",
            "content": {"text/csv": {"schema": {"type": "string"}}},
        },
        **refusals(403, 409, 413, 415, 422, 507),
    },
    response_class=Response,
    openapi_extra=IMAGES,
    summary="Classify images, as CSV",
)
async def predict_csv(request: Request, unknown: Unknown = True) -> Response:
    """Like /predict; unknown images have the label `unknown`, unreadable ones empty cells."""
    answer = await predict(request, unknown)
    headers = {"Content-Disposition": 'attachment; filename="predictions.csv"'}
    return Response(predictions_csv(answer.predictions), media_type="text/csv; charset=utf-8", headers=headers)


@router.post(
    "/explain",
    responses=refusals(403, 409, 413, 415, 422, 507),
    openapi_extra=body(["image"], image=IMAGE),
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
    service = service_of(request)
    async with received(request, service.limits, service.received_bytes, "image") as form:
        if len(form.uploads) > 1:
            raise RefusalError(422, f"/explain takes one image, not {len(form.uploads)}: send them one by one")
        return ExplanationAnswer(**await service.explain(form.uploads[0], classes or [], top or 1))


@router.post(
    "/classes",
    responses=refusals(403, 409, 413, 415, 422, 507),
    openapi_extra=body(
        ["name", "images"],
        name={"type": "string", "minLength": 1, "maxLength": MAX_CLASS_NAME, "examples": ["wren"]},
        images={"type": "array", "items": IMAGE, "minItems": 1},
    ),
    summary="Add a class",
)
async def add_class(request: Request) -> ClassAdded:
    """Train a class on a few images; later requests use it.

    The model is fitted again, on these images and on the shots of the other classes that the model file stores, and the
    calibration is repeated on them. Without stored shots, only the prompts of the class are learned, and the
    calibration is removed. The model file on disk is not changed: download the new one from /model/file.
    """
    service = service_of(request)
    async with received(request, service.limits, service.received_bytes, "images") as form:
        served = await service.add_class(form.texts.get("name", ""), form.uploads)
    return ClassAdded(classes=served.classes, added=served.added[-1], recalibration=served.said)


@router.delete("/classes/{name:path}", responses=refusals(403, 404, 409, 422), summary="Remove an added class")
async def remove_class(request: Request, name: str) -> ClassRemoved:
    """Remove a class that was added since the server started; without any, the calibration is restored."""
    served = await service_of(request).live.remove_class(name)
    return ClassRemoved(classes=served.classes, removed=name, recalibration=served.said)


@router.get(
    "/model/file",
    responses={
        200: {"description": "A model file.", "content": {"application/octet-stream": {}}},
        **refusals(403, 409, 507),
    },
    response_class=Response,
    summary="Download the model",
)
async def model_file(request: Request) -> Response:
    """Return a .safetensors file for `sotglp predict` and other commands, with the current classes."""
    return await service_of(request).model_file.response()
