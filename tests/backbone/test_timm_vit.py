from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from open_clip.timm_model import TimmModel
from timm.models.eva import EvaBlockPostNorm
from torch import Tensor, nn

from sotglp.backbone.readers import make_reader
from sotglp.backbone.timm_vit import TimmVitReader
from sotglp.errors import UnsupportedTowerError
from support.towers import TIMM_VITS, small_timm_vit


def images_for(visual: Any, n_images: int = 2) -> Tensor:
    return torch.randn(n_images, 3, *visual.image_size, dtype=next(visual.parameters()).dtype)


def written_out_patches(visual: Any, images: Tensor) -> Tensor:
    """Patch tokens by V-V attention, from what open_clip's own forward pass shows at each attention layer."""
    trunk, stream = visual.trunk, None
    seen: list[tuple[Any, Tensor, Tensor, Tensor]] = []  # block, its input, input and output of its attention

    def note(block: Any, entering: list[Tensor]) -> Any:
        def after_attention(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen.append((block, entering[0], inputs[0], output))

        return after_attention

    hooks = []
    for block in trunk.blocks:
        entering: list[Tensor] = []
        hooks.append(block.register_forward_pre_hook(lambda _, inputs, at=entering: at.append(inputs[0])))
        hooks.append(block.attn.register_forward_hook(note(block, entering)))
    visual(images)
    for hook in hooks:
        hook.remove()
    for block, entering_stream, normed, ordinary in seen:
        attention, n_heads = block.attn, block.attn.num_heads
        if getattr(attention, "qkv", None) is None:
            value = attention.v_proj(normed)
        else:
            width = attention.qkv.out_features // 3
            value = normed @ attention.qkv.weight[2 * width :].T
            separate = getattr(attention, "v_bias", None)
            value = value + (attention.qkv.bias[2 * width :] if separate is None else separate)
        heads = []
        for part in value.chunk(n_heads, dim=-1):
            weight = torch.softmax(part @ part.transpose(1, 2) / part.shape[-1] ** 0.5, dim=-1)
            heads.append(weight @ part)
        attended = attention.proj(attention.norm(torch.cat(heads, dim=-1)))
        if isinstance(block, EvaBlockPostNorm):
            ordinary, attended = block.norm1(ordinary), block.norm1(attended)
        else:
            scale = getattr(block, "gamma_1", None)
            scale = getattr(getattr(block, "ls1", None), "gamma", 1.0) if scale is None else scale
            ordinary, attended = scale * ordinary, scale * attended
        stream = (entering_stream + ordinary if stream is None else stream) + attended
    assert stream is not None
    patches: Tensor = trunk.norm(stream[:, trunk.num_prefix_tokens :])
    return patches


@pytest.mark.parametrize("kind", TIMM_VITS)
@torch.no_grad()
def test_image_feature_is_open_clips_own_and_patches_follow_the_written_out_method(kind: str) -> None:
    visual: Any = small_timm_vit(kind).double().visual
    reader = make_reader(visual, "value")
    assert isinstance(reader, TimmVitReader)
    images = images_for(visual)
    features, tokens = reader.encode(images)
    torch.testing.assert_close(features, visual(images), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(tokens, written_out_patches(visual, images), rtol=1e-8, atol=1e-8)
    rows, columns = reader.patch_grid
    assert tokens.shape == (2, rows * columns, reader.patch_width)
    assert reader.project(tokens).shape == (2, rows * columns, reader.embed_dim)
    assert features.shape == (2, reader.embed_dim)


@pytest.mark.parametrize("kind", TIMM_VITS)
@torch.no_grad()
def test_patches_are_projected_as_the_tower_projects_what_it_pools(kind: str) -> None:
    visual: Any = small_timm_vit(kind).double().visual
    reader = make_reader(visual, "ordinary")
    images = images_for(visual)
    features, patches = reader.encode(images)
    tokens = visual.trunk.forward_features(images)
    torch.testing.assert_close(patches, tokens[:, visual.trunk.num_prefix_tokens :])
    if visual.trunk.attn_pool is not None:  # a pool of one token
        one = tokens[:, -1:]
        expected, found = visual.head(visual.trunk.forward_head(one)), reader.project(one)[:, 0]
    elif visual.trunk.global_pool == "token":
        expected, found = features, reader.project(tokens[:, :1])[:, 0]
    else:
        expected, found = features, reader.project(patches.mean(dim=1, keepdim=True))[:, 0]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_mean_of_ordinary_patches_is_the_feature_of_a_linear_average_pool() -> None:
    visual: Any = small_timm_vit("average", fc_norm=False).double().visual
    reader = make_reader(visual, "ordinary")
    features, patches = reader.encode(images_for(visual))
    torch.testing.assert_close(reader.project(patches).mean(dim=1), features, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["EVA02", "SigLIP", "PE-Core"])
@torch.no_grad()
def test_features_do_not_depend_on_the_batch(kind: str) -> None:
    visual: Any = small_timm_vit(kind).visual
    reader = make_reader(visual, "value")
    images = images_for(visual, 3)
    whole = reader.encode(images)
    parts = [torch.cat(kind) for kind in zip(*(reader.encode(one) for one in images.split(1)), strict=True)]
    assert all(torch.equal(one, other) for one, other in zip(whole, parts, strict=True))
    assert [len(part) for part in reader.encode(images[:0])] == [0, 0]


@torch.no_grad()
def test_half_precision_stays_close_to_open_clip() -> None:
    visual: Any = small_timm_vit("EVA02").bfloat16().visual
    images = images_for(visual)
    features, tokens = make_reader(visual, "value").encode(images.float())
    torch.testing.assert_close(features, visual(images), rtol=0.05, atol=0.05)
    assert tokens.dtype == torch.bfloat16


def test_the_size_is_the_one_that_the_trunk_is_built_for() -> None:
    visual: Any = small_timm_vit("SigLIP").visual
    visual.image_size = (32, 32)
    make_reader(visual, "value")
    assert visual.image_size == (64, 64)


def tower(name: str, size: int = 160, **settings: Any) -> TimmModel:
    return TimmModel(name, 24, image_size=size, **settings).eval()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: timm.create_model("vit_base_patch16_xp_224", embed_dim=48, num_heads=3, depth=1), "ParallelScaling"),
        (lambda: timm.create_model("test_vit", global_pool="max"), "pools its tokens by 'max'"),
    ],
)
def test_other_transformers_are_refused(make: Any, words: str) -> None:
    visual = tower("test_vit")
    visual.trunk = make()
    if words.startswith("Parallel"):
        from timm.models.vision_transformer import ParallelScalingBlock

        visual.trunk.blocks = nn.Sequential(ParallelScalingBlock(48, 3))
    with pytest.raises(UnsupportedTowerError, match=words):
        make_reader(visual, "value")


@pytest.mark.parametrize(
    ("vision", "supported"),
    [
        ({"timm_model_name": "eva02_base_patch16_clip_224", "timm_pool": "token", "timm_proj": None}, True),
        ({"timm_model_name": "vit_base_patch16_siglip_224", "timm_pool": "map", "timm_proj": "none"}, True),
        ({"timm_model_name": "vitamin_small_224", "timm_pool": "", "timm_proj": "linear"}, True),
        ({"timm_model_name": "vit_base_patch16_224", "timm_pool": "max"}, False),
        ({"timm_model_name": "resnet50"}, False),
        ({"layers": 12}, False),
    ],
)
def test_configurations(vision: dict[str, Any], supported: bool) -> None:
    assert TimmVitReader.is_configured(vision) == supported
