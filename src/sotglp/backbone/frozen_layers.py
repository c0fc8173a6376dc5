"""Layers with frozen weights that compute what torch's do in less time, with parameters of the same names."""

from __future__ import annotations

from typing import Any, cast

import torch
from timm.layers import Conv2dSame, get_same_padding, pad_same
from torch import Tensor, nn
from torch.nn import functional as F

from sotglp.backbone.blocks import uses_onednn

LIMIT = 6.0
"""Largest value of ReLU6."""


class FusedConvolution(nn.Conv2d):
    """A convolution and the ReLU6 after it, if there is one.

    On a CPU with AVX-512, oneDNN computes both in one pass with a weight in its own layout. torch puts the weight into
    that layout in each call; with one thread and few images, it has MKL multiply 1 x 1 kernels instead. Values agree
    within float32.

    Parameters
    ----------
    convolution : nn.Conv2d
        The convolution, whose parameters are shared. timm's Conv2dSame pads as TensorFlow does.
    has_activation : bool
        Whether ReLU6 follows.
    """

    def __init__(self, convolution: nn.Conv2d, *, has_activation: bool) -> None:
        super().__init__(
            convolution.in_channels,
            convolution.out_channels,
            cast("tuple[int, int]", convolution.kernel_size),
            cast("tuple[int, int]", convolution.stride),
            cast("str | tuple[int, int]", convolution.padding),
            cast("tuple[int, int]", convolution.dilation),
            convolution.groups,
            bias=convolution.bias is not None,
            device="meta",
        )
        self.weight, self.bias = convolution.weight, convolution.bias
        self.has_activation = has_activation
        self._pads_ends = isinstance(convolution, Conv2dSame)
        self._packed: tuple[Any, Tensor] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the weight in oneDNN's layout, which can't be copied."""
        return {**self.__dict__, "_packed": None}

    def forward(self, images: Tensor) -> Tensor:
        """Convolve feature maps (B, C, H, W)."""
        if not uses_onednn(images, self.weight) or images.requires_grad:
            padded = pad_same(images, self.kernel_size, self.stride, self.dilation) if self._pads_ends else images
            found = super().forward(padded)
            return F.relu6(found) if self.has_activation else found
        padding, enlarged = self._padding(images)
        geometry = padding, list(self.stride), list(self.dilation), self.groups
        made_of = version_of(self.weight), padding, enlarged
        if self._packed is None or self._packed[0] != made_of:
            weight = F.pad(self.weight, (enlarged[1], 0, enlarged[0], 0))
            self._packed = made_of, torch.ops.mkldnn._reorder_convolution_weight(weight, *geometry, None)
        activation, limits = ("hardtanh", [0.0, LIMIT]) if self.has_activation else ("none", [])
        finished: Tensor = torch.ops.mkldnn._convolution_pointwise(
            images, self._packed[1], self.bias, *geometry, activation, limits, ""
        )
        return finished

    def _padding(self, images: Tensor) -> tuple[list[int], list[int]]:
        """Return the padding of both sides of the height and width, and the zeros to put before the kernel.

        TensorFlow pads the end by one more than the start where the sum is odd. oneDNN pads both alike: with a zero
        before the kernel, it finds the same without a padded copy of the images.
        """
        if not self._pads_ends:
            return list(cast("tuple[int, int]", self.padding)), [0, 0]
        sizes = zip(images.shape[2:], self.kernel_size, self.stride, self.dilation, strict=True)
        sums = [get_same_padding(*size) for size in sizes]
        return [(total + 1) // 2 for total in sums], [total % 2 for total in sums]


class FrozenLinear(nn.Linear):
    """A linear layer that only adds its bias if its matrix is the identity, with the same result."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self._found: tuple[Any, bool] | None = None

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (..., W) to (..., d)."""
        if self.weight.requires_grad or self.weight.is_meta or torch.compiler.is_compiling():
            return super().forward(tokens)
        version = version_of(self.weight)
        if self._found is None or self._found[0] != version:
            identity = torch.eye(*self.weight.shape, dtype=self.weight.dtype, device=self.weight.device)
            self._found = version, torch.equal(self.weight, identity)
        if not self._found[1]:
            return super().forward(tokens)
        return tokens if self.bias is None else tokens + self.bias


def version_of(weight: Tensor) -> tuple[int, torch.dtype, int]:
    """Return what changes whenever a weight is moved, converted or overwritten."""
    return weight.data_ptr(), weight.dtype, 0 if weight.is_inference() else weight._version
