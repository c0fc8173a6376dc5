"""The server as a process: a socket, a model, and an end that is orderly."""

from __future__ import annotations

import socket
from pathlib import Path

import uvicorn

from sotglp.errors import SotglpError
from sotglp.files.atomic import os_reason
from sotglp.web.app import create_app
from sotglp.web.limits import Limits
from sotglp.web.live_model import LiveModel, load_served

_SHUTDOWN_SECONDS = 10


def serve(
    model_file: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    batch_size: int = 32,
    pretrained: str | None = None,
    device: str = "auto",
) -> None:
    """Serve a model until the process is told to end (SIGINT or SIGTERM); requests under way are answered first.

    Parameters
    ----------
    model_file : Path
        The model; the file is never written.
    host : str, default "127.0.0.1"
        Address to bind to. Any other than a loopback address lets other computers in, which need no password.
    port : int, default 8000
        Port; 0 takes a free one. The address is printed once requests are taken.
    limits : Limits
        Bounds on requests.
    batch_size : int, default 32
        Images judged at once.
    pretrained, device
        See :func:`sotglp.model_file.load.load_model`.

    Raises
    ------
    SotglpError
        If the address can't be had or the model can't be read.
    """
    with bound(host, port) as listener:
        served = load_served(model_file, pretrained=pretrained, device=device, batch_size=batch_size)
        app = create_app(LiveModel(model_file.name, served), limits, host)
        config = uvicorn.Config(
            app,
            # What it would say of its own is said here; errors go through logging all the same.
            log_config=None,
            access_log=False,
            server_header=False,
            # Nobody stands before it whose word on where a request comes from counts.
            proxy_headers=False,
            ws="none",
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        )
        server = _Server(config, f"{model_file} is served at {_address(listener)} (stop with Ctrl+C)")
        try:
            server.run(sockets=[listener])
        except (KeyboardInterrupt, SystemExit):
            # Once it has shut down, uvicorn raises the signal that told it to, for whoever started it.
            if not server.started:
                raise
        finally:
            app.state.service.close()


class _Server(uvicorn.Server):
    """Says where it is as soon as it takes requests."""

    def __init__(self, config: uvicorn.Config, greeting: str) -> None:
        super().__init__(config)
        self._greeting = greeting

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(self._greeting, flush=True)


def bound(host: str, port: int) -> socket.socket:
    """A socket at this address, before the model is loaded."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # Named, since asyncio sends small answers at once by a socket that says it is TCP; else they wait for 40 ms.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except BaseException:
            listener.close()
            raise
    except (OSError, OverflowError) as error:
        reason = os_reason(error) if isinstance(error, OSError) else "no such port"
        raise SotglpError(f"port {port} of {host} can't be had ({reason}): give another with --port") from error
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if listener.family == socket.AF_INET6 else f"http://{host}:{port}"
