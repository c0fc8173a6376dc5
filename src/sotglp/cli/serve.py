"""``sotglp serve``: a model as a page in the browser, and as a JSON API."""

from __future__ import annotations

import warnings
from typing import Annotated

import typer

from sotglp.cli import options
from sotglp.errors import SotglpError, SotglpWarning


def serve(
    model_file: options.ModelFile,
    host: Annotated[
        str, typer.Option(help="Address to bind to; 0.0.0.0 lets other computers in, which need no password.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    max_image_mb: Annotated[float, typer.Option(help="Megabytes of one image file.")] = 20.0,
    max_images: Annotated[int, typer.Option(min=1, help="Images of one request.")] = 64,
    max_seconds: Annotated[float, typer.Option(help="Seconds that a request may take, its upload too.")] = 60.0,
    pretrained: options.Pretrained = None,
    device: options.Device = "auto",
    batch_size: options.BatchSize = 32,
    debug: options.Debug = False,
) -> None:
    """Serve a model to the browsers and programs of this computer.

    [bold]Example[/bold]: sotglp serve birds.safetensors

    The page shows what the model sees in an image and takes new classes; /openapi.json describes the API.
    """
    try:
        from sotglp.web.guards import is_loopback
        from sotglp.web.limits import MEGABYTE, Limits
        from sotglp.web.serving import serve as run
    except ModuleNotFoundError as error:
        raise SotglpError(f"serving needs {error.name}: pip install 'sotglp[web]'") from error
    from sotglp.settings import checked

    max_image_bytes = round(max_image_mb * MEGABYTE)
    of_one = {"max_image_bytes": max_image_bytes, "max_images": max_images, "max_seconds": max_seconds}
    limits = checked(Limits, of_one | _bounds_above(max_image_bytes, max_images))
    if not is_loopback(host):
        warnings.warn(
            f"other computers can use the model at {host} without a password, add classes to it and fetch its file: "
            "only do this in a network that you trust",
            SotglpWarning,
            stacklevel=2,
        )
    run(model_file, host=host, port=port, limits=limits, batch_size=batch_size, pretrained=pretrained, device=device)


def _bounds_above(max_image_bytes: int, max_images: int) -> dict[str, int]:
    """Bounds of all requests that leave room for one of the largest images and the most images."""
    from sotglp.web.limits import Limits

    default = Limits()
    return {
        "max_request_bytes": max(default.max_request_bytes, max_image_bytes + 10**6),
        "max_received_bytes": max(default.max_received_bytes, 4 * max_image_bytes),
        "max_queued": max(default.max_queued, max_images),
    }
