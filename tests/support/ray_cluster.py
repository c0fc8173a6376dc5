"""A Ray cluster on this machine, which a test starts and ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def ray_cluster(n_cpus: int) -> Iterator[str]:
    """Start a cluster of one node that listens on loopback, and yield its address."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        # Its workers import modules of the tests.
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        cluster_utils = pytest.importorskip("ray.cluster_utils", reason="Ray isn't installed")
        cluster = cluster_utils.Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": n_cpus, "include_dashboard": False, "object_store_memory": 2**27},
        )
        try:
            yield cluster.address
        finally:
            cluster.shutdown()
