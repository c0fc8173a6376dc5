from __future__ import annotations

import pytest
import torch


@pytest.fixture
def images() -> torch.Tensor:
    """Preprocessed images of noise for the tiny backbone."""
    return torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
