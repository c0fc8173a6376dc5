"""Calls that never end, in a graph or elsewhere, end for the caller."""

from __future__ import annotations

import signal
import threading
import time
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from sotglp.errors import SotglpError
from sotglp.runtime import model as runtime_model
from sotglp.runtime.model import PortableModel
from sotglp.runtime.time_limit import TookTooLongError, call_within


@pytest.fixture
def content() -> bytes:
    """A graph that loops without end."""
    go_in, go_out = (helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("go_in", "go_out"))
    body = helper.make_graph(
        [helper.make_node("Identity", ["go_in"], ["go_out"]), helper.make_node("Exp", ["kept_in"], ["kept_out"])],
        "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []), go_in, images("kept_in")],
        [go_out, images("kept_out")],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["", "go", "images"], ["ood_score"], body=body)],
        "graph",
        [images("images")],
        [images("ood_score")],
        [helper.make_tensor("go", TensorProto.BOOL, [], [True])],
    )
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    made: bytes = file.SerializeToString()
    return made


def images(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3, 8, 8])


def test_a_graph_that_loops_without_end_is_refused(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    before = threading.active_count()
    portable = PortableModel(runtime_model._session(content, threads=1), SimpleNamespace())  # type: ignore[arg-type]
    monkeypatch.setattr(runtime_model, "SECONDS_AN_IMAGE", 0.1)
    with pytest.raises(SotglpError, match="loop without end"):
        portable.run(np.zeros((1, 3, 8, 8), np.float32))
    # The loop has ended too.
    assert threading.active_count() == before


def test_a_file_that_takes_for_ever_to_load_is_refused(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_model, "SECONDS_TO_LOAD", 0.0)
    monkeypatch.setattr("onnxruntime.InferenceSession", lambda *_, **__: time.sleep(0.5))
    with pytest.raises(ValueError, match="loading it takes more than"):
        runtime_model._session(content, threads=1)


def test_a_call_returns_or_raises() -> None:
    assert call_within(60, lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        call_within(60, lambda: 1 // 0)


def test_ctrl_c_ends_the_waiting() -> None:
    ended = threading.Event()
    main_thread = threading.main_thread().ident
    assert main_thread is not None
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Timer(0.1, signal.pthread_kill, (main_thread, signal.SIGINT)).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            call_within(60, lambda: ended.wait(60), stop=ended.set)
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.is_set()


def test_a_call_that_ignores_the_request_to_end_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sotglp.runtime.time_limit._GRACE_SECONDS", 0.0)
    with pytest.raises(TookTooLongError):
        call_within(0, lambda: time.sleep(1))
