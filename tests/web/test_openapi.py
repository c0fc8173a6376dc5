"""The API against its own description, by schemathesis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from sotglp.web.access import Access
from sotglp.web.app import create_app
from sotglp.web.limits import Limits
from sotglp.web.live_model import LiveModel, load_served

OPERATIONS = {
    "GET /health",
    "GET /ready",
    "GET /model",
    "GET /model/file",
    "POST /predict",
    "POST /predict.csv",
    "POST /explain",
    "POST /classes",
    "DELETE /classes/{name}",
}


@pytest.fixture(scope="module")
def app(model: Path) -> Any:
    live = LiveModel(model.name, load_served(model, device="cpu", batch_size=8))
    # A public server accepts the host name of schemathesis.
    return create_app(live, Limits(), Access(host="0.0.0.0"))


@pytest.fixture(scope="module")
def api(app: Any) -> Any:
    return schemathesis.openapi.from_asgi("/openapi.json", app)


@pytest.mark.parametrize(
    ("operation", "mode"),
    [(operation, GenerationMode.POSITIVE) for operation in sorted(OPERATIONS)]
    # Requests without body and query can't be invalid.
    + [(operation, GenerationMode.NEGATIVE) for operation in sorted(OPERATIONS) if operation.startswith("POST")],
)
def test_answers_are_as_described(api: Any, operation: str, mode: GenerationMode) -> None:
    method, path = operation.split()

    @given(case=api[path][method].as_strategy(generation_mode=mode))
    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    def run(case: Any) -> None:
        # Any bytes fit the description; those that are no image are refused.
        case.call_and_validate(excluded_checks=[positive_data_acceptance])

    run()


def test_the_document(app: Any) -> None:
    document = app.openapi()
    found = {f"{method.upper()} {path}" for path, entry in document["paths"].items() for method in entry}
    assert found == OPERATIONS
    for entry in document["paths"].values():
        for operation in entry.values():
            assert operation["summary"]
            assert operation["description"]
            for status, answer in operation["responses"].items():
                assert answer["description"]
                if status != "200":
                    assert answer["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorAnswer")
            assert "Retry-After" in operation["responses"]["503"]["headers"]
    for path, name in (("/predict", "images"), ("/explain", "image"), ("/classes", "images")):
        body = document["paths"][path]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
        assert name in body["required"]
