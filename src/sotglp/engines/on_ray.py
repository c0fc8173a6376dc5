"""Worker processes of a Ray cluster: one actor for each worker, so that it is known which task an actor died of."""

from __future__ import annotations

import math
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from importlib.util import find_spec
from typing import Any

from sotglp.engines.tasks import Item, Outcome, Queue, SetUp, Worker
from sotglp.errors import SotglpError, first_line

START_SECONDS = 300.0
"""How long workers may wait for free cores or GPUs before the run is given up."""

MAX_FAILED_STARTS = 3
"""Workers in a row that may die before their first task."""

_CONNECT_SECONDS = 10.0

_STORE_BYTES = 2**28


class _Actor(Worker):
    """A worker in the folder of the process that started it, where that exists on its node."""

    def __init__(self, set_up: SetUp, folder: str) -> None:
        with suppress(OSError):
            os.chdir(folder)
        super().__init__(set_up)

    def ready(self) -> None:
        """Return as soon as the actor has started."""


def run_on_ray(
    set_up: SetUp, queue: Queue, n_workers: int | None, address: str | None, *, use_gpus: bool
) -> Iterator[tuple[int, Outcome]]:
    """Yield the index and the outcome of each task as it finishes.

    ``n_workers`` is by default the number of GPUs, or of nodes without them. An actor that dies is replaced, and its
    task runs again on any actor that is free, so a lost node costs its running tasks alone.
    """
    if not queue:
        return
    with _cluster(address, n_workers or 1) as ray:
        n_workers, resources = _shares(ray.nodes(), n_workers, use_gpus=use_gpus)
        threads = os.environ.get("OMP_NUM_THREADS", str(resources["num_cpus"]))
        actor_class = ray.remote(_Actor).options(**resources, runtime_env={"env_vars": {"OMP_NUM_THREADS": threads}})
        actors: list[Any] = []
        waiting: dict[Any, tuple[Any, Item | None]] = {}

        def start() -> None:
            actor = actor_class.remote(set_up, os.getcwd())
            actors.append(actor)
            waiting[actor.ready.remote()] = (actor, None)

        failed_starts = 0
        try:
            for _ in range(min(n_workers, len(queue))):
                start()
            while queue or any(item for _, item in waiting.values()):
                done, _ = ray.wait(list(waiting), num_returns=1, timeout=START_SECONDS)
                if not done and not any(item for _, item in waiting.values()):
                    raise SotglpError(
                        f"no worker could start on the Ray cluster within {START_SECONDS:g} seconds: wait until it has "
                        f"free {_listed(resources)}, or give more --processes, each with fewer"
                    )
                for ref in done:
                    actor, item = waiting.pop(ref)
                    try:
                        outcome = ray.get(ref)
                    except ray.exceptions.RayTaskError as error:
                        raise error.cause from None
                    except ray.exceptions.RayError as error:
                        failed_starts += item is None
                        if failed_starts == MAX_FAILED_STARTS:
                            raise SotglpError(
                                f"worker processes die on the Ray cluster before their first task ({_last_line(error)})"
                                ": check that all nodes have the same versions of Python, Ray and sotglp"
                            ) from error
                        queue.died([item] if item else [])
                        ray.kill(actor)
                        actors.remove(actor)
                        start()
                        continue
                    failed_starts = 0
                    if item is not None:
                        yield item.index, outcome
                    if queue:
                        item = queue.pop()
                        waiting[actor.run.remote(item.task)] = (actor, item)
        finally:
            for actor in actors:
                ray.kill(actor)


@contextmanager
def _cluster(address: str | None, n_workers: int) -> Iterator[Any]:
    """Connect to a cluster, or start one of this machine's cores, which ends with the context.

    It listens on loopback alone, has no dashboard and sends no usage statistics.
    """
    if find_spec("ray") is None:
        raise SotglpError("--engine ray needs Ray: pip install 'sotglp[ray]'")
    address = address or os.environ.get("RAY_ADDRESS")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if address is None:
        # Ray's own switch for a cluster of one node that listens on 127.0.0.1; read when it is imported.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        options: dict[str, Any] = {
            "num_cpus": max(os.cpu_count() or 1, n_workers),
            "object_store_memory": _STORE_BYTES,
            "include_dashboard": False,
        }
    else:
        _check_address(address)
        options = {}
    import ray

    if ray.is_initialized():
        yield ray
        return
    # Ray prints its notes to standard output, where the command's result belongs.
    with redirect_stdout(sys.stderr):
        try:
            with _termination_kept():
                ray.init(address or "local", log_to_driver=False, logging_level="error", **options)
        except (OSError, RuntimeError, ValueError) as error:
            where = "Ray can't start on this machine" if address is None else f"can't connect to Ray at {address}"
            raise SotglpError(
                f"{where} ({first_line(error)}): check --ray-address, and the logs in /tmp/ray"
            ) from error
        try:
            yield ray
        finally:
            ray.shutdown()


def _check_address(address: str) -> None:
    """Raise a SotglpError if nothing listens there: Ray would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto":
        return
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        raise SotglpError(
            f"there is no Ray cluster at {address} ({first_line(error)}): start one with `ray start --head`, and give "
            "its address, such as --ray-address 10.0.0.1:6379"
        ) from error


@contextmanager
def _termination_kept() -> Iterator[None]:
    """Keep how this process handles SIGTERM, which Ray replaces by another exit code."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _shares(nodes: Sequence[dict[str, Any]], n_workers: int | None, *, use_gpus: bool) -> tuple[int, dict[str, float]]:
    """Return the number of workers and what each gets: a GPU or a share of one, and a share of the cores."""
    found = [node["Resources"] for node in nodes if node["Alive"]]
    with_gpus = [node for node in found if node.get("GPU", 0) >= 1] if use_gpus else []
    n_gpus = sum(int(node["GPU"]) for node in with_gpus)
    cores = [int(node.get("CPU", 0)) for node in (with_gpus or found)]
    n_workers = n_workers or n_gpus or sum(map(bool, cores)) or 1
    if n_workers > sum(cores):
        raise SotglpError(
            f"the Ray cluster has {sum(cores)} cores, too few for {n_workers} workers: give fewer --processes"
        )
    # The largest share of which there are enough: a worker can't have cores of two nodes.
    share = next(size for size in range(max(cores), 0, -1) if sum(core // size for core in cores) >= n_workers)
    resources: dict[str, float] = {"num_cpus": share}
    if n_gpus:
        resources["num_gpus"] = 1 / math.ceil(n_workers / n_gpus)
    return n_workers, resources


def _listed(resources: dict[str, float]) -> str:
    gpus = f" and GPUs ({resources['num_gpus']:g})" if "num_gpus" in resources else ""
    return f"cores ({resources['num_cpus']:g} each){gpus}"


def _last_line(error: Exception) -> str:
    # Above it is the traceback of another process.
    return str(error).strip().splitlines()[-1][:200]
