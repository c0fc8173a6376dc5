from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sotglp import SotglpError
from sotglp.backbone.torch_archive import read_archive
from support.hostile_files import GREEDY, PICKLES


@pytest.mark.parametrize("craft", [*PICKLES, *GREEDY], ids=lambda craft: craft.__name__)
def test_nothing_in_a_file_runs(tmp_path: Path, craft: object) -> None:
    path, marker = tmp_path / "weights.pt", tmp_path / "ran"
    craft(path, marker)  # type: ignore[operator]
    try:
        tensors = read_archive(path)
    except SotglpError:
        tensors = {}
    assert all(tensor.nbytes <= path.stat().st_size for tensor in tensors.values())
    assert not marker.exists()


def test_shared_and_transposed_tensors(tmp_path: Path) -> None:
    whole = torch.arange(12.0).view(3, 4)
    torch.save({"a": whole, "b": whole.T, "c": {"d": whole[1:, 2:], "e": torch.nn.Parameter(whole)}}, tmp_path / "w.pt")
    found = read_archive(tmp_path / "w.pt")
    assert set(found) == {"a", "b", "c.d", "c.e"}
    assert torch.equal(found["b"], whole.T)
    assert torch.equal(found["c.d"], whole[1:, 2:])
