"""``sotglp serve``: a model as a web page and a JSON API."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from sotglp.cli import options
from sotglp.console.progress import note_loading
from sotglp.errors import SotglpError, SotglpWarning
from sotglp.files.atomic import check_output
from sotglp.settings import checked
from sotglp.web.limits import MEGABYTE, Limits


def serve(
    model_file: Annotated[
        Path | None, Argument(metavar="[MODEL]", help="Model file; without one, the page trains a model.")
    ] = None,
    host: Annotated[str, Option(help="Address to bind to; 0.0.0.0 admits other computers; see --token.")] = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535, help="Port; 0 selects a free one.")] = 8000,
    allowed_host: Annotated[
        list[str] | None, Option(help="Further name in the header Host that is answered; repeat it for more.")
    ] = None,
    public_origin: Annotated[
        list[str] | None,
        Option(
            help="Origin under which a proxy shows the page, such as https://birds.example.org; repeat it for more."
        ),
    ] = None,
    root_path: Annotated[str, Option(help="Path under which a proxy shows the page, such as /birds.")] = "",
    token: Annotated[
        str | None,
        Option(
            envvar="SOTGLP_TOKEN",
            help="Token that requests must send; a variable hides it from other users of the computer.",
        ),
    ] = None,
    access_log: Annotated[
        Path | None, Option(help="File for a line about each request; replaced at 10 MB, five are kept.")
    ] = None,
    max_added_classes: Annotated[int, Option(min=0, help="Limit of classes that are added.")] = 100,
    max_image_mb: Annotated[float, Option(help="Size limit of an image file in megabytes.")] = 20.0,
    max_images: Annotated[int, Option(min=1, help="Limit of images per request.")] = 64,
    max_seconds: Annotated[float, Option(help="Time limit of a request in seconds, including its upload.")] = 60.0,
    backbone: Annotated[
        list[str] | None,
        Option(help="Backbone that the page offers for training before its own, photo and ViT-B-16 (repeat)."),
    ] = None,
    out: Annotated[
        Path | None, Option(help="Store each model that the page trains here too; with a number if the file exists.")
    ] = None,
    pretrained: options.Pretrained = None,
    device: options.Device = "auto",
    batch_size: options.BatchSize = 32,
) -> None:
    """Serve a model to the browsers and programs of this computer, or a page that trains one.

    [bold]Example[/bold]: sotglp serve birds.safetensors

    [bold]Example[/bold]: sotglp serve --out birds.safetensors

    The page predicts and explains images and can add classes; without MODEL, it trains a model on images of yours.
    /openapi.json describes the API.
    """
    if model_file is not None and (backbone or out):
        given = "--out" if out else "--backbone"
        raise SotglpError(f"{given} is for a page that trains a model: leave it out, or leave out {model_file}")
    if model_file is None and pretrained is not None:
        raise SotglpError("--pretrained is for a model file: give one, or name a backbone with --backbone")
    if out is not None:
        check_output(out, force=True)
    limits = _limits(max_image_mb, max_images, max_seconds, max_added_classes)
    note_loading()
    try:
        from sotglp.web.access import Access, is_loopback
        from sotglp.web.serving import end_process
        from sotglp.web.serving import serve as run
        from sotglp.web.training import TrainingOptions
    except ModuleNotFoundError as error:
        raise SotglpError(f"serving needs {error.name}: pip install 'sotglp[web]'") from error

    values = {
        "host": host,
        "allowed_hosts": tuple(allowed_host or ()),
        "public_origins": tuple(public_origin or ()),
        "token": token,
        "root_path": root_path,
    }
    access = checked(Access, values)
    if token is None and not is_loopback(host):
        warnings.warn(
            f"other computers can use the model at {host} without a password, change its classes and download its "
            "file: set --token, or only do this in a network that you trust",
            SotglpWarning,
            stacklevel=2,
        )
    offered = (*(backbone or ()), *TrainingOptions().backbones)
    run(
        model_file,
        training=TrainingOptions(tuple(dict.fromkeys(offered)), out, device, batch_size),
        port=port,
        access=access,
        access_log=access_log,
        limits=limits,
        batch_size=batch_size,
        pretrained=pretrained,
        device=device,
    )
    end_process()


def _limits(max_image_mb: float, max_images: int, max_seconds: float, max_added_classes: int) -> Limits:
    """Return limits in which the bounds of all requests together admit the largest single one."""
    if not 0 < max_image_mb < 1e6:
        raise SotglpError(f"max_image_mb = {max_image_mb} must be above 0 and below 1000000")
    max_image_bytes, default = round(max_image_mb * MEGABYTE), Limits()
    values = {
        "max_image_bytes": max_image_bytes,
        "max_images": max_images,
        "max_seconds": max_seconds,
        "max_added_classes": max_added_classes,
        "max_request_bytes": max(default.max_request_bytes, max_image_bytes + 10**6),
        "max_received_bytes": max(default.max_received_bytes, 4 * max_image_bytes),
        "max_queued": max(default.max_queued, max_images),
    }
    return checked(Limits, values)
