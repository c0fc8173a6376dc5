"""The embedded model of photographs: an EfficientNet-Lite0 and a small text tower, made by ``pretraining.photo``.

Its weights are stored as 8-bit integers with one scale per row (matrices) or in half precision (the rest), batch
normalisation is folded into the convolutions, and the table of token embeddings is a product of two matrices.
"""

from __future__ import annotations

from typing import Any, cast

import open_clip
import torch
from open_clip.transform import PreprocessCfg
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sotglp.backbone.frozen_layers import FrozenLinear, FusedConvolution
from sotglp.files.tensors import read_packaged_tensors

NAME = "photo"

CONFIG: dict[str, Any] = {
    "embed_dim": 1280,
    "vision_cfg": {
        "timm_model_name": "tf_efficientnet_lite0",
        "timm_pool": "avg",
        "timm_proj": "linear",
        "timm_proj_bias": True,
        "image_size": 224,
    },
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 3, "mlp_ratio": 1.0},
}

MEAN, STANDARD_DEVIATION = 127 / 255, 128 / 255
"""Of the pixels that the image tower was trained with, for each colour."""

FILE = "photo.safetensors"

FINGERPRINT = "sha256:75109e244ac606ea71672652d1b479f0277a27d73b30f625def70d360443c54d"
"""Fingerprint of the packaged weights, by :func:`sotglp.backbone.weights.fingerprint`."""

HEAD = "visual.head.proj.weight"
TOKENS = "text.token_embedding.weight"
TABLE, MIXING = "text.token_table", "text.token_mixing"
SCALE = ".scale"


def build_photo(seed: int, *, image_size: int | None = None, quick_gelu: bool = False) -> nn.Module:
    """Build the architecture, for 224 x 224 pixels by default, with random weights that depend on the seed alone."""
    vision = CONFIG["vision_cfg"] | ({} if image_size is None else {"image_size": image_size})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        clip: Any = open_clip.CustomTextCLIP(**{**CONFIG, "vision_cfg": vision}, quick_gelu=quick_gelu)
    fold_norms(clip.visual.trunk)
    fuse_activations(clip.visual.trunk)
    clip.visual.head.proj = FrozenLinear(clip.visual.head.proj)  # the packaged matrix is the identity
    colours = {"mean": (MEAN,) * 3, "std": (STANDARD_DEVIATION,) * 3}
    size = clip.visual.image_size
    clip.visual.preprocess_cfg = PreprocessCfg(size=size, interpolation="bicubic", **colours).__dict__
    model: nn.Module = clip.eval()
    return model


def load_photo(*, image_size: int | None = None) -> nn.Module:
    """Build the architecture with the packaged weights."""
    clip = build_photo(0, image_size=image_size)
    clip.load_state_dict(unpack(read_packaged_tensors("backbone/weights_data", FILE)))
    return clip


def fold_norms(trunk: nn.Module) -> None:
    """Fold each batch normalisation of an EfficientNet into the convolution before it, in place.

    The normalisation is replaced by its activation, and the convolution gets a bias.
    """
    convolution = ""
    for name, module in list(trunk.named_modules()):
        if isinstance(module, nn.Conv2d):
            convolution = name
        elif isinstance(module, BatchNormAct2d):
            fused = fuse_conv_bn_eval(cast(nn.Conv2d, trunk.get_submodule(convolution)).eval(), module.eval())
            trunk.set_submodule(convolution, fused)
            trunk.set_submodule(name, module.act)


def fuse_activations(trunk: nn.Module) -> None:
    """Replace each convolution without a norm, and the ReLU6 after it, by one layer, in place."""
    modules = list(trunk.named_modules())
    for i, (name, module) in enumerate(modules):
        if isinstance(module, nn.Conv2d):
            follower, activation = next(
                (pair for pair in modules[i + 1 :] if isinstance(pair[1], nn.Conv2d | nn.ReLU6)), ("", None)
            )
            has_activation = isinstance(activation, nn.ReLU6)
            trunk.set_submodule(name, FusedConvolution(module, has_activation=has_activation))
            if has_activation:
                trunk.set_submodule(follower, nn.Identity())


def pack(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights as 8-bit integers with a scale per row, and vectors in half precision.

    ``weights`` are those of the model, with TABLE (V, r) and MIXING (r, W) instead of their product, the token
    embeddings. The head's matrix is the identity and isn't stored.
    """
    packed: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if name == HEAD:
            continue
        if tensor.ndim < 2:
            packed[name] = tensor.half() if tensor.ndim else tensor
            continue
        rows = tensor.flatten(1)
        scale = (rows.abs().amax(1) / 127).clamp(min=1e-6).half()
        packed[name] = (rows / scale.float()[:, None]).round().clamp(-127, 127).to(torch.int8).view(tensor.shape)
        packed[name + SCALE] = scale
    return {name: tensor.contiguous() for name, tensor in packed.items()}


def unpack(packed: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return float32 weights from those of :func:`pack`."""
    weights: dict[str, Tensor] = {}
    for name, tensor in packed.items():
        if name.endswith(SCALE):
            continue
        scale = packed.get(name + SCALE)
        weights[name] = tensor.float()
        if scale is not None:
            weights[name] *= scale.float().view(-1, *(1,) * (tensor.ndim - 1))
    # In double precision and rounded to half precision, the product is the same on every machine.
    product = weights.pop(TABLE).double() @ weights.pop(MIXING).double()
    weights[TOKENS] = product.half().float()
    weights[HEAD] = torch.eye(CONFIG["embed_dim"])
    return weights
