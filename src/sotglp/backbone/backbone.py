"""A frozen CLIP-like model: images to features and patch tokens, prompts to text features."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from typing import Any, cast

import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transform import PreprocessCfg, image_transform_v2
from open_clip.transformer import QuickGELU
from PIL import Image
from torch import Tensor, nn

from sotglp.backbone import weights
from sotglp.backbone.text import TextTower
from sotglp.backbone.vision import (
    check_patch_attention,
    check_vision_tower,
    encode_resnet,
    encode_vit,
    encode_vit_ordinary,
)
from sotglp.errors import SotglpError
from sotglp.settings import PatchAttention

CPU_TOKENS = 1600
"""Tokens that a CPU encodes at once, eight images of ViT-B/16: more of them fall out of its caches."""


class Backbone(nn.Module):
    """An open_clip model, frozen, with the patch stream that local prompts are compared with.

    Build it with :meth:`load` or :meth:`from_open_clip`.

    Attributes
    ----------
    clip : nn.Module
        The open_clip model itself; its parameters take no gradient and it stays in evaluation mode.
    preprocess : callable
        PIL image to normalised tensor (3, H, W).
    name : str
        Architecture as open_clip names it, or the class name of a model given by hand.
    pretrained : str or None
        Tag or file that the weights came from; None for random weights.
    seed : int or None
        Seed of random weights.
    patch_attention : {"value", "ordinary"}
        What a ViT's patch tokens come from: the stream of V-V attention, or the ordinary one.
    """

    def __init__(
        self,
        clip: nn.Module,
        preprocess: Callable[[Image.Image], Tensor] | None = None,
        *,
        name: str,
        pretrained: str | None,
        seed: int | None,
        patch_attention: PatchAttention = "value",
    ) -> None:
        super().__init__()
        self.clip = clip
        check_vision_tower(self._visual)
        check_patch_attention(self._visual, patch_attention)
        self.text = TextTower(clip)
        clip.requires_grad_(False)
        self.eval()
        self._preprocess_cfg = _preprocess_cfg(self._visual)
        self._own_preprocess: Callable[[Image.Image], Tensor] = image_transform_v2(self._preprocess_cfg, is_train=False)
        self.preprocess = preprocess or self._own_preprocess
        self.name = name
        self.pretrained = pretrained
        self.seed = seed
        self.patch_attention = patch_attention

    @classmethod
    def load(
        cls,
        name: str,
        pretrained: str | os.PathLike[str] | None = None,
        *,
        image_size: int | None = None,
        device: str | torch.device = "cpu",
        seed: int = 0,
        quick_gelu: bool = False,
        patch_attention: PatchAttention = "value",
    ) -> Backbone:
        """Load an open_clip architecture by name.

        Parameters
        ----------
        name : str
            Such as ``"ViT-B-16"``, ``"ViT-L-14-336-quickgelu"`` or ``"RN50"``; ``"tiny"`` is the small model that the
            package carries, for demonstration.
        pretrained : str, path or None, default None
            Tag known to open_clip (downloaded once), a local .safetensors or .pt file, ``"auto"`` for OpenAI's, or None
            for random weights. ``"tiny"`` takes its own weights for None and ``"auto"``, random ones for ``"none"``.
        image_size : int or None, default None
            Side of the input in pixels, if not the architecture's own.
        device : str or torch.device, default "cpu"
            Where the weights go.
        seed : int, default 0
            Seed of random weights.
        quick_gelu : bool, default False
            QuickGELU where the name alone means GELU, for a weight file trained with it; a tag brings its own.
        patch_attention : {"value", "ordinary"}, default "value"
            What a ViT's patch tokens come from: the stream of V-V attention, as published, or the ordinary one.

        Raises
        ------
        SotglpError
            For an unknown or unserved name, weights that can't be had or read, or ordinary patches of a ResNet.
        """
        name = name.replace("/", "-")
        chosen = weights.chosen_weights(name, pretrained)
        # Neither torchvision nor JSON takes NumPy's integers.
        image_size, seed = None if image_size is None else int(image_size), int(seed)
        clip = weights.build_clip(name, pretrained, image_size=image_size, seed=seed, quick_gelu=quick_gelu)
        backbone = cls(
            clip,
            name=name,
            pretrained=chosen,
            seed=seed if chosen is None else None,
            patch_attention=patch_attention,
        )
        return backbone.to(device)

    @classmethod
    def from_open_clip(
        cls,
        model: nn.Module,
        preprocess: Callable[[Image.Image], Tensor] | None = None,
        *,
        patch_attention: PatchAttention = "value",
    ) -> Backbone:
        """Wrap a model that open_clip built; it is frozen and put in evaluation mode, not copied.

        Parameters
        ----------
        model : nn.Module
            ``open_clip.CLIP`` or ``open_clip.CustomTextCLIP``.
        preprocess : callable or None, default None
            PIL image to tensor (3, H, W); None builds open_clip's evaluation transform for the model's image size.
        patch_attention : {"value", "ordinary"}, default "value"
            What a ViT's patch tokens come from: the stream of V-V attention, as published, or the ordinary one.

        Raises
        ------
        SotglpError
            If one of its towers can't be served, or ordinary patches are wanted of a ResNet.
        """
        if not hasattr(model, "visual"):
            raise SotglpError(f"{type(model).__name__} is not an open_clip model: it has no image tower `visual`")
        name = type(model).__name__
        return cls(model, preprocess, name=name, pretrained=None, seed=None, patch_attention=patch_attention)

    def train(self, mode: bool = True) -> Backbone:
        """Stay in evaluation mode: a frozen model has nothing to train."""
        return super().train(False)

    def __repr__(self) -> str:
        """One line: the estimator prints it among its parameters."""
        return f"Backbone({self.name!r}, pretrained={self.pretrained!r})"

    def __sklearn_clone__(self) -> Backbone:
        """Frozen weights are shared between clones of an estimator."""
        return self

    @property
    def _visual(self) -> Any:
        return self.clip.visual

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of an input image in pixels."""
        size = self._visual.image_size
        return (size, size) if isinstance(size, int) else tuple(size)

    @property
    def patch_grid(self) -> tuple[int, int]:
        """Rows and columns of patches; P is their product."""
        visual = self._visual
        if isinstance(visual, ModifiedResNet):
            return self.image_size[0] // 32, self.image_size[1] // 32
        return tuple(visual.grid_size)

    @property
    def n_patches(self) -> int:
        """Patches of an image, P."""
        rows, columns = self.patch_grid
        return rows * columns

    @property
    def patch_size(self) -> tuple[int, int]:
        """Height and width of a patch in pixels of the input."""
        visual = self._visual
        return (32, 32) if isinstance(visual, ModifiedResNet) else tuple(visual.patch_size)

    @property
    def patch_width(self) -> int:
        """Width of a patch token, W; for a ResNet the joint size, since its tokens are projected already."""
        visual = self._visual
        return int(visual.output_dim if isinstance(visual, ModifiedResNet) else visual.ln_post.normalized_shape[0])

    @property
    def embed_dim(self) -> int:
        """Size of the joint embedding, d."""
        return int(self._visual.output_dim)

    @property
    def logit_scale(self) -> float:
        """Factor on cosines, s = exp(logit_scale); about 100 for published weights."""
        return float(self._logit_scale.exp())

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of the three colours that the weights were trained with."""
        known = self._preprocess_cfg
        return tuple(known.mean), tuple(known.std)

    @property
    def preprocess_settings(self) -> dict[str, Any] | None:
        """What ``preprocess`` does, in open_clip's words and plain values; None for one that was given by hand."""
        if self.preprocess is not self._own_preprocess:
            return None
        settings = asdict(self._preprocess_cfg)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}

    @property
    def quick_gelu(self) -> bool:
        """Whether the activation is QuickGELU, which no weight tells."""
        return any(isinstance(module, QuickGELU) for module in self.clip.modules())

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._logit_scale.device

    @property
    def _cpu_batch(self) -> int:
        return max(1, CPU_TOKENS // (1 + self.n_patches))

    @property
    def _logit_scale(self) -> Tensor:
        return cast(Tensor, self.clip.logit_scale)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the weights; a model file is tied to it."""
        return weights.fingerprint(self.clip)

    def encode_image(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Image features and patch tokens, neither normalised.

        Parameters
        ----------
        images : Tensor
            Preprocessed images, (B, 3, H, W).

        Returns
        -------
        image_features : Tensor
            The model's own image features, (B, d).
        patch_tokens : Tensor
            Patch tokens of a ViT after ``ln_post``, of the stream that ``patch_attention`` names, or a ResNet's
            value-projected patches, (B, P, W).

        Raises
        ------
        SotglpError
            If the images have another shape than the backbone takes.

        References
        ----------
        SOT-GLP, arXiv 2603.08347, section on local features.
        """
        if images.ndim != 4 or tuple(images.shape[1:]) != (3, *self.image_size):
            height, width = self.image_size
            raise SotglpError(
                f"images of shape {tuple(images.shape)} don't fit {self.name}, which takes (B, 3, {height}, {width}): "
                "use backbone.preprocess"
            )
        images = images.to(self.device, self._visual.conv1.weight.dtype)
        if self.device.type != "cpu":
            return self._encode(images)
        image_features, patch_tokens = zip(*(self._encode(part) for part in images.split(self._cpu_batch)), strict=True)
        return torch.cat(image_features), torch.cat(patch_tokens)

    def _encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """All of these images at once, by what the tower is."""
        if isinstance(self._visual, ModifiedResNet):
            return encode_resnet(self._visual, images)
        encode = encode_vit if self.patch_attention == "value" else encode_vit_ordinary
        return encode(self._visual, images)

    def project_patches(self, patch_tokens: Tensor) -> Tensor:
        """Patch tokens in the joint space, not normalised: (B, P, W) to (B, P, d)."""
        projection = getattr(self._visual, "proj", None)
        return patch_tokens if projection is None else patch_tokens @ projection.to(patch_tokens.dtype)


def _preprocess_cfg(visual: Any) -> PreprocessCfg:
    """Size, mean, deviation and resampling that open_clip noted on a tower; CLIP's own where it noted nothing."""
    size = visual.image_size
    noted = getattr(visual, "preprocess_cfg", {})
    return PreprocessCfg(**{**noted, "size": (size, size) if isinstance(size, int) else tuple(size)})
