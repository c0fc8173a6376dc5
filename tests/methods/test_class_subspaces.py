"""Distances to the subspaces of classes are those of a numpy formula, for any numbers of shots."""

import numpy as np
import pytest
import torch

from sotglp.methods.class_subspaces import NOISE, RELATIVE, ClassSubspaces
from sotglp.methods.shot_memory import unit_features


def drawn(n: int, seed: int) -> torch.Tensor:
    return unit_features(torch.randn(n, 6, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("classes", [[0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 2, 4, 4], [3, 3]], ids=str)
def test_distances_are_numpys_with_the_covariance_of_each_class(classes: list[int]) -> None:
    shots, asked, own = drawn(len(classes), 0).double().numpy(), drawn(5, 1).double().numpy(), np.array(classes)
    groups = [shots[own == one] for one in np.unique(own)]
    scatters = [(group - group.mean(axis=0)).T @ (group - group.mean(axis=0)) for group in groups]
    noise = NOISE * sum(np.trace(scatter) for scatter in scatters) / len(shots)
    distances = []
    for group, scatter in zip(groups, scatters, strict=True):
        inverse = np.linalg.inv(scatter / len(group) + noise * np.eye(6))
        distances.append([noise * row @ inverse @ row for row in asked - group.mean(axis=0)])
    expected = RELATIVE * ((asked - shots.mean(axis=0)) ** 2).sum(axis=1) - np.min(distances, axis=0)
    found = ClassSubspaces(torch.from_numpy(shots).float(), torch.tensor(classes)).nearness(
        torch.from_numpy(asked).float()
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_single_shots_are_compared_by_their_distance() -> None:
    shots, asked = drawn(3, 0), drawn(5, 1)
    expected = RELATIVE * (asked - shots.mean(dim=0)).square().sum(dim=1) - torch.cdist(asked, shots).amin(dim=1) ** 2
    found = ClassSubspaces(shots, torch.arange(3)).nearness(asked)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_mixture_of_shots_of_one_class_is_nearer_than_one_of_two_classes() -> None:
    shots = torch.eye(6)
    subspaces = ClassSubspaces(shots, torch.tensor([0, 0, 0, 1, 1, 1]))
    mixtures = unit_features(torch.tensor([[0.5, 0.3, 0.2, 0, 0, 0], [0.5, 0, 0, 0.5, 0, 0]]))
    inside, between = subspaces.nearness(mixtures)
    assert inside > between
