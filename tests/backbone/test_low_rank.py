from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn

from sotglp.backbone.low_rank import LowRankUpdates, add_updates, attentions, new_matrices, project_in

RANK, WIDTH, SCALE = 2, 12, 0.7


def blocks(n_blocks: int = 2) -> nn.Module:
    torch.manual_seed(0)
    tower = nn.Sequential(*(ResidualAttentionBlock(WIDTH, 3) for _ in range(n_blocks))).double()
    return tower.requires_grad_(False).eval()


def adapted(dropout: float = 0.0, *, learns: bool = False) -> tuple[list[Any], LowRankUpdates]:
    layers = attentions(blocks())
    generator = torch.Generator().manual_seed(1)
    down, up = new_matrices(layers, RANK, generator)
    with torch.no_grad():
        up.normal_(generator=generator)
    updates = LowRankUpdates(down, up, SCALE, dropout)
    updates.learns = learns
    add_updates(layers, updates)
    return layers, updates


@pytest.fixture
def tokens() -> Tensor:
    return torch.randn(4, 5, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("learns", [False, True])
@pytest.mark.parametrize("depth", [0, 1])
def test_projections_are_those_of_the_summed_matrices(tokens: Tensor, learns: bool, depth: int) -> None:
    layers, updates = adapted(learns=learns)
    expected = []
    for number, (weight, bias) in enumerate(
        zip(layers[depth].in_proj_weight.chunk(3), layers[depth].in_proj_bias.chunk(3), strict=True)
    ):
        down, up = (part[depth, number].detach().numpy() for part in (updates.down, updates.up))
        expected.append(tokens.numpy() @ (weight.numpy() + SCALE * up @ down).T + bias.numpy())
    found = project_in(layers[depth], tokens).detach().numpy()
    np.testing.assert_allclose(found, np.concatenate(expected, axis=-1), rtol=1e-12, atol=1e-12)


def test_the_first_update_is_zero() -> None:
    layers = attentions(blocks())
    plain = [project_in(layer, torch.ones(1, WIDTH).double()) for layer in layers]
    down, up = new_matrices(layers, RANK, torch.Generator().manual_seed(1))
    assert down.shape == (2, 3, RANK, WIDTH)
    assert not up.any()
    assert 0.8 / WIDTH**0.5 < down.abs().max() <= 1 / WIDTH**0.5
    add_updates(layers, LowRankUpdates(down, up, SCALE, 0.25))
    for layer, expected in zip(layers, plain, strict=True):
        assert torch.equal(project_in(layer, torch.ones(1, WIDTH).double()), expected)


@pytest.mark.parametrize("is_masked", [False, True])
def test_attention_is_torchs_own_with_summed_matrices(tokens: Tensor, is_masked: bool) -> None:
    layers, updates = adapted()
    mask = torch.full((5, 5), -torch.inf, dtype=torch.float64).triu(1) if is_masked else None
    for depth, layer in enumerate(layers):
        plain = nn.MultiheadAttention(WIDTH, 3, batch_first=True).double()
        plain.load_state_dict(layer.state_dict())
        plain.in_proj_weight.data = updates.merged(depth, layer.in_proj_weight)
        expected = plain(tokens, tokens, tokens, need_weights=False, attn_mask=mask)[0]
        found = layer(tokens, tokens, tokens, need_weights=False, attn_mask=mask)[0]
        torch.testing.assert_close(found, expected)


def test_slopes_are_those_of_finite_differences(tokens: Tensor) -> None:
    layers, updates = adapted(learns=True)

    def output(down: Tensor, up: Tensor) -> Tensor:
        updates.down, updates.up = down, up  # type: ignore[assignment]
        attended: Tensor = layers[1](layers[0](tokens[:1])[0])[0]
        return attended

    assert torch.autograd.gradcheck(output, (updates.down, updates.up))


def test_dropout_leaves_out_inputs_of_each_matrix_and_repeats_by_seed(tokens: Tensor) -> None:
    layers, updates = adapted(0.25, learns=True)

    def product(seed: int) -> Tensor:
        updates.begin_step(seed)
        return updates.product(0, tokens.expand(500, 4, 5, WIDTH)).detach()

    first = product(3)
    assert torch.equal(product(3), first)
    assert not torch.equal(product(4), first)
    updates.begin_step(3)
    assert not torch.equal(updates.product(0, tokens), updates.product(0, tokens))
    # Inputs are left out before the product, and the others scaled, so that the mean stays.
    updates.dropout = 0.0
    torch.testing.assert_close(first.mean(dim=0), updates.product(0, tokens).detach(), rtol=0, atol=0.15)
    updates.dropout = 0.25
    updates.learns = False
    assert torch.equal(project_in(layers[0], tokens), project_in(layers[0], tokens))


def test_peft_computes_the_same(tokens: Tensor) -> None:
    peft = pytest.importorskip("peft", exc_type=ImportError)
    layers, updates = adapted()
    tower = blocks()
    # One update of rank 3 r of the joint matrix whose blocks are ours; peft's factor is alpha / sqrt(3 r).
    alpha = SCALE * (3 * RANK) ** 0.5
    config = peft.LoraConfig(r=3 * RANK, lora_alpha=alpha, use_rslora=True, target_modules=["attn"])
    model = peft.get_peft_model(tower, config).double().eval()
    own = [module for module in model.modules() if hasattr(module, "lora_A") and hasattr(module, "in_proj_weight")]
    assert len(own) == 2
    for depth, layer in enumerate(own):
        with torch.no_grad():
            layer.lora_A["default"].weight.copy_(updates.down[depth].flatten(0, 1))
            layer.lora_B["default"].weight.copy_(torch.block_diag(*updates.up[depth]))
    found = tokens
    torch.manual_seed(0)
    for block, layer in zip(blocks(), layers, strict=True):
        block.attn = layer
        found = block(found)
    with torch.no_grad():
        torch.testing.assert_close(found, model(tokens))
