from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from sotglp.backbone.coca import CocaReader
from sotglp.backbone.readers import make_reader
from sotglp.backbone.vit import encode_vit
from sotglp.errors import UnsupportedTowerError
from support.towers import small_coca


@pytest.mark.parametrize("width", [32, 64])
@torch.no_grad()
def test_image_feature_is_open_clips_own_and_a_patch_is_a_pool_of_one_token(width: int) -> None:
    clip: Any = small_coca(width=width).double()
    visual, reader = clip.visual, make_reader(clip.visual, "value")
    assert isinstance(reader, CocaReader)
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    features, tokens = reader.encode(images)
    torch.testing.assert_close(F.normalize(features, dim=-1), clip.encode_image(images), rtol=1e-9, atol=1e-9)

    pool, visual.attn_pool, visual.pool_type = visual.attn_pool, None, "tok"
    stream_norm, visual.ln_post = visual.ln_post, pool.ln_k  # encode_vit's patch tokens, after this norm
    projection, visual.proj = visual.proj, None
    torch.testing.assert_close(tokens, encode_vit(visual, images)[1], rtol=1e-9, atol=1e-9)
    visual.attn_pool, visual.ln_post, visual.proj = pool, stream_norm, projection

    alone = tokens.flatten(0, 1)[:, None]  # images of one token each
    answers = pool.attn(pool.ln_q(pool.query)[:1].expand(len(alone), -1, -1), alone, alone)[0][:, 0]
    expected = (visual.ln_post(answers) @ visual.proj).view(2, 16, -1)
    torch.testing.assert_close(reader.project(tokens), expected, rtol=1e-9, atol=1e-9)
    assert (reader.patch_grid, reader.patch_size, reader.patch_width, reader.embed_dim) == ((4, 4), (8, 8), width, 32)


def test_another_pool_is_refused() -> None:
    clip: Any = small_coca()
    clip.visual.pool_type = "avg"
    with pytest.raises(UnsupportedTowerError, match="first query"):
        make_reader(clip.visual, "value")
    assert not CocaReader.is_configured({"layers": 12, "attentional_pool": "parallel"})
    assert CocaReader.is_configured({"layers": 12, "attentional_pool": True})
