from __future__ import annotations

import pytest
import torch

from sotglp import SotglpError
from sotglp.features.rows import EncodedImages, round_row, stack_rows


@pytest.mark.parametrize(
    ("largest", "dtype"),
    [(65504.0, torch.float16), (-65504.0, torch.float16), (65505.0, torch.float32), (-1e30, torch.float32)],
)
def test_patches_beyond_float16_are_stored_in_float32(largest: float, dtype: torch.dtype) -> None:
    image_features, patches = torch.full((3,), 1e30, dtype=torch.float64), torch.rand(2, 4)
    patches[1, 2] = largest
    row = round_row(image_features, patches)
    assert [tensor.dtype for tensor in row] == [torch.float32, dtype]
    assert torch.equal(row[0], image_features.float())
    assert torch.equal(row[1], patches.to(dtype))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    for broken in (0, 1):
        row = [torch.zeros(3), torch.zeros(2, 4)]
        row[broken].view(-1)[1] = value
        with pytest.raises(SotglpError, match="not finite"):
            round_row(*row)


def test_a_row_is_a_copy_without_gradient() -> None:
    batch = torch.rand(4, 3, 5, dtype=torch.float16, requires_grad=True)
    image_features, patches = round_row(batch[2, 0, :4].float(), batch[2].T)
    assert not any(tensor.requires_grad for tensor in (image_features, patches))
    assert patches.is_contiguous()
    assert patches.untyped_storage().nbytes() == 2 * 15


def test_a_batch_with_one_float32_row_is_float32_and_rounds_the_others() -> None:
    encoded = EncodedImages(torch.rand(3, 2), torch.rand(3, 4, 5))
    assert encoded.rounded().patch_tokens.dtype == torch.float16
    patches = encoded.patch_tokens
    patches[1] *= 1e6
    stacked = stack_rows([round_row(*row) for row in zip(*encoded[:2], strict=True)], projected=True)
    assert stacked.projected
    assert stacked.patch_tokens.dtype == torch.float32
    assert torch.equal(stacked.patch_tokens[1], patches[1])
    assert torch.equal(stacked.patch_tokens[[0, 2]], patches[[0, 2]].half().float())
    assert torch.equal(encoded.rounded().patch_tokens, stacked.patch_tokens)
