from importlib import resources

import open_clip
import pytest
import torch
from safetensors.torch import load
from torch.nn import functional as F

from sotglp import SOTGLP, Backbone
from sotglp.backbone.tiny import CONFIG, FILE, build_tiny, load_tiny, pack, unpack
from sotglp.demo.task import few_shot_task


@pytest.fixture(scope="module")
def tiny():
    return Backbone.load("tiny")


def test_weights_are_unpacked_from_half_precision_and_untrained_tokens_from_a_seed():
    weights = build_tiny(3).state_dict()
    trained = [5, 49406, 320]
    back, again = (unpack(pack(weights, trained)) for _ in range(2))
    assert set(back) == set(weights)
    for name, value in weights.items():
        assert back[name].dtype == torch.float32
        assert torch.equal(back[name], again[name])
        if name != "token_embedding.weight":
            assert torch.equal(back[name], value.half().float())
    rows, original = back["token_embedding.weight"], weights["token_embedding.weight"]
    assert torch.equal(rows[sorted(trained)], original[sorted(trained)].half().float())
    others = torch.cat([rows[6:320], rows[321:49406]])
    assert others.std() == pytest.approx(0.02, rel=0.01)
    assert others.mean().abs() < 1e-4


def test_the_file_is_small():
    assert len((resources.files("sotglp") / "backbone" / "weights_data" / FILE).read_bytes()) <= 6_000_000


def test_the_activation_of_random_weights_can_be_chosen():
    assert not Backbone.load("tiny", "none").quick_gelu
    assert Backbone.load("tiny", "none", quick_gelu=True).quick_gelu


def test_it_is_a_plain_open_clip_model(tiny):
    assert type(tiny.clip) is open_clip.CLIP
    images = torch.randn(5, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features, patches = tiny.encode_image(images)
        torch.testing.assert_close(features, tiny.clip.encode_image(images), rtol=1e-5, atol=1e-5)
    assert patches.shape == (5, 64, CONFIG["vision_cfg"]["width"])


def test_the_seed_determines_random_weights_and_torchs_generator_is_restored():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one, again, other = build_tiny(1), build_tiny(1), build_tiny(2)
    load_tiny()
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one.visual.conv1.weight, again.visual.conv1.weight)
    assert not torch.equal(one.visual.conv1.weight, other.visual.conv1.weight)


def test_trained_tokens_change_only_their_rows():
    weights = build_tiny(3).state_dict()
    one, other = (unpack(pack(weights, trained))["token_embedding.weight"] for trained in ([7, 0, 49407, 7], [11]))
    assert (one != other).any(dim=1).nonzero().flatten().tolist() == [0, 7, 11, 49407]


def test_every_word_of_the_task_was_trained():
    packed = load((resources.files("sotglp") / "backbone" / "weights_data" / FILE).read_bytes())
    tokens = open_clip.get_tokenizer("ViT-B-32")([f"a photo of a {name}" for name in few_shot_task().names])
    assert set(tokens.unique().tolist()) - {0} <= set(packed["trained_tokens"].tolist())


@torch.no_grad()
def test_text_features_are_open_clips_own(tiny):
    names = few_shot_task().names
    model = SOTGLP(tiny, names, n_global_prompts=1, branches="global")
    tokens = open_clip.get_tokenizer("ViT-B-32")([f"a photo of a {name}" for name in names])
    expected = load_tiny().eval().encode_text(tokens)
    torch.testing.assert_close(model.encode_text().global_[:, 0], expected, rtol=1e-5, atol=1e-5)


def test_positions_are_resized_like_an_image(tiny):
    backbone = Backbone.load("tiny", image_size=96)
    assert backbone.n_patches == 144
    assert torch.isfinite(backbone.encode_image(torch.zeros(1, 3, 96, 96))[0]).all()
    larger = backbone.clip.state_dict()
    own = tiny.clip.state_dict()
    assert {name for name in own if not torch.equal(larger[name], own[name])} == {"visual.positional_embedding"}
    table = own["visual.positional_embedding"]
    grid = table[1:].T.reshape(1, -1, 8, 8)
    stretched = F.interpolate(grid, (12, 12), mode="bicubic", antialias=True, align_corners=False)
    expected = torch.cat([table[:1], stretched[0].flatten(1).T])
    torch.testing.assert_close(larger["visual.positional_embedding"], expected, rtol=0, atol=1e-6)
    assert CONFIG["vision_cfg"]["image_size"] == 64
