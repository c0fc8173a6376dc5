"""Patch tokens of shots in 8 bits, with which a model file can stand in for the images it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from typing_extensions import Self

MAX_BYTES = 64 * 2**20
"""Most bytes of patch tokens in a memory: 1,000 shots of ``photo``, 430 of ViT-B/16."""

LEVELS = 127


class ShotPatches(NamedTuple):
    """Patch tokens of m of a memory's shots.

    ``rows`` (m,) are the indices of these shots in the memory, ascending; tokens are ``levels`` (m, P, W), int8, times
    the ``scales`` (m, P) of the patches.
    """

    rows: Tensor
    levels: Tensor
    scales: Tensor

    @classmethod
    def quantised(cls, rows: Sequence[int], tokens: Tensor) -> Self:
        """Round the tokens (m, P, W) of shots to 8 bits, with a scale for each patch."""
        tokens = tokens.float()
        scales = tokens.abs().amax(dim=-1).clamp(min=torch.finfo(torch.float32).tiny) / LEVELS
        return cls(torch.tensor(rows, dtype=torch.int64), (tokens / scales[..., None]).round().to(torch.int8), scales)

    def tokens(self, index: int) -> Tensor:
        """Return the tokens of the shot ``rows[index]``, (P, W), float32."""
        return self.levels[index].float() * self.scales[index, :, None]

    def of_rows(self, kept: Sequence[int]) -> ShotPatches | None:
        """Select those of the rows of a memory that is reduced to the rows ``kept``; None if none is left."""
        new_row = {old: new for new, old in enumerate(kept)}
        own = [index for index, row in enumerate(self.rows.tolist()) if row in new_row]
        if not own:
            return None
        rows = torch.tensor([new_row[row] for row in self.rows[own].tolist()])
        return ShotPatches(rows, self.levels[own], self.scales[own])

    def joined(self, other: ShotPatches, n_before: int) -> ShotPatches:
        """Return these together with those of a memory that follows one of ``n_before`` shots."""
        own = (self.rows, other.rows + n_before)
        return ShotPatches(
            torch.cat(own), torch.cat([self.levels, other.levels]), torch.cat([self.scales, other.scales])
        )


def chosen_rows(classes: Tensor, n_bytes: int) -> list[int]:
    """Choose the shots whose patches are stored: as many of each class as fit, all of them if possible.

    ``classes`` (n,) are the class indices of all shots, ``n_bytes`` the bytes of one. Nothing is chosen if less than
    two of each class fit.
    """
    of_class: dict[int, list[int]] = {}
    for row, index in enumerate(classes.tolist()):
        of_class.setdefault(index, []).append(row)
    share = MAX_BYTES // (n_bytes * len(of_class))
    if len(classes) * n_bytes <= MAX_BYTES:
        return list(range(len(classes)))
    return sorted(row for rows in of_class.values() for row in rows[:share]) if share >= 2 else []
