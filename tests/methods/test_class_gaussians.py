from __future__ import annotations

import torch

from sotglp.methods.class_gaussians import ClassGaussians, class_means


def test_gaussians_are_the_same_in_any_order() -> None:
    features = torch.nn.functional.normalize(torch.randn(24, 6, generator=torch.Generator().manual_seed(0)), dim=1)
    classes = torch.arange(24) % 3
    order = torch.randperm(24, generator=torch.Generator().manual_seed(3))
    one, other = ClassGaussians(features, classes), ClassGaussians(features[order], classes[order])
    torch.testing.assert_close(one.nearness(features), other.nearness(features), rtol=1e-5, atol=1e-5)


def test_means_are_those_of_each_class_and_unknown_without_features() -> None:
    means = class_means(torch.tensor([[1.0, 2.0], [3.0, 6.0], [5.0, 5.0]]), torch.tensor([2, 2, 0]), 4)
    expected = torch.tensor([[5.0, 5.0], [torch.nan, torch.nan], [2.0, 4.0], [torch.nan, torch.nan]])
    torch.testing.assert_close(means, expected, equal_nan=True)
