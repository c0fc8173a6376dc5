from __future__ import annotations

import socket

import pytest
from huggingface_hub import constants

from sotglp.backbone import network
from sotglp.backbone.network import is_reachable, no_waiting_for_the_hub


def test_a_server_is_reachable_while_it_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert is_reachable(address)
    assert not is_reachable(address)


@pytest.mark.parametrize(("reachable", "proxies"), [(False, {}), (True, {}), (False, {"https": "http://proxy"})])
def test_the_hub_is_offline_only_while_it_cannot_be_reached(
    reachable: bool, proxies: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(network, "getproxies", lambda: proxies)
    monkeypatch.setattr(network, "is_reachable", lambda _: reachable)
    with no_waiting_for_the_hub():
        assert (not (reachable or proxies)) == constants.HF_HUB_OFFLINE
    assert not constants.HF_HUB_OFFLINE
