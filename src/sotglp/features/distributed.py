"""The processes of a run: one, unless a launcher started several."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from sotglp.errors import SotglpError

Item = TypeVar("Item")


class LostProcessError(SotglpError):
    """Another process of the run has ended."""

    def __init__(self) -> None:
        super().__init__(
            "another process of this run has ended (without an error of its own, it probably ran out of memory): "
            "repeat the command with --resume"
        )


class Processes:
    """One process of a run that ``accelerate launch`` or ``--num-processes`` may have started several of.

    ``index`` is its number, from 0, and ``count`` how many there are. On the CPU, processes communicate by gloo.
    :meth:`add_up`, :meth:`add_up_gradients` and :meth:`wait` raise a LostProcessError if another process has ended.
    """

    def __init__(self, device: torch.device) -> None:
        self.index, self.count = 0, 1
        self._device = device
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            from accelerate import PartialState

            self._state = PartialState(cpu=device.type == "cpu")
            # The threads of a group that is still open when the interpreter exits can end the process with SIGABRT.
            atexit.register(self._state.destroy_process_group)
            self.index, self.count = self._state.process_index, self._state.num_processes

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files of the run."""
        return self.index == 0

    def share(self, items: Sequence[Item]) -> list[Item]:
        """Return this process's share of some work: every ``count``-th item."""
        return list(items[self.index :: self.count])

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes."""
        if self.count > 1:
            from accelerate.utils import reduce

            with _detect_lost_process():
                for tensor in tensors:
                    tensor.copy_(reduce(tensor.to(self._device), reduction="sum"))

    def add_up_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Sum gradients over all processes, also those that only some processes have."""
        if self.count == 1:
            return
        n_processes = torch.tensor([float(parameter.grad is not None) for parameter in parameters])
        self.add_up([n_processes])
        learned = [parameter for parameter, n in zip(parameters, n_processes.tolist(), strict=True) if n > 0]
        for parameter in learned:
            if parameter.grad is None:  # a process without images of the batch
                parameter.grad = torch.zeros_like(parameter)
        self.add_up([parameter.grad for parameter in learned if parameter.grad is not None])

    def wait(self) -> None:
        """Wait for all processes."""
        if self.count > 1:
            with _detect_lost_process():
                self._state.wait_for_everyone()


@contextmanager
def _detect_lost_process() -> Iterator[None]:
    """Convert the error that torch raises when another process has ended."""
    try:
        yield
    except RuntimeError as error:
        # On the CPU, torch has no exception type for it.
        if not (isinstance(error, torch.distributed.DistError) or "gloo" in str(error)):
            raise
        raise LostProcessError from error
