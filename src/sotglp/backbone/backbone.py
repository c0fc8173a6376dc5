"""A frozen CLIP-like model that encodes images into features and patch tokens."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cached_property, partial
from typing import Any, cast

import torch
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from open_clip.transform import PreprocessCfg, image_transform_v2
from open_clip.transformer import QuickGELU
from PIL import Image
from torch import Tensor, nn

from sotglp.backbone import weights
from sotglp.backbone.architectures import chosen_weights
from sotglp.backbone.image_only import ImageOnly
from sotglp.backbone.precision import choose_device
from sotglp.backbone.readers import make_reader
from sotglp.backbone.sources import canonical_name
from sotglp.backbone.text import LoadTokenizer
from sotglp.backbone.text_readers import TextReader, make_text_reader
from sotglp.backbone.tokenizers import HuggingFaceTokenizer, PromptTokenizer
from sotglp.errors import SotglpError
from sotglp.settings import PatchAttention

CPU_TOKENS = 1600
"""Tokens that a CPU encodes at once, those of eight images of ViT-B/16: more of them do not fit its caches."""


class Backbone(nn.Module):
    """A frozen open_clip model whose images have patch tokens besides their features.

    Create it with :meth:`load` or :meth:`from_open_clip`.

    Attributes
    ----------
    clip : nn.Module
        The open_clip model, or an image tower alone; its parameters take no gradient and it stays in evaluation mode.
    preprocess : callable
        PIL image to normalised tensor (3, H, W).
    name : str
        open_clip's name of the architecture, or the class name of a model from :meth:`from_open_clip`.
    pretrained : str or None
        Tag or file of the weights; None for random weights.
    seed : int or None
        Seed of random weights.
    patch_attention : {"value", "ordinary"}
        Source of a ViT's patch tokens: the stream of V-V attention, or the ordinary one.
    has_text : bool
        Whether there is a text tower; without one, only some methods can be used.
    load_tokenizer : callable or None
        Loads the tokenizer of the text tower; None for CLIP's.
    adapts_images : bool
        Whether a model changes the image tower, so that features can't be stored; see
        :mod:`sotglp.backbone.adapted`.
    """

    adapts_images = False

    def __init__(
        self,
        clip: nn.Module,
        preprocess: Callable[[Image.Image], Tensor] | None = None,
        *,
        name: str,
        pretrained: str | None,
        seed: int | None,
        patch_attention: PatchAttention = "value",
        load_tokenizer: LoadTokenizer | None = None,
    ) -> None:
        super().__init__()
        self.clip = clip
        self.tower = make_reader(self._visual, patch_attention)
        if self.n_patches < 1:
            height, width = self.image_size
            raise SotglpError(
                f"images of {height} x {width} pixels are smaller than a patch of {name}: choose a larger image size"
            )
        self.has_text = not isinstance(clip, ImageOnly)
        self._text = make_text_reader(clip, load_tokenizer) if self.has_text else None
        clip.requires_grad_(False)
        self.eval()
        # As open_clip recorded it on the tower; CLIP's own where it recorded none.
        self.set_preprocess(getattr(self._visual, "preprocess_cfg", {}))
        self.preprocess = preprocess or self._own_preprocess
        self.name = name
        self.pretrained = pretrained
        self.seed = seed
        self.patch_attention = patch_attention
        self.load_tokenizer = load_tokenizer

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
            Such as ``"ViT-B-16"``, ``"ViT-L-14-336-quickgelu"`` or ``"RN50"``, a repository of the Hugging Face Hub,
            ``"hf-hub:OWNER/NAME"``, or a folder with ``open_clip_config.json``, ``"local-dir:PATH"`` or its path. Two
            models ship with the package: ``"photo"``, and ``"tiny"``, which knows painted shapes only. ``"timm:NAME"``
            is an image tower of timm without text, such as ``"timm:vit_small_patch14_dinov2"``.
        pretrained : str, path or None, default None
            Tag known to open_clip or timm (downloaded once), a local .safetensors or .pt file, ``"auto"`` for OpenAI's
            weights or timm's default, or None for random ones. The packaged models have their own weights for None and
            ``"auto"``, random ones for ``"none"``; repositories and folders have theirs likewise.
        image_size : int or None, default None
            Side of the input in pixels; None for the architecture's default.
        device : str or torch.device, default "cpu"
            Device of the weights.
        seed : int, default 0
            Seed of random weights.
        quick_gelu : bool, default False
            Use QuickGELU instead of GELU, for a weight file trained with it; a tag determines its own activation.
        patch_attention : {"value", "ordinary"}, default "value"
            Source of a ViT's patch tokens: the stream of V-V attention, as published, or the ordinary one.

        Raises
        ------
        SotglpError
            For an unknown or unsupported name or device, weights that can't be downloaded or read, or ordinary patch
            tokens of a convolutional tower.
        """
        name = canonical_name(name)
        chosen = chosen_weights(name, pretrained)
        # Neither torchvision nor JSON takes NumPy's integers.
        image_size, seed = None if image_size is None else int(image_size), int(seed)
        clip = weights.build_clip(name, pretrained, image_size=image_size, seed=seed, quick_gelu=quick_gelu)
        backbone = cls(
            clip,
            name=name,
            pretrained=chosen,
            seed=seed if chosen is None else None,
            patch_attention=patch_attention,
            load_tokenizer=weights.tokenizer_loader(name, chosen, clip),
        )
        return backbone.to(choose_device(str(device)))

    @classmethod
    def from_open_clip(
        cls,
        model: nn.Module,
        preprocess: Callable[[Image.Image], Tensor] | None = None,
        *,
        patch_attention: PatchAttention = "value",
        tokenizer: PromptTokenizer | HFTokenizer | None = None,
    ) -> Backbone:
        """Wrap a model that open_clip built; it is frozen and set to evaluation mode, not copied.

        Parameters
        ----------
        model : nn.Module
            ``open_clip.CLIP``, ``open_clip.CustomTextCLIP`` or ``open_clip.CoCa``.
        preprocess : callable or None, default None
            PIL image to tensor (3, H, W); None builds open_clip's evaluation transform for the model's image size.
        patch_attention : {"value", "ordinary"}, default "value"
            See :meth:`load`.
        tokenizer : HFTokenizer or None, default None
            ``open_clip.get_tokenizer(...)`` of a model with another vocabulary than CLIP's; None for CLIP's.

        Raises
        ------
        SotglpError
            If one of its towers isn't supported, or for ordinary patch tokens of a convolutional tower.
        """
        if not hasattr(model, "visual"):
            raise SotglpError(f"{type(model).__name__} is not an open_clip model: it has no image tower `visual`")
        name = type(model).__name__
        load_tokenizer: LoadTokenizer | None = None
        if isinstance(tokenizer, HFTokenizer):
            load_tokenizer = partial(HuggingFaceTokenizer, tokenizer, weights.vocabulary_size(model))
        elif tokenizer is not None and not isinstance(tokenizer, SimpleTokenizer):
            load_tokenizer = partial(_same, tokenizer)
        return cls(
            model,
            preprocess,
            name=name,
            pretrained=None,
            seed=None,
            patch_attention=patch_attention,
            load_tokenizer=load_tokenizer,
        )

    def train(self, mode: bool = True) -> Backbone:
        """Stay in evaluation mode, since the model is frozen."""
        return super().train(False)

    def __repr__(self) -> str:
        """Return one line, which estimators print among their parameters."""
        return f"Backbone({self.name!r}, pretrained={self.pretrained!r})"

    def __sklearn_clone__(self) -> Backbone:
        """Return itself: clones of an estimator share the frozen weights."""
        return self

    @property
    def _visual(self) -> Any:
        return self.clip.visual

    @property
    def frozen(self) -> Backbone:
        """The backbone as it was loaded: itself, unless a model changes its towers."""
        return self

    @property
    def image_backbone(self) -> Backbone:
        """The backbone that computes the same image features: itself, or the frozen one if only the text changes."""
        return self if self.adapts_images else self.frozen

    @property
    def text(self) -> TextReader:
        """Reader of the text tower; raise a SotglpError if there is none."""
        if self._text is None:
            raise SotglpError(
                f"the backbone {self.name} has no text tower, which this needs: choose one that `sotglp info "
                "--backbones` lists"
            )
        return self._text

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of an input image in pixels."""
        size = self._visual.image_size
        return (size, size) if isinstance(size, int) else tuple(size)

    @property
    def patch_grid(self) -> tuple[int, int]:
        """Rows and columns of patches; P is their product."""
        return self.tower.patch_grid

    @property
    def n_patches(self) -> int:
        """Number of patches of an image, P."""
        rows, columns = self.patch_grid
        return rows * columns

    @property
    def patch_size(self) -> tuple[float, float]:
        """Height and width of a patch in input pixels."""
        return self.tower.patch_size

    @property
    def patch_width(self) -> int:
        """Width of a patch token, W; d for a convolutional tower, whose patches are projected already."""
        return self.tower.patch_width

    @property
    def embed_dim(self) -> int:
        """Size of the joint embedding, d."""
        return self.tower.embed_dim

    @property
    def logit_scale(self) -> float:
        """Factor on cosines, s = exp(logit_scale); about 100 for published weights."""
        return float(self._logit_scale.exp())

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of the three colours in the training of the weights."""
        return tuple(self._preprocess_cfg.mean), tuple(self._preprocess_cfg.std)

    @property
    def preprocess_settings(self) -> dict[str, Any] | None:
        """open_clip's description of ``preprocess``, as JSON values; None for one that was given as code."""
        if self.preprocess is not self._own_preprocess:
            return None
        settings = asdict(self._preprocess_cfg)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}

    def set_preprocess(self, settings: Mapping[str, Any]) -> None:
        """Preprocess images as described by :attr:`preprocess_settings` of another backbone, at this one's size."""
        named = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
        self._preprocess_cfg = PreprocessCfg(**{**named, "size": self.image_size})
        self._own_preprocess: Callable[[Image.Image], Tensor] = image_transform_v2(self._preprocess_cfg, is_train=False)
        self.preprocess = self._own_preprocess

    @property
    def quick_gelu(self) -> bool:
        """Whether the activation is QuickGELU, which the weights don't show."""
        return any(isinstance(module, QuickGELU) for module in self.clip.modules())

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self._logit_scale.device

    @property
    def _logit_scale(self) -> Tensor:
        return cast(Tensor, self.clip.logit_scale)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the weights, which a model file refers to."""
        return weights.fingerprint(self.clip)

    def encode_image(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images into features and patch tokens, neither normalised.

        Parameters
        ----------
        images : Tensor
            Preprocessed images, (B, 3, H, W).

        Returns
        -------
        image_features : Tensor
            ``clip.encode_image(images)``, (B, d).
        patch_tokens : Tensor
            Patch tokens of a ViT after ``ln_post``, from the stream that ``patch_attention`` names, or
            those of a convolutional tower, which are projected already, (B, P, W).

        Raises
        ------
        SotglpError
            If the images have another shape than (B, 3, H, W) of :attr:`image_size`.

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
        images = images.to(self.device)
        if self.device.type != "cpu":
            return self.tower.encode(images)
        parts = images.split(max(1, CPU_TOKENS // (1 + self.n_patches)))
        image_features, patch_tokens = zip(*(self.tower.encode(part) for part in parts), strict=True)
        return torch.cat(image_features), torch.cat(patch_tokens)

    def project_patches(self, patch_tokens: Tensor) -> Tensor:
        """Project patch tokens (B, P, W) into the joint space, (B, P, d), not normalised."""
        return self.tower.project(patch_tokens)


def _same(tokenizer: PromptTokenizer) -> PromptTokenizer:
    return tokenizer
