from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sotglp import SotglpError
from sotglp.benchmark.suite import load_suite, suites
from sotglp.methods.method import METHODS


def write(path: Path, values: object) -> str:
    path.write_text(yaml.safe_dump(values))
    return str(path)


@pytest.mark.parametrize("name", suites())
def test_every_suite_of_the_package_can_be_read(name: str) -> None:
    assert load_suite(name).name == name


def test_the_suite_of_the_published_protocol() -> None:
    suite = load_suite("few-shot")
    assert len(suite.datasets) == 11
    assert list(suite.methods) == [name for name, method in METHODS.items() if method.source != "ours"]
    assert (suite.shots, suite.seeds) == ((1, 2, 4, 8, 16), (1, 2, 3))
    assert (suite.backbone.name, suite.backbone.pretrained) == ("ViT-B-16", "openai")


def test_a_label_may_stand_for_a_method_with_settings(tmp_path: Path) -> None:
    methods = {"flat": {"method": "sot-glp", "matching": "uniform", "patch_attention": "ordinary"}, "plot": None}
    suite = load_suite(write(tmp_path / "s.yaml", {"datasets": {"own": None}, "methods": methods}))
    assert suite.method("flat").name == "sot-glp"
    assert suite.methods["flat"].settings == {"matching": "uniform"}
    assert suite.methods["flat"].patch_attention == "ordinary"
    assert suite.method("plot").name == "plot"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"datasets": ["dtd"]}, "has no entries datasets and methods"),
        ([], "has no entries datasets and methods"),
        ({"datasets": ["dtd"], "methods": ["copo"]}, "did you mean coop"),
        ({"datasets": ["dtd"], "methods": {"coop": {"topk": 3}}}, "did you mean top_k"),
        ({"datasets": ["dtd"], "methods": {"coop": 3}}, "the entry coop of methods in the suite file is 3"),
        ({"datasets": "dtd", "methods": ["coop"]}, "'dtd' in the suite file is not a list of names or a mapping"),
        ({"datasets": ["dtd"], "methods": ["coop"], "settings": {"epoch": 3}}, "did you mean epochs"),
        ({"datasets": ["dtd"], "methods": ["coop"], "shots": ["many"]}, "shots.0 = 'many' can't be used"),
        ({"datasets": ["dtd"], "methods": ["coop"], "protocol": "any"}, "protocol = 'any' can't be used"),
        ({"datasets": {"x": {"tests": "y"}}, "methods": ["coop"]}, "datasets.x.tests = 'y' can't be used"),
        ({"datasets": {"x": {"preset": "none"}}, "methods": ["coop"]}, "there is no preset 'none'"),
    ],
)
def test_what_is_wrong_with_a_suite_is_said(tmp_path: Path, values: object, message: str) -> None:
    with pytest.raises(SotglpError, match=message):
        load_suite(write(tmp_path / "s.yaml", values))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("datasets: [", r"s\.yaml can't be read as YAML"),
        ("1: 2\ndatasets: [x]\nmethods: [coop]", None),
        ('datasets: {x: {preset: "\\0.yaml"}}\nmethods: [coop]', None),
    ],
)
def test_a_file_that_is_no_suite_is_rejected(tmp_path: Path, text: str, message: str | None) -> None:
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(SotglpError, match=message):
        load_suite(str(tmp_path / "s.yaml"))


@pytest.mark.parametrize("name", ["few", "absent.yaml"])
def test_a_missing_suite_is_named(name: str) -> None:
    with pytest.raises(SotglpError, match=name):
        load_suite(name)
