from __future__ import annotations

import os

import pytest
import torch

from sotglp import Backbone, SotglpError, SotglpWarning
from sotglp.backbone.precision import choose_device


@pytest.mark.parametrize("name", ["meta", "meta:0", "gpu", "cuda:99", "cuda:x", "hpu", "xla", "mkldnn", "", "cpu:-1"])
@pytest.mark.filterwarnings("ignore:'mkldnn' is no longer used")
def test_devices_that_hold_no_values_or_are_not_there_are_refused(name: str) -> None:
    with pytest.raises(SotglpError, match=r"choose cpu, cuda or auto$"):
        choose_device(name)


def test_auto_is_a_device_that_computes() -> None:
    assert torch.ones(2, device=choose_device("auto")).sum() == 2


def test_a_backbone_is_not_loaded_to_a_device_without_values() -> None:
    with pytest.raises(SotglpError, match="'meta' isn't available"):
        Backbone.load("tiny", device="meta")


def test_threads_that_spin_on_shared_cores_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (1000.0, 0.0, 0.0), raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    choose_device("cpu")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    with pytest.warns(SotglpWarning, match="OMP_WAIT_POLICY=PASSIVE"):
        choose_device("cpu")
