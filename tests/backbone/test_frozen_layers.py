from __future__ import annotations

import copy
import pickle

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn
from torch.nn import functional as F

from sotglp.backbone import blocks
from sotglp.backbone.frozen_layers import FrozenLinear, FusedConvolution


@pytest.fixture(autouse=True)
def onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use oneDNN on processors without AVX-512 too."""
    monkeypatch.setattr(blocks, "_ONEDNN", blocks.onednn_product())


def frozen(layer: nn.Module) -> nn.Module:
    return layer.requires_grad_(False).eval()


def convolution(kernel: int = 3, stride: int = 2, groups: int = 8) -> nn.Conv2d:
    torch.manual_seed(0)
    return frozen(Conv2dSame(8, 16, kernel, stride=stride, groups=groups))


@pytest.mark.parametrize(("height", "width"), [(12, 12), (13, 13), (12, 15), (3, 4)])
@pytest.mark.parametrize(("kernel", "stride", "groups"), [(3, 2, 1), (5, 2, 8), (3, 1, 8), (1, 1, 1), (2, 2, 1)])
def test_a_fused_convolution_pads_as_tensorflow_does(
    height: int, width: int, kernel: int, stride: int, groups: int
) -> None:
    plain = convolution(kernel, stride, groups)
    images = 5 * torch.randn(2, 8, height, width)
    for has_activation in (True, False):
        expected = F.relu6(plain(images)) if has_activation else plain(images)
        fused = FusedConvolution(plain, has_activation=has_activation)
        torch.testing.assert_close(fused(images), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(fused(images.contiguous(memory_format=torch.channels_last)), fused(images))


@pytest.mark.parametrize("has_bias", [True, False])
def test_a_fused_convolution_keeps_the_padding_of_torchs_own(has_bias: bool) -> None:
    plain = frozen(nn.Conv2d(8, 16, 5, stride=(1, 2), padding=(2, 1), dilation=(1, 2), bias=has_bias))
    images = torch.randn(1, 8, 12, 14)
    torch.testing.assert_close(
        FusedConvolution(plain, has_activation=False)(images), plain(images), rtol=1e-5, atol=1e-5
    )


def test_a_changed_weight_is_read_anew_and_copies_share_nothing() -> None:
    plain = convolution()
    fused, images = FusedConvolution(plain, has_activation=False), torch.randn(1, 8, 12, 12)
    before = fused(images)
    assert fused.state_dict().keys() == plain.state_dict().keys()
    for again in (copy.deepcopy(fused), pickle.loads(pickle.dumps(fused))):
        assert torch.equal(again(images), before)
    fused.load_state_dict({name: 2 * value for name, value in plain.state_dict().items()})
    torch.testing.assert_close(fused(images), 2 * before, rtol=1e-5, atol=1e-5)


def test_other_formats_and_gradients_are_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = convolution()
    fused, images = FusedConvolution(plain, has_activation=True), torch.randn(1, 8, 12, 12)
    expected = F.relu6(plain(images))
    assert torch.equal(fused.to(torch.float64)(images.double()), F.relu6(plain.double()(images.double())))
    learned = images.clone().requires_grad_()
    fused.float()(learned).sum().backward()
    assert learned.grad is not None
    monkeypatch.setattr(blocks, "_ONEDNN", None)
    assert torch.equal(fused(images), expected)
    assert fused.to("meta")(images.to("meta")).shape == expected.shape


def test_a_frozen_linear_layer_with_the_identity_adds_its_bias() -> None:
    plain = frozen(nn.Linear(6, 6))
    tokens = torch.randn(4, 5, 6)
    layer = FrozenLinear(plain)
    assert torch.equal(layer(tokens), plain(tokens))
    nn.init.eye_(plain.weight)
    assert torch.equal(layer(tokens), tokens + plain.bias)
    torch.testing.assert_close(layer(tokens), plain(tokens))
    plain.weight[0, 1] = 1
    assert torch.equal(layer(tokens), plain(tokens))
    without = frozen(nn.Linear(6, 6, bias=False))
    nn.init.eye_(without.weight)
    assert torch.equal(FrozenLinear(without)(tokens), tokens)
