"""The same command in several processes that share its work."""

from __future__ import annotations

import logging
import os
import sys
import uuid


def is_launched() -> bool:
    """Whether this process is one of several that a launcher started, such as ``accelerate launch``."""
    return "WORLD_SIZE" in os.environ


def launch(n_processes: int) -> None:
    """Run the command line that is running in ``n_processes`` processes, and end as the first that fails ends."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # Processes that each take all cores would wait for one another most of the time.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // n_processes)))
    # Each process says itself what went wrong.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=n_processes,
        run_id=str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.5,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "sotglp", *sys.argv[1:])
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        sys.exit(failure.exitcode if failure.exitcode > 0 else 1)
