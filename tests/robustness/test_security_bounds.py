"""Model files that name a thousand times their own size, or a place elsewhere: no memory, no network."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from sotglp import SOTGLP, Backbone
from sotglp.model_file.save import save_model
from support.hostile_files import changed_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    save_model(path, SOTGLP(Backbone.load("tiny"), ["cat", "dog"], n_local_prompts=2, top_k=5))
    return path


BOUNDLESS: dict[str, tuple[dict[str, Any], dict[str, torch.Tensor | None], str]] = {
    "prompts of a class": ({"model.n_local_prompts": 10**9}, {}, "its local_prompts is missing or has another shape"),
    "prompts of a class, of no width": (
        {"model.n_local_prompts": 10**9},
        {"local_prompts": torch.empty(2, 10**9, 0, 0)},
        "its local_prompts is missing or has another shape",
    ),
    "prompts of all": ({"model.n_global_prompts": 10**9}, {}, "its global_prompts is missing or has another shape"),
    "prompts, but none": ({"model.n_local_prompts": 10**9}, {"local_prompts": None}, "its local_prompts is missing"),
    "classes": ({"classes": list(range(10**6))}, {}, "its local_prompts is missing or has another shape"),
    "too many classes": ({"classes": list(range(2 * 10**6))}, {}, "its header would have"),
    "patches": ({"model.top_k": 10**9}, {}, "top_k = 1000000000"),
    "pixels": ({"backbone.image_size": [10**9, 10**9]}, {}, r"backbone.image_size.0: input should be less than"),
    "no pixels": ({"backbone.image_size": [0, 0]}, {}, r"backbone.image_size.0: input should be greater than"),
    "a preprocessing to": (
        {"backbone.preprocess": {"size": [10**9, 10**9]}},
        {},
        r"backbone.preprocess.size.0: input should be less than",
    ),
    "a large architecture around one weight": (
        {"backbone.name": "ViT-bigG-14", "backbone.image_size": [224, 224]},
        {"backbone.logit_scale": torch.zeros(())},
        "the weights in it are not those of ViT-bigG-14",
    ),
}
NAMED: dict[str, tuple[dict[str, Any], str]] = {
    "a repository": ({"backbone.name": "hf-hub:evil/repo"}, "isn't on this computer"),
    "a folder": ({"backbone.name": "local-dir:/tmp/evil"}, "isn't on this computer"),
    "weights of a repository": ({"backbone.pretrained": "hf-hub:evil/repo"}, "is neither a weight file nor a tag"),
    "weights on another computer": (
        {"backbone.pretrained": "//evil.example/share/w.pt"},
        "names weights on another computer",
    ),
    "weights on another Windows": ({"backbone.pretrained": r"\\evil\share\w.pt"}, "names weights on another computer"),
    "a tower of no kind": ({"backbone.name": "swin_base_patch4_window7_224"}, "isn't supported"),
    "a device": ({"backbone.pretrained": "/dev/zero"}, "is neither a weight file nor a tag"),
    "a process": ({"backbone.pretrained": "/proc/self/mem"}, "must end in one of"),
}

LOAD = """
import json, resource, sys
from pathlib import Path
from sotglp.model_file.load import load_model
from support.no_network import forbid_network
from sotglp import SotglpError
from sotglp.model_file.load import load_model

def kib(field):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(field))

paths = [Path(line) for line in sys.stdin.read().splitlines()]
load_model(paths[0])
forbid_network()
bound = (kib("VmSize") + 2**20) * 2**10
resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
before, said = kib("VmHWM"), {}
for path in paths[1:]:
    try:
        load_model(path)
        said[path.name] = "loaded"
    except SotglpError as error:
        said[path.name] = str(error)
    except BaseException as error:
        said[path.name] = repr(error)
print(json.dumps({"said": said, "grown": kib("VmHWM") - before}))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks at a process as Linux shows it")
def test_records_that_ask_for_more_than_there_is_take_no_memory_and_no_network(tmp_path: Path, model: Path) -> None:
    expected = {}
    for name, (record, tensors, words) in BOUNDLESS.items():
        (tmp_path / name).write_bytes(changed_model(model, record, tensors))
        expected[name] = words
    for name, (record, words) in NAMED.items():
        (tmp_path / name).write_bytes(changed_model(model, record))
        expected[name] = words
    done = subprocess.run(
        [sys.executable, "-c", LOAD],
        input="\n".join(map(str, [model, *(tmp_path / name for name in expected)])),
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    for name, words in expected.items():
        assert re.search(words, told["said"][name]), (name, told["said"][name])
        assert "\n" not in told["said"][name]
    assert told["grown"] < 700 * 2**10
