"""The server process: socket, model, start and shutdown."""

from __future__ import annotations

import logging
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import uvicorn

from sotglp.errors import SotglpError
from sotglp.files.atomic import os_reason
from sotglp.web.access import Access
from sotglp.web.app import create_app
from sotglp.web.connections import DeadlineServer, allowed_connections, connection_factory
from sotglp.web.limits import Limits
from sotglp.web.live_model import LiveModel, load_served
from sotglp.web.logs import bound_error_log, open_access_log
from sotglp.web.service import Service
from sotglp.web.training import TrainingOptions

_SHUTDOWN_SECONDS = 6


def serve(
    model_file: Path | None,
    *,
    training: TrainingOptions = TrainingOptions(),  # noqa: B008 - frozen
    port: int = 8000,
    access: Access = Access(),  # noqa: B008 - frozen
    access_log: Path | None = None,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    batch_size: int = 32,
    pretrained: str | None = None,
    device: str = "auto",
) -> None:
    """Serve a model until SIGINT or SIGTERM; open requests are answered first, and the model file is never written.

    Without a model file, the page trains one as ``training`` says.
    Port 0 chooses a free port; the address is printed when the server is ready. See
    :class:`sotglp.web.access.Access` for the address and for who may use it,
    :func:`sotglp.web.logs.open_access_log` for ``access_log``, and :func:`sotglp.model_file.load.load_model` for the
    rest.

    Raises
    ------
    SotglpError
        If the address is unavailable or the model is unreadable.
    """
    with bound(access.host, port) as listener:
        max_connections = allowed_connections()
        bound_error_log()
        if access_log:
            open_access_log(access_log)
        if model_file is None:
            name = training.out.name if training.out else "model.safetensors"
            app = create_app(LiveModel(name, None), limits, access, training)
            subject = "the training page"
        else:
            served = load_served(model_file, pretrained=pretrained, device=device, batch_size=batch_size)
            app = create_app(LiveModel(model_file.name, served), limits, access)
            subject = str(model_file)
        config = uvicorn.Config(
            app,
            # The greeting replaces uvicorn's messages; errors are logged all the same.
            log_config=None,
            access_log=False,
            http=connection_factory(max_connections),
            server_header=False,
            # There is no trusted proxy.
            proxy_headers=False,
            ws="none",
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        )
        server = _Server(config, app.state.service, f"Serving {subject} at {_address(listener)} (stop with Ctrl+C)")
        try:
            server.run(sockets=[listener])
        except (KeyboardInterrupt, SystemExit):
            # After its shutdown uvicorn raises the signal again for the process that started it.
            if not server.started:
                raise
        finally:
            app.state.service.close()


class _Server(DeadlineServer):
    """Server that prints its address when it is ready."""

    def __init__(self, config: uvicorn.Config, service: Service, greeting: str) -> None:
        super().__init__(config)
        self._service = service
        self._greeting = greeting

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._service.decoders.start()
        if self._service.training:
            self._service.training.load_ahead()
        print(self._greeting, flush=True)


def end_process() -> NoReturn:
    """End the process after :func:`serve`.

    The interpreter would wait for threads that still compute, such as the training of a class, and then take more than
    a second of processor time to clear torch's memory, which is long on a busy computer.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(0)


def bound(host: str, port: int) -> socket.socket:
    """Return a socket bound to this address, before the model is loaded."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # asyncio sets TCP_NODELAY only if the protocol is given; otherwise small answers wait for 40 ms.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except BaseException:
            listener.close()
            raise
    except (OSError, OverflowError) as error:
        reason = os_reason(error) if isinstance(error, OSError) else "the port is out of range"
        raise SotglpError(f"can't bind to port {port} of {host} ({reason}): choose another one with --port") from error
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if listener.family == socket.AF_INET6 else f"http://{host}:{port}"
