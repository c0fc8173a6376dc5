"""No source file has a call that runs code from data: what the load path may not do is looked for in its syntax."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest
from torchvision import datasets

import sotglp

SOURCES = sorted(Path(sotglp.__file__).parent.rglob("*.py"))

MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "pandas"}
INERT = "torch_archive.py"
"""Its unpickler finds no class or function of any package: backbone/test_torch_archive.py gives it hostile files."""
ENGINE = "engines/local.py"
"""Its worker processes exchange pickles with the process that started them, over pipes of their own."""
BUILTINS = {"eval", "exec", "compile", "__import__"}
CALLS = {"os.system", "os.popen", "torch.jit.load", "torch.hub.load", "gather_object", "broadcast_object_list"} | {
    f"yaml.{name}" for name in ("load", "load_all", "full_load", "unsafe_load")
}
# Its processes answer in pickles.
CALLS |= {"anyio.to_process"}
# Calls that are safe with one keyword alone.
NEEDED = {
    "load_checkpoint": ("weights_only", True),
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
    "extractall": ("filter", "data"),
    "unpack_archive": ("filter", "data"),
}


def dotted(node: ast.expr) -> str:
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def forbidden(source: str) -> list[str]:
    """What a source file does that it may not, by line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [f"{node.lineno}: import {name.name}" for name in node.names if name.name.split(".")[0] in MODULES]
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            found.append(f"{node.lineno}: from {node.module}")
        if isinstance(node, ast.ImportFrom) and node.module in ("torch", "numpy", "yaml", "os", "anyio"):
            names = {f"{node.module}.{name.name}" for name in node.names} & (CALLS | set(NEEDED))
            found += [f"{node.lineno}: {name}" for name in names]
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            names = {name, name.rpartition(".")[2]} if "." in name else {name}
            said = {
                keyword.arg: keyword.value.value for keyword in node.keywords if isinstance(keyword.value, ast.Constant)
            }
            unmet = [call for call, (keyword, value) in NEEDED.items() if said.get(keyword) != value]
            if name in BUILTINS or names & (CALLS | set(unmet)) or said.get("shell") is True:
                found.append(f"{node.lineno}: {name}")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(SOURCES[0].parent)))
def test_no_source_file_runs_code_from_data(path: Path) -> None:
    found = forbidden(path.read_text(encoding="utf-8"))
    if path.name == INERT:
        found = [one for one in found if "import pickle" not in one]
    if path.as_posix().endswith(ENGINE):
        found = [one for one in found if "from joblib.externals.loky" not in one]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import dill as safe",
        "import joblib",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=how)",
        "from torch import load",
        "torch.jit.load(path)",
        "yaml.load(text)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "eval(text)",
        "exec(text)",
        "os.system(text)",
        "subprocess.run(text, shell=True)",
        "tarfile.open(path).extractall(folder)",
        "archive.extractall(folder, filter='tar')",
        "load_checkpoint(model, path)",
        "from anyio import to_process",
        "state.broadcast_object_list(objects)",
    ],
)
def test_such_calls_are_found(source: str) -> None:
    assert len(forbidden(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path, weights_only=True, mmap=True)",
        "np.load(path, allow_pickle=False)",
        "model.eval()",
        "re.compile(pattern)",
        "yaml.safe_load(text)",
        "archive.extractall(folder, filter='data')",
        "subprocess.run([program])",
    ],
)
def test_calls_that_are_safe_pass(source: str) -> None:
    assert forbidden(source) == []


def test_torchvisions_readers_of_datasets_need_no_pickle() -> None:
    """Some of torchvision's datasets are pickles (CIFAR): none of those that are read here is."""
    folder = Path(sotglp.__file__).parent / "datasets"
    source = "".join(path.read_text() for path in sorted([*folder.glob("*.py"), *folder.glob("*.yaml")]))
    kinds = set(re.findall(r'(?:kind: |_parts\(|_samples\()"?(\w+)"?', source))
    kinds = {kind for kind in kinds if isinstance(getattr(datasets, kind, None), type)}
    assert {"Caltech101", "DTD", "SUN397"} <= kinds
    for kind in kinds:
        reader = Path(str(sys.modules[getattr(datasets, kind).__module__].__file__)).read_text()
        assert "pickle" not in reader, kind
        assert "torch.load" not in reader, kind
