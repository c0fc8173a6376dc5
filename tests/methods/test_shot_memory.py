from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_ood.detector import SHE
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from sotglp.errors import SotglpError
from sotglp.methods.shot_memory import NEIGHBOUR, ShotMemory, unit_features


def drawn(n: int = 24, d: int = 6, n_classes: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    features, regions = unit_features(torch.randn(2, n, d, generator=torch.Generator().manual_seed(0)))
    return features, regions, torch.arange(n) % n_classes


def test_the_nearest_neighbour_is_scikit_learns() -> None:
    features, regions, classes = drawn()
    asked = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    search = NearestNeighbors(n_neighbors=NEIGHBOUR, metric="cosine").fit(features.numpy())
    distances, _ = search.kneighbors(asked.numpy())
    found = ShotMemory(features, regions, classes).nearest(asked)
    np.testing.assert_allclose(found, 1 - distances[:, -1], atol=1e-6)


def test_fewer_shots_than_neighbours_take_the_last_one() -> None:
    features, regions, classes = drawn(n=4)
    cosines = normalize(np.ones((1, 6))) @ normalize(features.numpy()).T
    found = ShotMemory(features, regions, classes).nearest(torch.ones(1, 6))
    np.testing.assert_allclose(found, cosines.min(axis=1), atol=1e-6)


def test_the_distance_is_scipys_with_scikit_learns_covariance() -> None:
    features, regions, classes = drawn()
    asked = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    unit, unit_asked = normalize(features.double().numpy()), normalize(asked.double().numpy())
    means = np.stack([unit[classes == own].mean(axis=0) for own in range(3)])
    precision = LedoitWolf(assume_centered=True).fit(unit - means[classes]).precision_
    expected = [-min(mahalanobis(one, mean, precision) ** 2 for mean in means) for one in unit_asked]
    memory = ShotMemory(features, regions, classes)
    np.testing.assert_allclose(memory.mahalanobis(asked), expected, rtol=1e-4)
    other = ShotMemory(regions, features, classes)
    torch.testing.assert_close(memory.mahalanobis_of_regions(asked), other.mahalanobis(asked))


def test_patterns_are_the_means_of_pytorch_oods_she() -> None:
    features, regions, classes = drawn()
    asked = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    own = torch.tensor([0, 2, 1, 0, 2])
    oracle = SHE(None, None)
    oracle._filter_correct_predictions = lambda z, y, **_: (z, y)
    oracle.fit_features(features, classes)
    expected = (unit_features(asked) * oracle.patterns[own]).sum(dim=1)
    torch.testing.assert_close(ShotMemory(features, regions, classes).pattern_energy(asked, own), expected)
    # Classes 1 and 9 have no shots.
    gapped = ShotMemory(features, regions, classes * 2)
    found = gapped.pattern_energy(asked, torch.tensor([0, 1, 2, 4, 9]))
    means = torch.stack([oracle.patterns[0], features.mean(dim=0), *oracle.patterns[1:], features.mean(dim=0)])
    torch.testing.assert_close(found, (unit_features(asked) * means).sum(dim=1))


def test_the_residual_is_that_of_principal_components_around_the_origin() -> None:
    features, regions, classes = drawn(n=8)
    asked = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    _, _, rows = np.linalg.svd(features.double().numpy())
    expected = np.linalg.norm(unit_features(asked).double().numpy() @ rows[3:].T, axis=1)
    np.testing.assert_allclose(ShotMemory(features, regions, classes).residual(asked), expected, atol=1e-6)
    two = ShotMemory(features[:2], regions[:2], classes[:2])  # a space of one dimension
    assert (two.residual(features[:2]) > 0).all()


def test_a_class_without_shots_is_no_mean() -> None:
    features, regions, classes = drawn(n_classes=2)
    gapped = ShotMemory(features, regions, classes * 5)
    assert torch.equal(gapped.mahalanobis(features), ShotMemory(features, regions, classes).mahalanobis(features))


def test_one_shot_of_each_class_still_has_distances() -> None:
    features, regions, _ = drawn(n=3)
    nearness = ShotMemory(features, regions, torch.arange(3)).mahalanobis(torch.cat([features, -features]))
    assert nearness.isfinite().all()
    # With nothing known of how shots of a class differ, distances are ordinary ones: 0 to a class's only shot.
    distances = torch.cdist(torch.cat([features, -features]), features)
    torch.testing.assert_close(nearness, -distances.square().amin(dim=1), atol=1e-5, rtol=1e-5)


def test_classes_move_go_and_join() -> None:
    features, regions, classes = drawn()
    memory = ShotMemory(features, regions, classes)
    moved = memory.of_classes([2, None, 0])
    assert torch.equal(moved.features, memory.features[classes != 1])
    assert torch.equal(moved.classes, 2 - classes[classes != 1])
    assert memory.of_classes([None]) is None
    joined = moved.joined(ShotMemory(features[:2], regions[:2], torch.tensor([1, 1])))
    assert joined.classes.tolist() == [*moved.classes.tolist(), 1, 1]
    assert torch.equal(joined.regions[-2:], memory.regions[:2])


@pytest.mark.parametrize(
    ("features", "regions", "classes"),
    [((0, 3), (0, 3), 0), ((2, 3), (2, 4), 2), ((2, 3), (2, 3), 3), ((3,), (3,), 3)],
)
def test_parts_that_do_not_fit_are_refused(features: tuple[int, ...], regions: tuple[int, ...], classes: int) -> None:
    with pytest.raises(SotglpError, match="different numbers of rows"):
        ShotMemory(torch.ones(features), torch.ones(regions), torch.zeros(classes, dtype=torch.long))
