"""What an exported model needs and what it refuses; what it says is in tests/export/test_onnx_file.py."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from PIL import Image

from sotglp import Backbone, SotglpError
from sotglp.export.onnx_file import export_model
from sotglp.methods.zero_shot import ZeroShot
from sotglp.runtime import PortableModel
from sotglp.runtime.onnx_file import look_through
from support.calibrations import calibrated
from support.samples import make_class_folders

CHECKOUT = Path(__file__).parents[2]

# What an exported model has to do without, in a process of its own.
WITHOUT = """
import sys

MISSING = {"torch", "torchvision", "open_clip", "sklearn", "scipy", "pydantic", "typer", "rich", "yaml", "safetensors",
           "matplotlib", "onnx", "onnxscript", "typing_extensions"}


class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Missing())
import importlib.util

found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in MISSING else found(name, package)
from sotglp.__main__ import main

main()
assert not MISSING & {name.partition(".")[0] for name in sys.modules}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "m.onnx"
    zero_shot = ZeroShot(Backbone.load("tiny"), ["red_brick", "green leaf", "blue sea"]).eval()
    export_model(path, zero_shot, calibration=calibrated("gl-mcm"))
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_class_folders(tmp_path_factory.mktemp("images") / "test", per_class=2)
    (root / "blue sea" / "broken.png").write_bytes(b"\x89PNG")
    return root


def without(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def whole(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sotglp", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    "options", [["--csv", "-"], ["--unknown", "--batch-size", "2"], ["--no-unknown"], ["--json", "-"]]
)
def test_predict_says_the_same_without_the_full_installation(model: Path, images: Path, options: list[str]) -> None:
    command = ("predict", model, images, "--skip-unreadable", *options)
    alone, beside = without(*command), whole(*command)
    assert (alone.returncode, beside.returncode) == (0, 0), alone.stderr
    assert alone.stdout == beside.stdout
    assert alone.stderr == beside.stderr
    assert alone.stderr.startswith("sotglp: skipped: can't read ")
    if "--json" in options:
        result = json.loads(alone.stdout)
        assert set(result) == {
            *("predictions", "ood_method", "temperature", "threshold", "calibration", "unreadable", "versions")
        }
        assert len(result["predictions"]) == 6
        assert len(result["unreadable"]) == 1
    if "--unknown" in options:
        lines = alone.stdout.splitlines()[1:7]
        scores = [float(line.rpartition(" ")[2]) for line in lines]
        assert ["  unknown  " in line for line in lines] == [score < 0.5 for score in scores]


def test_everything_else_says_what_it_needs(model: Path, images: Path, tmp_path: Path) -> None:
    fit = without("fit", images, "--out", tmp_path / "m.safetensors")
    assert fit.returncode == 2
    assert fit.stderr.startswith("sotglp: error: `sotglp fit` needs the full installation")
    other = without("predict", "m.safetensors", images)
    assert (other.returncode, other.stderr.count("\n")) == (2, 1)
    assert "needs the full installation" in other.stderr
    for run in (without, whole):
        coverage = run("predict", model, images, "--coverage", "0.9")
        assert (coverage.returncode, coverage.stdout, coverage.stderr.count("\n")) == (2, "", 1)
        assert coverage.stderr.startswith("sotglp: error: --coverage can't be changed for")
        broken = run("predict", model, images)
        assert (broken.returncode, broken.stdout, broken.stderr.count("\n")) == (2, "", 1)
        assert "broken.png" in broken.stderr
    help_text = without("--help")
    assert help_text.returncode == 0
    assert "predict" in help_text.stdout


@pytest.mark.slow
def test_a_virtual_environment_with_onnxruntime_and_pillow_is_enough(model: Path, images: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source)
    shutil.copytree(CHECKOUT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__"))
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "onnxruntime", "pillow"], check=True, timeout=400)
    subprocess.run([*pip, "--no-deps", source], check=True, timeout=400)
    for name in ("torch", "typer", "scipy"):
        absent = subprocess.run([python, "-c", f"import {name}"], capture_output=True, text=True)
        assert "ModuleNotFoundError" in absent.stderr
    command = [python.with_name("sotglp"), "predict", model, images, "--csv", "-", "--skip-unreadable"]
    alone = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert alone.returncode == 0, alone.stderr
    rows = [line.split(",") for line in alone.stdout.splitlines()]
    expected = [line.split(",") for line in whole(*command[1:]).stdout.splitlines()]
    assert len(rows) == 7
    # The path, the label and whether the image is unknown; the other columns are numbers.
    assert [(*row[:2], row[4]) for row in rows] == [(*row[:2], row[4]) for row in expected]
    numbers, others = (np.array([row[2:4] + row[5:] for row in table[1:]], float) for table in (rows, expected))
    np.testing.assert_allclose(numbers, others, rtol=1e-5)


def test_a_model_in_python(model: Path, images: Path) -> None:
    portable = PortableModel.load(model, threads=1)
    assert portable.classes == ("red_brick", "green leaf", "blue sea")
    picture = images / "red_brick" / "0.png"
    found = portable.predict([picture, str(picture), picture.read_bytes(), Image.open(picture)], batch_size=3)
    assert found.indices.tolist() == [0, 1, 2, 3]
    assert found.maps is None
    np.testing.assert_allclose(found.probabilities, found.probabilities[:1].repeat(4, 0), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found.label_indices, found.probabilities.argmax(axis=1))
    assert portable.rejects(np.array([0.49, 0.51], np.float32)).tolist() == [True, False]
    unreadable: list[Any] = []
    some = portable.predict([images / "blue sea" / "broken.png", picture], unreadable=unreadable)
    assert (some.indices.tolist(), len(unreadable)) == ([1], 1)
    for wrong in ([], str(picture)):
        with pytest.raises(SotglpError, match="give a list of images"):
            portable.predict(wrong)  # type: ignore[arg-type]
    with pytest.raises(SotglpError, match="batch_size = 0"):
        portable.predict([picture], batch_size=0)


