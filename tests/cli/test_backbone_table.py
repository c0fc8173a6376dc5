from __future__ import annotations

import json
import subprocess
import sys

import open_clip
import pytest

from sotglp.backbone.architectures import supported_backbones
from sotglp.backbone.embedded import EMBEDDED
from sotglp.cli.backbone_table import backbone_lines, backbone_rows
from support.command import Run


def test_the_table_has_all_architectures_and_tags_of_the_installed_open_clip() -> None:
    table = backbone_rows(None)
    if table["open_clip"] != open_clip.__version__:
        pytest.skip(f"open_clip {open_clip.__version__} is installed, and the table is of {table['open_clip']}")
    rows = {row["name"]: row for row in table["backbones"]}
    assert rows.keys() == {*EMBEDDED, *open_clip.list_models()}
    assert {name for name, row in rows.items() if row["supported"]} == set(supported_backbones())
    pairs = {(name, tag) for name, row in rows.items() for tag in row["weights"] if name not in EMBEDDED}
    assert pairs == set(open_clip.list_pretrained())
    assert all(row["patches"] and row["image_size"] for row in rows.values() if row["supported"])


def test_rows_state_sizes_tags_and_licences(output_of: Run) -> None:
    lines = output_of("info", "--backbones").splitlines()
    (row,) = [line.split() for line in lines if line.startswith("ViT-B-16 ")]
    assert row[:6] == ["ViT-B-16", "CLIP", "149.6", "M", "224", "196"]
    assert "openai (MIT)" in " ".join(row)
    rows = json.loads(output_of("info", "--backbones", "--json", "-"))["backbones"]
    (tiny,) = [row for row in rows if row["name"] == "tiny"]
    assert (tiny["patches"], tiny["supported"], tiny["weights"]) == (64, True, {"embedded": "MIT"})
    (eva,) = [row for row in rows if row["name"] == "EVA02-E-14"]
    assert eva["weights"] == {"laion2b_s4b_b115k": None}  # trained on LAION's images by others


def test_a_filter_keeps_rows_with_all_words_and_lists_all_their_tags(output_of: Run, error_of: Run) -> None:
    rows = json.loads(output_of("info", "--backbones", "--filter", "siglip2 512", "--json", "-"))["backbones"]
    assert {row["name"] for row in rows} == {f"ViT-{size}-SigLIP2-512" for size in ("B-16", "L-16", "SO400M-16")}
    assert "metaclip_fullcc (CC-BY-NC)" in output_of("info", "--backbones", "--filter", "ViT-B-32-quickgelu")
    assert "timm:vit_small_patch14_dinov2" in error_of("info", "--backbones", "--filter", "dinov2")
    assert "no backbone has 'zzz'" in error_of("info", "--backbones", "--filter", "zzz")
    assert "--filter 'vit' has nothing to filter" in error_of("info", "--filter", "vit")


def test_another_open_clip_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sotglp.cli.backbone_table.version", lambda _: "99.0")
    assert "99.0 is installed" in backbone_lines(backbone_rows("tiny"), all_tags=True)[-1]


def test_the_table_loads_no_torch() -> None:
    code = (
        "import sys; from sotglp.cli.info import info; info(backbones=True); "
        "assert not {'torch', 'open_clip'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
