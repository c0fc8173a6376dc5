"""Paths of the API that train a model, on a server without a model file."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from sotglp.web.answers import Unreadable
from sotglp.web.class_names import MAX_CLASS_NAME
from sotglp.web.limits import RefusalError
from sotglp.web.route_docs import IMAGES, refusals, service_of
from sotglp.web.training import FileKind, Training
from sotglp.web.training_answers import ImagesAdded, TrainingAnswer, training_answer
from sotglp.web.uploads import received

router = APIRouter(prefix="/training")

ClassName = Annotated[str, Query(max_length=4 * MAX_CLASS_NAME, description="Name of the class.", examples=["wren"])]


def _training(request: Request) -> Training:
    training = service_of(request).training
    assert training is not None  # these paths exist only then
    return training


def _answer(request: Request) -> TrainingAnswer:
    return training_answer(_training(request), service_of(request).limits)


@router.get("", responses=refusals(), summary="State of the training")
async def state(request: Request) -> TrainingAnswer:
    """Return classes, images, the last training, and the trained model."""
    return _answer(request)


@router.post("/classes", responses=refusals(403, 409, 422), summary="Add a class to train on")
async def add_class(request: Request, name: ClassName) -> TrainingAnswer:
    """Add a class without images."""
    _training(request).images.add_class(name)
    return _answer(request)


@router.patch("/classes/{class_id}", responses=refusals(403, 404, 422), summary="Rename a class to train on")
async def rename_class(request: Request, class_id: int, name: ClassName) -> TrainingAnswer:
    """Rename a class; the trained model keeps the old name until the next training."""
    _training(request).images.rename_class(class_id, name)
    return _answer(request)


@router.delete("/classes/{class_id}", responses=refusals(403, 404, 422), summary="Remove a class to train on")
async def remove_class(request: Request, class_id: int) -> TrainingAnswer:
    """Remove a class and its images."""
    _training(request).remove_class(class_id)
    return _answer(request)


@router.post(
    "/classes/{class_id}/images",
    responses=refusals(403, 404, 413, 415, 422, 507),
    openapi_extra=IMAGES,
    summary="Add images to a class",
)
async def add_images(request: Request, class_id: int) -> ImagesAdded:
    """Add images to a class; the request is refused if none of them can be used."""
    service, training = service_of(request), _training(request)
    async with received(request, service.limits, service.received_bytes, "images") as form:
        with service.images.held() as take:
            take(len(form.uploads))
            added, left_out = await training.add_images(class_id, form.uploads, service.decoders.of_request())
    return ImagesAdded(
        added=[image.id for image in added],
        left_out=[Unreadable(name=error.source, error=str(error)) for error in left_out],
        training=_answer(request),
    )


@router.get(
    "/images/{image_id}",
    responses={200: {"description": "A small picture.", "content": {"image/jpeg": {}}}, **refusals(404, 422)},
    response_class=Response,
    summary="Thumbnail of an image",
)
async def thumbnail(request: Request, image_id: int) -> Response:
    """Return a JPEG picture of at most 256 pixels."""
    image = _training(request).images.find_image(image_id)[1]
    try:
        content = await asyncio.to_thread(image.thumbnail.read_bytes)
    except FileNotFoundError as error:
        raise RefusalError(404, "the image was removed from the temporary folder: add it again") from error
    # Not cached: another server on this address gives the same ids to other images.
    return Response(content, media_type="image/jpeg")


@router.delete("/images/{image_id}", responses=refusals(403, 404, 422), summary="Remove an image")
async def remove_image(request: Request, image_id: int) -> TrainingAnswer:
    """Remove an image."""
    _training(request).remove_image(image_id)
    return _answer(request)


@router.post("/run", responses=refusals(403, 409, 422), summary="Train")
async def start(
    request: Request,
    backbone: Annotated[str | None, Query(description="One of `backbones`; default: the first one.")] = None,
) -> TrainingAnswer:
    """Start to train a model on all images, and return at once; /training has the progress.

    The model is used as soon as it is fitted. Then cross-fitting measures its accuracy on held-out images.
    """
    _training(request).start(backbone)
    return _answer(request)


@router.delete("/run", responses=refusals(403), summary="Stop training")
async def stop(request: Request) -> TrainingAnswer:
    """Stop the training at its next step; a model that works already stays."""
    _training(request).stop()
    return _answer(request)


@router.post("/calibration", responses=refusals(403, 409, 422), summary="Calibrate the model")
async def calibrate(
    request: Request,
    tpr: Annotated[float, Query(gt=0, le=1, description="Share of images of the classes to accept.")] = 0.95,
) -> TrainingAnswer:
    """Calibrate probabilities and the rejection of unknown images on the held-out images of cross-fitting."""
    await _training(request).calibrate(tpr)
    return _answer(request)


def _file_route(kind: FileKind, media_type: str, summary: str, about: str) -> None:
    @router.get(
        f"/{kind}",
        name=kind,
        responses={200: {"description": "A file.", "content": {media_type: {}}}, **refusals(403, 409, 422, 507)},
        response_class=Response,
        summary=summary,
        description=about,
    )
    async def download(request: Request) -> Response:
        return await _training(request).file(kind)


_file_route("report", "text/html", "Report on the model", "Return an HTML page about the held-out predictions.")
_file_route("onnx", "application/octet-stream", "The model as ONNX", "Return a file that runs without PyTorch.")
