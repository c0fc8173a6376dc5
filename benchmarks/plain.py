"""SOT-GLP the plain way, to compare with: 77 tokens, all patches, dense tensors, autograd alone.

It reads like the formulas and uses open_clip's text transformer as it comes. Nothing in the library uses it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sotglp import SOTGLP
from sotglp.backbone.tokenizers import clip_tokenizer
from sotglp.images.labels import prompt_name


def text_features(model: SOTGLP, classes: slice = slice(None)) -> tuple[Tensor, Tensor]:
    """Text features (C, M, d) and (C, N, d), every prompt of every class a sequence of 77 tokens."""
    clip: Any = model.backbone.clip
    tokenizer = clip_tokenizer()
    n_context = model.global_prompts.shape[1]
    names = [tokenizer.encode(prompt_name(name)) for name in model.class_names[classes]]
    size = (len(names), model.backbone.text.context_length)
    tokens = torch.zeros(size, dtype=torch.long, device=model.backbone.device)
    for row, name in zip(tokens, names, strict=True):
        line = [tokenizer.sot_token_id, *[0] * n_context, *name, tokenizer.eot_token_id]
        row[: len(line)] = torch.tensor(line, device=row.device)
    embedded = clip.token_embedding(tokens)  # (C, 77, d_text)

    def encode(contexts: Tensor) -> Tensor:
        """Contexts (C, J, n, d_text) to features (C, J, d)."""
        n_prompts = contexts.shape[1]
        around = embedded.unsqueeze(1).expand(-1, n_prompts, -1, -1)
        words = torch.cat([around[:, :, :1], contexts, around[:, :, 1 + n_context :]], dim=2).flatten(0, 1)
        words = clip.transformer(words + clip.positional_embedding, attn_mask=clip.attn_mask)
        eot = tokens.argmax(dim=1).repeat_interleave(n_prompts)
        features = clip.ln_final(words)[torch.arange(len(words)), eot] @ clip.text_projection
        return features.unflatten(0, (-1, n_prompts))

    return encode(model.global_prompts.expand(len(names), -1, -1, -1)), encode(model.local_prompts[classes])


def attend(attention: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of heads (B, heads, L, W / heads), after its output projection, (B, L, W)."""
    weights = (query @ key.mT * query.shape[-1] ** -0.5).softmax(dim=-1)
    attended: Tensor = attention.out_proj((weights @ value).transpose(1, 2).flatten(2))
    return attended


@torch.no_grad()
def image_features(model: SOTGLP, images: Tensor) -> tuple[Tensor, Tensor]:
    """Image features (B, d) and V-V patch tokens (B, P, W); attention with its matrices written out."""
    visual: Any = model.backbone.clip.visual
    ordinary = visual._embeds(images)
    value_stream = None
    for block in visual.transformer.resblocks:
        attention = block.attn
        projected = F.linear(block.ln_1(ordinary), attention.in_proj_weight, attention.in_proj_bias)
        query, key, value = projected.unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
        attended = attend(attention, query, key, value)
        if value_stream is None:
            value_stream = ordinary + attended
        value_stream = value_stream + attend(attention, value, value, value)
        ordinary = ordinary + attended
        ordinary = ordinary + block.mlp(block.ln_2(ordinary))
    return visual.ln_post(ordinary)[:, 0] @ visual.proj, visual.ln_post(value_stream)[:, 1:]


def scores(model: SOTGLP, image: Tensor, patch_tokens: Tensor, text: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Global and local cosines (B, C), with similarities of all patches and prompts (B, P, C, N) held at once."""
    global_text, local_text = (F.normalize(features, dim=-1) for features in text)
    global_scores = torch.einsum("bd,cmd->bcm", F.normalize(image, dim=-1), global_text).mean(dim=-1)
    patches = F.linear(patch_tokens, model.local_projection) @ model.backbone.clip.visual.proj
    similarity = torch.einsum("bpd,cjd->bpcj", F.normalize(patches, dim=-1), local_text)
    support = similarity.mean(dim=-1).topk(model.config.top_k, dim=1).indices  # (B, K, C)
    kept = similarity.gather(1, support.unsqueeze(-1).expand(-1, -1, -1, similarity.shape[-1])).transpose(1, 2)
    plan = sinkhorn(1 - kept.detach(), model.config.epsilon)
    return global_scores, (plan * kept).sum(dim=(2, 3)) / model.config.n_local_prompts


def sinkhorn(cost: Tensor, epsilon: float) -> Tensor:
    """Plans (B, C, K, N) by sweeps in log domain until all marginals are right to 1e-6."""
    n_rows, n_columns = cost.shape[-2:]
    log_kernel = -cost / epsilon
    left, right = torch.zeros_like(cost[..., 0]), torch.zeros_like(cost[..., 0, :])
    while True:
        left = -torch.log(torch.tensor(n_rows)) - (log_kernel + right.unsqueeze(-2)).logsumexp(dim=-1)
        right = -torch.log(torch.tensor(n_columns)) - (log_kernel + left.unsqueeze(-1)).logsumexp(dim=-2)
        plan = (log_kernel + left.unsqueeze(-1) + right.unsqueeze(-2)).exp()
        if (plan.sum(dim=-1) - 1 / n_rows).abs().max() < 1e-6:
            return plan


def loss(model: SOTGLP, scored: tuple[Tensor, Tensor], targets: Tensor) -> Tensor:
    """Sum of both cross entropies."""
    return sum((F.cross_entropy(model.backbone.logit_scale * part, targets) for part in scored), torch.zeros(()))
