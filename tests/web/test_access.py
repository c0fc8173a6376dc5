"""Who may send requests: names, origins of pages behind a proxy, and the token."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from sotglp import SotglpError
from sotglp.settings import checked
from sotglp.web.access import Access
from sotglp.web.limits import Limits
from support.web_server import client, files, png


def status(own: TestClient, **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return own.post("/predict", files=files(png()), headers=named).status_code


@pytest.mark.parametrize("origin", ["http://[", "http://a:b:c", "", "http://evil@localhost", "file:///a"])
def test_an_origin_that_is_none_is_refused(shared: TestClient, origin: str) -> None:
    assert status(shared, Origin=origin) == 403


def test_a_proxy_that_changes_the_host_name(shared: TestClient, model: Path) -> None:
    page = "https://birds.example.org"
    assert status(shared, Origin=page, Sec_Fetch_Site="same-origin") == 200
    assert status(shared, Origin=page, Sec_Fetch_Site="cross-site") == 403
    assert status(shared, Origin=page) == 403
    with client(model, access=Access(public_origins=(page + ":443",))) as own:
        assert status(own, Origin=page) == 200
        assert status(own, Origin=page, Host="birds.example.org") == 200
        assert status(own, Origin="https://other.example.org", Sec_Fetch_Site="same-origin") == 403
        assert status(own, Host="other.example.org") == 400


def test_costly_answers_are_not_for_other_sites(shared: TestClient) -> None:
    for path in ("/model/file", "/ready"):
        assert shared.get(path, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
        assert shared.head(path, headers={"Sec-Fetch-Site": "same-site"}).status_code == 403
        assert shared.get(path, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200


def test_a_token(model: Path) -> None:
    with client(model, access=Access(token="s3cret-t0ken")) as own:
        for answer in (own.get("/"), own.get("/model"), own.get("/metrics"), own.get("/static/app.js")):
            assert (answer.status_code, list(answer.json())) == (401, ["error"])
        assert (own.get("/health").status_code, own.get("/ready").status_code) == (200, 200)
        assert own.get("/model", headers={"Authorization": "Bearer s3cret-t0ken"}).status_code == 200
        assert own.get("/", auth=("any", "s3cret-t0ken")).status_code == 200
        for wrong in ("Bearer s3cret", "Bearer", "Basic !", "Basic /w==", "s3cret-t0ken", "Digest s3cret-t0ken"):
            assert own.get("/model", headers={"Authorization": wrong}).status_code == 401


def test_a_path_below_that_of_a_proxy(model: Path) -> None:
    with client(model, access=Access(root_path="/birds/", token="t")) as own:
        for path in ("/birds/health", "/health"):
            assert own.get(path).status_code == 200
        headers = {"Authorization": "Bearer t"}
        assert own.get("/birds", headers=headers, follow_redirects=False).headers["location"] == "/birds/"
        assert own.get("/birds/static/app.js", headers=headers).status_code == 200
        assert own.get("/birds/model").status_code == 401


@pytest.mark.parametrize(
    "values",
    [
        {"allowed_hosts": ("a.example:80",)},
        {"allowed_hosts": ("",)},
        {"public_origins": ("birds.example.org",)},
        {"public_origins": ("https://birds.example.org/path",)},
        {"token": ""},
        {"token": "two words"},
        {"root_path": "birds"},
        {"root_path": "//birds"},
    ],
)
def test_values_that_cannot_be_used(values: dict[str, object]) -> None:
    with pytest.raises(SotglpError, match=next(iter(values))):
        checked(Access, values)


def test_no_more_classes_than_allowed(model: Path) -> None:
    with client(model, Limits(max_added_classes=0)) as own:
        assert own.post("/classes", files=files(png()), data={"name": "fog"}).status_code == 409
