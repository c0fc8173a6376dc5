"""Run the same command in several processes that share its work."""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid

from sotglp.cli.signals import LAUNCHER
from sotglp.errors import SotglpError


def is_launched() -> bool:
    """Whether a launcher, such as ``accelerate launch``, started this process."""
    return "WORLD_SIZE" in os.environ


def launch(n_processes: int, *decided: str) -> None:
    """Run the current command line in ``n_processes`` processes, and exit like the first one that fails.

    ``decided`` are options at its end, which override those before them, for what all processes must agree on.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ[LAUNCHER] = str(os.getpid())
    # Processes that each use all cores would mostly wait for one another.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // n_processes)))
    # Each process prints its own error.
    for name in ("torch.distributed.elastic", "torch.distributed.elastic.agent.server.api"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
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
        elastic_launch(config, sys.executable)("-m", "sotglp", *sys.argv[1:], *decided)
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        if failure.exitcode < 0:
            guess = ", probably because memory ran out" if -failure.exitcode == signal.SIGKILL else ""
            raise SotglpError(
                f"one of the {n_processes} processes of this run was killed ({failure.signal_name()}){guess}: repeat "
                "the command with --resume"
            ) from error
        sys.exit(failure.exitcode)
    except SignalException as error:
        sys.exit(128 + error.sigval)
