import numpy as np
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge
from torch.nn.functional import normalize

from pretraining.photo.teacher import WEIGHTS, KernelTeacher
from pretraining.photo.texts import ADJECTIVES, N_HELD_OUT, draw_texts
from pretraining.photo.wordnet import PHYSICAL_ENTITY, Anchor, WordNet
from sotglp.errors import SotglpError

LINES = [
    "  1 a line of the licence",
    f"{PHYSICAL_ENTITY} 03 n 01 physical_entity 0 000 | what exists  ",
    f'00000002 05 n 02 cat 0 true_cat 0 001 @ {PHYSICAL_ENTITY} n 0000 | a feline; "the cat sat"  ',
    "00000003 05 n 01 tabby 0 002 @ 00000002 n 0000 #m 00000004 n 0000 | a striped cat  ",
    "00000004 03 n 01 idea 0 000 | a thought  ",
    "00000005 05 n 01 Tom 0 001 @i 00000002 n 0000 | a certain cat  ",
]


@pytest.fixture
def wordnet(tmp_path):
    (tmp_path / "data.noun").write_text("\n".join(LINES) + "\n")
    return WordNet.read(tmp_path)


def test_wordnet_is_read_with_names_glosses_and_hypernyms(wordnet):
    assert wordnet.lemmas["00000002"] == ["cat", "true cat"]
    assert wordnet.glosses["00000002"] == "a feline"
    assert wordnet.hypernyms["00000003"] == ["00000002"]
    assert wordnet.ancestors("00000005") == {"00000002", PHYSICAL_ENTITY}
    assert wordnet.physical() == [PHYSICAL_ENTITY, "00000002", "00000003", "00000005"]


def test_a_missing_wordnet_names_the_package(tmp_path):
    with pytest.raises(SotglpError, match="wordnet-base"):
        WordNet.read(tmp_path)


def test_texts_leave_out_anchors_and_held_out_nouns():
    lemmas = {PHYSICAL_ENTITY: ["entity"]} | {str(i): [f"noun{i}"] for i in range(2 * N_HELD_OUT)}
    above = {key: [] if key == PHYSICAL_ENTITY else [PHYSICAL_ENTITY] for key in lemmas}
    anchors = [Anchor("noun0", "name", (0,)), Anchor("noun1, gloss", "gloss", (0,))]
    texts = draw_texts(WordNet(lemmas, {}, above), anchors, 40, seed=1)
    assert "noun0" not in texts.nouns
    assert len(texts.held_out) == N_HELD_OUT
    phrases = [phrase.split(" ") for phrase in texts.phrases]
    assert not {noun for _, noun in phrases} & set(texts.held_out)
    assert {adjective for adjective, _ in phrases} <= set(ADJECTIVES)
    assert texts == draw_texts(WordNet(lemmas, {}, above), anchors, 40, seed=1)


def test_the_teacher_is_kernel_ridge_regression():
    generator = torch.Generator().manual_seed(0)
    kinds = [*("name",) * 5, *("gloss",) * 3, *("hypernym",) * 2]
    classes = [(i,) for i in range(8)] + [(0, 1), (2, 3, 4)]
    anchors = [Anchor(str(i), kind, one) for i, (kind, one) in enumerate(zip(kinds, classes, strict=True))]
    embeddings, queries = (normalize(torch.randn(n, 6, generator=generator), dim=-1) for n in (10, 4))
    rows = torch.randn(1000, 12, generator=generator)
    teacher = KernelTeacher(anchors, embeddings, rows)

    def kernel(one, other):
        return np.exp(8 * (one.numpy() @ other.numpy().T - 1)).astype(np.float64)

    unit = normalize(rows, dim=-1).double()
    targets = torch.stack([normalize(unit[list(one)].mean(0), dim=-1) for one in classes])
    oracle = KernelRidge(alpha=0.1, kernel="precomputed")
    oracle.fit(kernel(embeddings, embeddings), targets.numpy(), sample_weight=np.array([WEIGHTS[k] for k in kinds]))
    expected = normalize(torch.from_numpy(oracle.predict(kernel(queries, embeddings))), dim=-1)
    torch.testing.assert_close(teacher.predict(queries).double(), expected, rtol=1e-4, atol=1e-5)
