"""The API against its own description, by schemathesis."""

from __future__ import annotations

from collections.abc import Iterator
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
from sotglp.web.training import TrainingOptions

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


TRAINING = {
    "GET /training",
    "POST /training/classes",
    "PATCH /training/classes/{class_id}",
    "DELETE /training/classes/{class_id}",
    "POST /training/classes/{class_id}/images",
    "GET /training/images/{image_id}",
    "DELETE /training/images/{image_id}",
    "POST /training/run",
    "DELETE /training/run",
    "POST /training/calibration",
    "GET /training/report",
    "GET /training/onnx",
}


@pytest.fixture(scope="module")
def training() -> Iterator[Any]:
    """A server without a model file, which trains one."""
    training = TrainingOptions(("tiny",), device="cpu")
    app = create_app(LiveModel("m.safetensors", None), Limits(), Access(host="0.0.0.0"), training)
    yield app
    app.state.service.close()


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


@pytest.mark.parametrize("operation", sorted(TRAINING))
def test_answers_of_a_server_without_a_model_are_as_described(training: Any, operation: str) -> None:
    method, path = operation.split()

    @given(case=schemathesis.openapi.from_asgi("/openapi.json", training)[path][method].as_strategy())
    @settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    def run(case: Any) -> None:
        case.call_and_validate(excluded_checks=[positive_data_acceptance])

    run()


@pytest.mark.parametrize(("which", "operations"), [("app", OPERATIONS), ("training", OPERATIONS | TRAINING)])
def test_the_document(request: pytest.FixtureRequest, which: str, operations: set[str]) -> None:
    document = request.getfixturevalue(which).openapi()
    found = {f"{method.upper()} {path}" for path, entry in document["paths"].items() for method in entry}
    assert found == operations
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
