import pytest
import torch
from sklearn.decomposition import PCA
from torch.nn.functional import normalize

from pretraining.photo.build import token_texts
from pretraining.photo.student import Distillation, Recipe, encode_texts, token_table

TEXTS = ["cat", "dog", "red apple", "a very long text of far too many tokens to be kept in this run", "Tom", "fig tree"]
RECIPE = Recipe(steps=60, batch_size=6, rank=4, warm_up=5)


def new_run():
    generator = torch.Generator().manual_seed(0)
    targets = normalize(torch.randn(len(TEXTS), 1280, generator=generator), dim=-1)
    weights, repeats = torch.tensor([3.0, 1, 1, 1, 0.4, 1]), torch.tensor([3, 1, 1, 1, 1, 1])
    return Distillation(TEXTS, targets.half(), weights, repeats, make_table(), RECIPE)


def make_table():
    return torch.randn(49408, 4, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def losses():
    return list(new_run().run(50))


def test_two_runs_of_fifty_steps_have_the_same_losses_and_they_fall(losses):
    assert list(new_run().run(50)) == losses
    first, last = (sum(one["cosine"] for one in part) / 10 for part in (losses[:10], losses[-10:]))
    assert last < first - 0.1


def test_an_interrupted_run_resumes_with_the_same_losses(losses):
    run = new_run()
    list(run.run(30))
    resumed = new_run()
    resumed.restore(run.state())
    assert list(resumed.run(50)) == losses[30:]


def test_long_texts_are_left_out_and_repeated_ones_are_drawn_more_often():
    drawn = new_run()._drawn.tolist()
    assert [drawn.count(i) for i in range(len(TEXTS))] == [3, 1, 1, 0, 1, 1]


def test_padding_and_later_texts_do_not_change_a_text():
    student = new_run().student
    alone = encode_texts(student, ["fig tree"])
    padded = encode_texts(student, ["fig tree", "a photo of a very large green cat."])[:1]
    torch.testing.assert_close(alone, padded, rtol=1e-5, atol=1e-6)


def test_the_token_table_holds_principal_components():
    embeddings = torch.randn(200, 12, generator=torch.Generator().manual_seed(2)) * torch.arange(1.0, 13)
    table = token_table(embeddings, 5)
    expected = torch.from_numpy(PCA(5).fit_transform(embeddings.double().numpy()))
    torch.testing.assert_close(table.abs().double(), (expected / expected.std()).abs(), rtol=1e-3, atol=1e-4)


def test_every_token_has_a_text():
    texts = token_texts()
    assert len(texts) == 49408
    assert (texts[320], texts[599], texts[2368]) == ("a", "the", "cat")
    assert all(texts)
