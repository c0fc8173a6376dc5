"""Engines that share independent tasks among worker processes: on this machine, or on a Ray cluster."""

from sotglp.engines.run import EngineConfig as EngineConfig
from sotglp.engines.run import run_tasks as run_tasks
