from __future__ import annotations

import torch

from sotglp.methods import shot_patches
from sotglp.methods.shot_memory import ShotMemory
from sotglp.methods.shot_patches import ShotPatches, chosen_rows


def memory(n: int, rows: list[int]) -> tuple[ShotMemory, torch.Tensor]:
    generator = torch.Generator().manual_seed(n)
    features, tokens = (torch.randn(shape, generator=generator) for shape in ((n, 6), (len(rows), 5, 8)))
    return ShotMemory(features, features, torch.arange(n) % 3, ShotPatches.quantised(rows, tokens)), tokens


def test_eight_bits_are_close_to_the_tokens() -> None:
    own, tokens = memory(4, [0, 1, 2, 3])
    found = torch.stack([own.patches.tokens(index) for index in range(4)])
    assert (found - tokens).abs().max() <= tokens.abs().max() / shot_patches.LEVELS / 2 + 1e-6
    assert torch.equal(ShotPatches.quantised([0], torch.zeros(1, 5, 8)).tokens(0), torch.zeros(5, 8))


def test_patches_follow_the_shots_of_a_memory() -> None:
    (one, _), (other, _) = memory(6, [0, 2, 3, 5]), memory(3, [1, 2])
    assert one.joined(other).patches.rows.tolist() == [0, 2, 3, 5, 7, 8]
    assert one.joined(ShotMemory(other.features, other.regions, other.classes)).patches is None
    left = one.of_classes([1, 2])  # without the first class, shots 0 and 3
    assert left.classes.tolist() == [0, 1, 0, 1]
    assert left.patches.rows.tolist() == [1, 3]
    assert torch.equal(left.patches.tokens(0), one.patches.tokens(1))
    assert torch.equal(left.patches.tokens(1), one.patches.tokens(3))
    assert one.of_rows([1, 4]).patches is None


def test_many_shots_are_stored_in_part_or_not_at_all() -> None:
    classes = torch.arange(12) % 3
    limit = shot_patches.MAX_BYTES
    assert chosen_rows(classes, 1) == list(range(12))
    assert chosen_rows(classes, limit // 8) == [0, 1, 2, 3, 4, 5]
    assert chosen_rows(classes, limit // 5) == []
