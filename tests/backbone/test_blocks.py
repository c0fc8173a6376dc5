from __future__ import annotations

import pytest
import torch
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import nn
from torch.nn import functional as F

from sotglp.backbone import blocks
from sotglp.backbone.blocks import add_mlp, learned_linear, linear


@pytest.fixture(autouse=True)
def onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use oneDNN on processors without AVX-512 too."""
    monkeypatch.setattr(blocks, "_ONEDNN", blocks.onednn_product())


def frozen_block(activation: type[nn.Module], scale: float | None = None) -> ResidualAttentionBlock:
    torch.manual_seed(0)
    block = ResidualAttentionBlock(48, 4, ls_init_value=scale, act_layer=activation).requires_grad_(False)
    for norm in (block.ln_1, block.ln_2):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return block


def assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert (ours - theirs).norm() < 1e-6 * theirs.norm()


@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("activation", [nn.GELU, QuickGELU])
def test_mlp_and_its_gradient_are_the_blocks_own(activation: type[nn.Module], scale: float | None) -> None:
    block = frozen_block(activation, scale)
    tokens = torch.randn(5, 7, 48, requires_grad=True)
    ours, theirs = add_mlp(block, tokens), tokens + block.ls_2(block.mlp(block.ln_2(tokens)))
    assert_close(ours, theirs)
    assert_close(*(torch.autograd.grad(found.pow(3).sum(), tokens)[0] for found in (ours, theirs)))


@pytest.mark.parametrize("shape", [(1, 48), (3, 48), (2, 7, 48)])
def test_linear_is_torchs_within_rounding(shape: tuple[int, ...]) -> None:
    tokens = torch.randn(shape, requires_grad=True)
    weight, bias = torch.randn(96, 48), torch.randn(96)
    for used in (bias, None):
        ours, theirs = linear(tokens, weight, used), F.linear(tokens, weight, used)
        assert_close(ours, theirs)
        assert_close(*(torch.autograd.grad(found.pow(2).sum(), tokens)[0] for found in (ours, theirs)))


def test_a_row_has_the_same_bits_in_any_batch_of_images() -> None:
    tokens, weight, bias = torch.randn(8, 197, 192), torch.randn(576, 192), torch.randn(576)
    whole = linear(tokens, weight, bias)
    learned = learned_linear(tokens, weight)
    for n_images in (1, 3):
        assert torch.equal(linear(tokens[:n_images], weight, bias), whole[:n_images])
        assert torch.equal(learned_linear(tokens[:n_images], weight), learned[:n_images])


def test_other_formats_and_learned_weights_are_torchs_own() -> None:
    tokens, weight, bias = torch.randn(3, 48), torch.randn(96, 48), torch.randn(96)
    assert torch.equal(linear(tokens.double(), weight.double(), None), tokens.double() @ weight.double().T)
    learned = weight.clone().requires_grad_()
    linear(tokens, learned, bias).sum().backward()
    assert learned.grad is not None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear(tokens, weight, bias).dtype == torch.bfloat16


@pytest.mark.parametrize("shape", [(3, 48), (2, 7, 48)])
def test_learned_linear_and_its_gradients_are_torchs_within_rounding(shape: tuple[int, ...]) -> None:
    leaves = torch.randn(shape, requires_grad=True), torch.randn(96, 48, requires_grad=True)
    ours, theirs = learned_linear(*leaves), F.linear(*leaves)
    assert_close(ours, theirs)
    pairs = zip(*(torch.autograd.grad(found.pow(3).sum(), leaves) for found in (ours, theirs)), strict=True)
    for our_slope, their_slope in pairs:
        assert_close(our_slope, their_slope)


def test_without_onednn_the_block_is_open_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_ONEDNN", None)
    block, tokens = frozen_block(QuickGELU), torch.randn(3, 48)
    assert torch.equal(add_mlp(block, tokens), tokens + block.mlp(block.ln_2(tokens)))
