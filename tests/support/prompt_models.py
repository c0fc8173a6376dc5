"""Models of learned prompts, and the features that open_clip computes for their contexts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sotglp import Backbone
from sotglp.backbone.tokenizers import clip_tokenizer
from sotglp.images.image_set import ImageSet
from sotglp.images.labels import prompt_name
from sotglp.methods.method import METHODS
from sotglp.methods.registry import build_model
from sotglp.settings import Preset
from sotglp.training.fit import adapt

NAMES = ["cat", "golden_retriever", "polka dot"]


def start(backbone: Backbone, name: str, names: Any = NAMES, **changes: Any) -> Any:
    """A method's model as it starts."""
    return build_model(backbone, names, METHODS[name].settings_on(Preset(), changes)[0])


def fit(backbone: Backbone, images: ImageSet, name: str, **changes: Any) -> Any:
    changes = {"shots": None, "augment": False, "epochs": 3, "batch_size": 9, "learning_rate": 0.02, **changes}
    return adapt(backbone, images, *METHODS[name].settings_on(Preset(), changes))


@torch.no_grad()
def stir(*prompts: Tensor | None, by: float = 0.05) -> None:
    """Move prompts away from where they start, each of them elsewhere."""
    for place, part in enumerate(prompts):
        if part is not None:
            part += by * torch.randn(part.shape, generator=torch.Generator().manual_seed(place))


def text_by_open_clip(backbone: Backbone, contexts: Tensor, names: Any = NAMES) -> Tensor:
    """Text features (C, N, d) of [SOT] + context + name + [EOT], through open_clip's own transformer.

    Contexts (N, n, d_text) are those of every class, contexts (C, N, n, d_text) of each class its own.
    """
    clip: Any = backbone.clip
    sot, eot = clip_tokenizer().sot_token_id, clip_tokenizer().eot_token_id

    def encode(context: Tensor, name: str) -> Tensor:
        spoken = clip_tokenizer().encode(prompt_name(name))
        tokens = torch.tensor([[sot, *[0] * len(context), *spoken, eot, *[0] * 77]])[:, :77]
        words = clip.token_embedding(tokens)
        words = torch.cat([words[:, :1], context.unsqueeze(0), words[:, 1 + len(context) :]], dim=1)
        states = clip.ln_final(clip.transformer(words + clip.positional_embedding, attn_mask=clip.attn_mask))
        feature: Tensor = states[0, 1 + len(context) + len(spoken)] @ clip.text_projection
        return feature

    own = contexts.expand(len(names), *contexts.shape[-3:])
    return torch.stack(
        [torch.stack([encode(one, name) for one in part]) for part, name in zip(own, names, strict=True)]
    )
