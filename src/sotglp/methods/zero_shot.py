"""Zero-shot CLIP: the text feature of a sentence with the class name, or the mean over many sentences."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import ClassVar

import torch
from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES
from torch import Tensor
from torch.nn import functional as F

from sotglp.backbone import Backbone
from sotglp.backbone.text import Segment
from sotglp.errors import SotglpError
from sotglp.features.rows import EncodedImages
from sotglp.images.labels import prompt_name
from sotglp.methods.base import AdaptedModel, Outputs, full_precision, unit_patches
from sotglp.methods.configs import ZeroShotConfig
from sotglp.methods.prompts import tokenize_classes
from sotglp.methods.text_features import TextFeatures
from sotglp.settings import Settings, checked

SENTENCES_AT_ONCE = 256

TEXT_LENGTH = 10.0
"""Length of text features in methods that learn beside them and whose step sizes were published for OpenAI's CLIP.

Its text tower computes features of about this length, a value from memory. Other towers differ (the embedded ``photo``
computes 50 to 65), and with their own lengths the published steps would be far too small or too large.
"""


class ZeroShot(AdaptedModel):
    """Compares images with a unit vector for each class by cosine (CLIP, arXiv 2103.00020, section 3.1).

    Base class of methods that learn on top of frozen text features, ``class_vectors`` (C, d). Patches are compared with
    the same vectors, and the largest cosine over patches is the local score, for OOD scores. ``seed`` draws initial
    weights, which only subclasses have; ``settings`` are fields of ``Config``.

    On a backbone without text, which some subclasses support, the class vectors are zeros, so that only what is learned
    counts, and patches have the scores that :meth:`class_logits` gives them.
    """

    kind: ClassVar[str] = "zero-shot"
    Config: ClassVar[type[Settings]] = ZeroShotConfig
    kept: ClassVar[tuple[str, ...]] = ()

    def __init__(self, backbone: Backbone, class_names: Sequence[str], seed: int = 1, **settings: object) -> None:
        super().__init__(backbone, class_names, checked(self.Config, settings))
        vectors = self._sentence_vectors(self.class_names) if backbone.has_text else self._no_vectors()
        self.register_buffer("class_vectors", vectors, persistent=False)
        self.class_vectors: Tensor

    def encode_text(self, classes: Sequence[int] | None = None) -> TextFeatures:
        """Return the vectors of the classes with these indices, or of all, (C, 1, d), for both branches."""
        vectors = self.class_vectors[slice(None) if classes is None else list(classes), None]
        return TextFeatures(vectors, vectors)

    def class_logits(self, image: Tensor, vectors: Tensor) -> Tensor:
        """Compute cosines of unit image features (B, d) with class vectors (C, d); subclasses override it."""
        return image @ vectors.T

    def global_cosines(self, image_features: Tensor, text: TextFeatures) -> Tensor:
        """See :meth:`AdaptedModel.global_cosines`."""
        with torch.autocast(self.backbone.device.type, enabled=False):
            return self.class_logits(F.normalize(full_precision(image_features), dim=-1), text.global_[:, 0])

    def compare(
        self, encoded: EncodedImages, text: TextFeatures, *, drawn_prompts: Tensor | None = None, for_loss: bool = False
    ) -> Outputs:
        """Compare encoded images with the classes; patches are skipped (NaN) for the loss."""
        logits = self.global_cosines(encoded.image_features, text)
        if for_loss:
            left_out = torch.full_like(logits, torch.nan)
            return Outputs(logits, left_out, left_out[:, None])
        with torch.autocast(self.backbone.device.type, enabled=False):
            patches, vectors = unit_patches(self.backbone, encoded), text.global_[:, 0]
            patch_logits = patches @ vectors.T if self.backbone.has_text else self.class_logits(patches, vectors)
            patch_logits = patch_logits.detach()
        return Outputs(logits, patch_logits.amax(dim=1), patch_logits)

    def for_new_classes(self, class_names: Sequence[str]) -> AdaptedModel:
        """See :meth:`AdaptedModel.for_new_classes`."""
        if not self.backbone.has_text:
            return super().for_new_classes(class_names)
        fields = ZeroShotConfig.model_fields
        return ZeroShot(self.backbone, class_names, **{name: getattr(self.config, name) for name in fields}).eval()

    def _sentence_vectors(self, class_names: Sequence[str]) -> Tensor:
        """Mean unit features of the sentences of each class, (C, d)."""
        text = self.backbone.text
        tokenize_classes(class_names, 0, text.context_length, text.tokenizer)  # for its checks
        templates = [self.config.zero_shot_template]
        if self.config.ensemble:
            templates = [template("{}") for template in OPENAI_IMAGENET_TEMPLATES]
        sentences = F.normalize(sentence_features(self.backbone, class_names, templates), dim=-1)
        return F.normalize(sentences.mean(dim=1), dim=-1)

    def _no_vectors(self) -> Tensor:
        return torch.zeros(len(self.class_names), self.backbone.embed_dim, device=self.backbone.device)


def sentence_features(backbone: Backbone, class_names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Encode every template with every class name, not normalised, (C, T, d); only a tower that learns has gradients.

    Raise a SotglpError if a template does not hold ``{}`` exactly once, or a sentence is too long for the text tower.
    """
    text, tokenizer = backbone.text, backbone.text.tokenizer
    if wrong := [template for template in templates if template.count("{}") != 1]:
        raise SotglpError(
            f"the template {wrong[0]!r} must hold the placeholder {{}} once, as 'a photo of a {{}}.' does"
        )
    sentences = [template.replace("{}", prompt_name(name)) for name in class_names for template in templates]
    tokens = [[*tokenizer.before, *tokenizer.encode(sentence), *tokenizer.after] for sentence in sentences]
    order = sorted(range(len(tokens)), key=lambda index: len(tokens[index]))
    if len(tokens[order[-1]]) > text.context_length:
        raise SotglpError(
            f"the sentence {sentences[order[-1]]!r} has {len(tokens[order[-1]])} tokens, but the text tower allows "
            f"{text.context_length}: shorten the class name or the template"
        )
    features = []
    for _, indices in groupby(order, key=lambda index: len(tokens[index])):
        rows = torch.tensor([tokens[index] for index in indices], device=backbone.device)
        for part in rows.split(SENTENCES_AT_ONCE):
            features += text.encode([Segment(text.embed(part))])
    unsorted = torch.tensor(order, device=backbone.device).argsort()
    return full_precision(torch.cat(features)[unsorted]).view(len(class_names), len(templates), -1)