def test_large_batches_reach_the_graph_in_parts(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    portable = PortableModel.load(model, threads=1)
    height, width = portable.record.preprocessing.size
    pixels = np.random.default_rng(0).standard_normal((5, 3, height, width), dtype=np.float32)
    whole = portable.run(pixels)
    session, sizes = portable._session, []

    class Session:
        def run(self, names: None, feed: dict[str, Any], options: object) -> list[Any]:
            sizes.append(len(feed["images"]))
            return session.run(names, feed, options)

    monkeypatch.setattr(portable, "_session", Session())
    monkeypatch.setattr("sotglp.runtime.model.PART_PIXELS", 2 * height * width + 1)
    for together, apart in zip(whole, portable.run(pixels), strict=True):
        np.testing.assert_allclose(apart, together, rtol=1e-5, atol=1e-6)
    assert sizes == [2, 2, 1]


def changed_record(name: str, value: Any) -> Callable[[onnx.ModelProto], None]:
    def change(file: onnx.ModelProto) -> None:
        record = json.loads(file.metadata_props[0].value)
        del record[name]
        file.metadata_props[0].value = json.dumps(record if value is None else record | {name: value})

    return change


def no_record(file: onnx.ModelProto) -> None:
    del file.metadata_props[:]


def broken_json(file: onnx.ModelProto) -> None:
    file.metadata_props[0].value = "[" * 100_000


def elsewhere(file: onnx.ModelProto) -> None:
    tensor = file.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def elsewhere_in_a_branch(file: onnx.ModelProto) -> None:
    inner = TensorProto(name="t", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    branch = helper.make_graph([helper.make_node("Constant", [], ["t2"], value=inner)], "b", [], [])
    file.graph.node.append(helper.make_node("If", ["c"], ["d"], then_branch=branch, else_branch=branch))


def strange_operator(file: onnx.ModelProto) -> None:
    file.graph.node.append(helper.make_node("Run", ["images"], ["x"], domain="of.somebody"))


def other_input(file: onnx.ModelProto) -> None:
    file.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 65


def other_outputs(file: onnx.ModelProto) -> None:
    del file.graph.output[1]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (no_record, "isn't an exported model of sotglp"),
        (broken_json, "its record is damaged"),
        (changed_record("classes", None), "its record lacks 'classes'"),
        (changed_record("classes", ["a", ["b"], "c"]), "class labels"),
        (changed_record("classes", ["a", "b"]), "number of classes"),
        (changed_record("classes", ["a", "b", "\u200b"]), "invisible character"),
        (changed_record("classes", [1.0, 2.0, float("nan")]), "its record is damaged"),
        (changed_record("classes", ["a", "b", "\ud800"]), "its record is damaged"),
        (changed_record("classes", ["a", "b", "a"]), "have the same name"),
        (changed_record("ood_temperature", 1e-300), "ood_temperature is out of range"),
        (changed_record("preprocessing", []), "its record is damaged"),
        (changed_record("patch_grid", [0, 8]), "a size is out of range"),
        (changed_record("threshold", "low"), "its record is damaged"),
        (changed_record("format_version", 2), "it has format 2"),
        (changed_record("format_version", 1.0), "it has format 1.0"),
        (elsewhere, "uses external data"),
        (elsewhere_in_a_branch, "uses external data"),
        (strange_operator, "uses custom operators"),
        (other_input, "can't be read as an exported model"),
        (other_outputs, "its outputs are not those of an exported model"),
    ],
)
def test_a_file_made_to_do_harm_is_refused(
    model: Path, tmp_path: Path, change: Callable[[onnx.ModelProto], None], expected: str
) -> None:
    file = onnx.load(model)
    change(file)
    path = tmp_path / "m.onnx"
    path.write_bytes(file.SerializeToString())
    with pytest.raises(SotglpError) as caught:
        PortableModel.load(path)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x00" * 100, b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f"])
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(SotglpError, match=r"m\.onnx (can't be read as|isn't) an exported model"):
        PortableModel.load(tmp_path / "m.onnx")
    with pytest.raises(SotglpError, match="there is no exported model"):
        PortableModel.load(tmp_path / "none.onnx")


def test_a_torn_file_is_refused(model: Path) -> None:
    content = model.read_bytes()
    for share in (0.1, 0.5, 0.999):
        with pytest.raises(SotglpError):
            PortableModel.from_bytes(content[: int(len(content) * share)], "m.onnx")


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_no_bytes_end_in_anything_but_a_value_error(content: bytes) -> None:
    try:
        found = look_through(content)
    except ValueError:
        return
    assert isinstance(found.metadata, dict)


def test_a_file_is_looked_through_as_onnx_reads_it(model: Path) -> None:
    found = look_through(model.read_bytes())
    file = onnx.load(model)
    assert found.metadata == {one.key: one.value for one in file.metadata_props}
    assert found.domains == {one.domain for one in file.opset_import}
    assert not found.has_external_data
