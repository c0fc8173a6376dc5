"""Layers of open_clip's residual attention blocks with frozen weights, as the text and image towers compute them."""

from __future__ import annotations

from typing import Any

import torch
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F

QUICK = 1.702
"""Factor of QuickGELU, x sigmoid(1.702 x)."""


def linear(tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute ``tokens @ weight.T + bias`` with weights that take no gradient.

    On x86, torch multiplies float32 matrices by MKL, which uses AVX2 alone on AMD's processors. With AVX-512, oneDNN,
    which torch ships too, is 2.2 times faster (Zen 5); with AVX2 it is slower (Zen 3). Both agree within float32.
    """
    return _OneDnnLinear.apply(tokens, weight, bias) if uses_onednn(tokens, weight) else F.linear(tokens, weight, bias)


def learned_linear(tokens: Tensor, weight: Tensor) -> Tensor:
    """Compute ``tokens @ weight.T`` with weights that may take a gradient; by oneDNN where :func:`linear` uses it."""
    if not uses_onednn(tokens, weight, learned=True):
        return F.linear(tokens, weight)
    product: Tensor = _OneDnnProduct.apply(tokens, weight)
    return product


def uses_onednn(tokens: Tensor, weight: Tensor, *, learned: bool = False) -> bool:
    """Return whether :func:`linear` calls oneDNN: float32 on a CPU with AVX-512, outside mixed precision and tracing.

    ``learned`` is for weights that may take a gradient, as in :func:`learned_linear`.
    """
    return (
        tokens.device.type == "cpu"
        and tokens.dtype == weight.dtype == torch.float32
        and (learned or not weight.requires_grad)
        and _ONEDNN is not None
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def add_mlp(block: ResidualAttentionBlock, tokens: Tensor) -> Tensor:
    """Add the MLP of a block to tokens (..., W).

    QuickGELU is torch's SiLU, one pass instead of three, since x sigmoid(a x) = silu(a x) / a. The factor a multiplies
    the inputs of both layers where it costs nothing: in the layer norm, the biases and the sum.
    """
    first, activation, last = block.mlp
    norm = block.ln_2
    if not (uses_onednn(tokens, first.weight) and isinstance(norm, nn.LayerNorm)):
        finished: Tensor = tokens + block.ls_2(block.mlp(norm(tokens)))
        return finished
    factor = QUICK if isinstance(activation, QuickGELU) else 1.0
    normed = F.layer_norm(tokens, norm.normalized_shape, factor * norm.weight, factor * norm.bias, norm.eps)
    hidden = linear(normed, first.weight, factor * first.bias)
    hidden = F.silu(hidden) if isinstance(activation, QuickGELU) else activation(hidden)
    added = block.ls_2(linear(hidden, last.weight, factor * last.bias))
    return torch.add(tokens, added, alpha=1 / factor)


def onednn_product() -> Any:
    """Return torch's operator for oneDNN's product, which its own compiler calls too; None where torch has none."""
    is_x86 = torch.backends.cpu.get_cpu_capability().startswith("AVX")
    if not (is_x86 and torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return None
    return torch.ops.mkldnn._linear_pointwise


_ONEDNN: Any = onednn_product() if torch.backends.cpu.get_cpu_capability() == "AVX512" else None


class _OneDnnLinear(torch.autograd.Function):
    """Product by oneDNN, forward and backward; the weights take no gradient."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        product: Tensor = _ONEDNN(tokens, weight, bias, "none", [], "")
        return product

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return _ONEDNN(slopes[0], weight.T, None, "none", [], ""), None, None


class _OneDnnProduct(torch.autograd.Function):
    """Product by oneDNN of tokens (..., W) and weights (V, W), forward and backward."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(tokens, weight)
        product: Tensor = _ONEDNN(tokens, weight, None, "none", [], "")
        return product

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, Tensor | None]:
        tokens, weight = ctx.saved_tensors
        of_tokens = of_weight = None
        if ctx.needs_input_grad[0]:
            of_tokens = _ONEDNN(slopes[0], weight.T, None, "none", [], "")
        if ctx.needs_input_grad[1]:
            rows = slopes[0].flatten(0, -2)
            of_weight = _ONEDNN(rows.T, tokens.flatten(0, -2).T, None, "none", [], "")
        return of_tokens, of_weight
