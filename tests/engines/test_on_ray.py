from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from sotglp import SotglpError
from sotglp.engines import EngineConfig, run_tasks
from sotglp.engines.on_ray import _shares
from support.engine_tasks import endless_run
from support.processes import needs_proc, wait_for

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray isn't installed")


def nodes(*resources: dict[str, float]) -> list[dict[str, Any]]:
    gone = {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}
    return [gone, *({"Alive": True, "Resources": one} for one in resources)]


def test_workers_share_the_cores_of_each_node() -> None:
    cluster = nodes({"CPU": 16.0}, {"CPU": 8.0})
    assert _shares(cluster, 2, use_gpus=True) == (2, {"num_cpus": 8})
    assert _shares(cluster, 3, use_gpus=True) == (3, {"num_cpus": 8})
    assert _shares(cluster, 5, use_gpus=True) == (5, {"num_cpus": 4})
    assert _shares(cluster, None, use_gpus=True) == (2, {"num_cpus": 8})
    with pytest.raises(SotglpError, match="24 cores, too few for 25"):
        _shares(cluster, 25, use_gpus=True)


def test_each_worker_has_a_gpu_or_a_share_of_one() -> None:
    cluster = nodes({"CPU": 64.0, "GPU": 4.0}, {"CPU": 4.0})
    assert _shares(cluster, None, use_gpus=True) == (4, {"num_cpus": 16, "num_gpus": 1.0})
    assert _shares(cluster, 6, use_gpus=True) == (6, {"num_cpus": 10, "num_gpus": 0.5})
    assert _shares(cluster, 2, use_gpus=False) == (2, {"num_cpus": 32})


def test_ray_that_is_not_installed_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sotglp.engines.on_ray.find_spec", lambda name: None)
    with (
        run_tasks(lambda: abs, [1], EngineConfig("ray")) as results,
        pytest.raises(SotglpError, match=r"sotglp\[ray\]"),
    ):
        next(results)


@needs_ray
@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", "127.0.0.1:99999"])
def test_a_cluster_that_does_not_answer_is_one_sentence(address: str) -> None:
    engine = EngineConfig("ray", ray_address=address)
    with (
        run_tasks(lambda: abs, [1], engine) as results,
        pytest.raises(SotglpError, match=f"no Ray cluster at {address} "),
    ):
        next(results)


@needs_proc
@needs_ray
def test_a_cluster_of_its_own_is_heard_by_this_machine_alone_and_its_workers_end_with_the_process(
    tmp_path: Path,
) -> None:
    with endless_run(EngineConfig("ray", 2), tmp_path) as own:
        wait_for(lambda: len(list(tmp_path.iterdir())) == 2, own.process)
        addresses = {address for pid in own.alive() for address in listened_addresses(pid)}
        assert addresses
        assert {address.rpartition(":")[0] for address in addresses} <= LOOPBACK
        own.process.kill()
        # Two helpers of Ray itself wait a minute for its other processes.
        workers = {int(path.name) for path in tmp_path.iterdir()}
        deadline = time.monotonic() + 60
        while workers & set(own.alive()) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not workers & set(own.alive())


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def listened_addresses(pid: int) -> Iterator[str]:
    """Addresses, as in /proc/net/tcp, at which a process waits for connections."""
    with suppress(OSError):
        sockets = {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()}
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                    yield fields[1]
