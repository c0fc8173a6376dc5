from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from sotglp import SOTGLPClassifier, SotglpError, SotglpWarning
from support.command import fails, run_here
from support.hub_server import TOKEN, Hub

REPOSITORY = "me/birds"


def test_a_pushed_model_is_the_same_once_downloaded(fitted: SOTGLPClassifier, photos: Path, hub: Hub) -> None:
    address = fitted.push_to_hub(REPOSITORY, private=True, commit_message="first")
    assert address == f"{hub.endpoint}/{REPOSITORY}/commit/{'1' * 40}"
    assert hub.private == {REPOSITORY: True}
    assert hub.messages == ["first"]
    assert sorted(hub.files[REPOSITORY, "main"]) == ["README.md", "config.json", "model.safetensors"]
    assert any(call.startswith("PUT /objects/") for call in hub.calls)
    loaded = SOTGLPClassifier.from_pretrained(REPOSITORY)
    np.testing.assert_array_equal(loaded.predict_proba(photos), fitted.predict_proba(photos))
    assert loaded.calibration_ is not None


def test_a_downloaded_model_is_loaded_from_the_cache(fitted: SOTGLPClassifier, hub: Hub) -> None:
    fitted.push_to_hub(REPOSITORY)
    SOTGLPClassifier.from_pretrained(REPOSITORY)
    n_calls = len(hub.calls)
    SOTGLPClassifier.from_pretrained(REPOSITORY, local_files_only=True)
    assert len(hub.calls) == n_calls


def test_branches_and_pull_requests(fitted: SOTGLPClassifier, hub: Hub) -> None:
    fitted.push_to_hub(REPOSITORY, branch="next")
    assert not hub.files[REPOSITORY, "main"]
    assert SOTGLPClassifier.from_pretrained(REPOSITORY, revision="next").classes_.tolist() == fitted.classes_.tolist()
    assert fitted.push_to_hub(REPOSITORY, create_pr=True).endswith("/discussions/1")
    assert "model.safetensors" in hub.files[REPOSITORY, "refs/pr/1"]


def test_a_card_that_somebody_wrote_or_edited_is_kept(fitted: SOTGLPClassifier, hub: Hub) -> None:
    fitted.push_to_hub(REPOSITORY, license="mit")
    with warnings.catch_warnings():
        warnings.simplefilter("error", SotglpWarning)
        fitted.push_to_hub(REPOSITORY, license="apache-2.0")
    files = hub.files[REPOSITORY, "main"]
    assert b"license: apache-2.0" in files["README.md"]
    files["README.md"] = edited = files["README.md"].replace(b"## Use", b"## Use with care")
    with pytest.warns(SotglpWarning, match=r"README\.md of me/birds is kept"):
        fitted.push_to_hub(REPOSITORY)
    assert files["README.md"] == edited
    fitted.push_to_hub(REPOSITORY, force=True)
    assert b"with care" not in files["README.md"]


def test_what_cannot_be_reached_is_a_sentence(
    fitted: SOTGLPClassifier, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SotglpError, match="no such repository"):
        SOTGLPClassifier.from_pretrained("me/none")
    hub.put(REPOSITORY, "README.md", b"empty")
    with pytest.raises(SotglpError, match=r"no model\.safetensors"):
        SOTGLPClassifier.from_pretrained(REPOSITORY)
    with pytest.raises(SotglpError, match="no such branch"):
        SOTGLPClassifier.from_pretrained(REPOSITORY, revision="gone")
    with pytest.raises(SotglpError, match="OWNER/NAME"):
        SOTGLPClassifier.from_pretrained("a/b/c")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(SotglpError, match="me/birds can't be written"):
        fitted.push_to_hub(REPOSITORY)


def test_without_a_network_nothing_is_waited_for(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(SotglpError, match="can't be downloaded"):
        SOTGLPClassifier.from_pretrained(REPOSITORY)


def test_a_folder_takes_the_place_of_a_repository(fitted: SOTGLPClassifier, tmp_path: Path) -> None:
    folder = tmp_path / "birds"
    fitted.save_pretrained(folder)
    assert (folder / "README.md").read_text(encoding="utf-8").count("# birds\n") == 1
    assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["classes"] == fitted.classes_.tolist()
    assert SOTGLPClassifier.from_pretrained(folder).classes_.tolist() == fitted.classes_.tolist()
    with pytest.raises(SotglpError, match=r"README\.md exists"):
        fitted.save_pretrained(folder)
    fitted.save_pretrained(folder, force=True)


def test_push_evaluates_and_uploads_the_file_as_it_is(
    fitted: SOTGLPClassifier,
    photos: Path,
    hub: Hub,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tmp_path / "m.safetensors"
    fitted.save(model)
    words = ("push", model, REPOSITORY, "--test", photos, "--ood", photos / "blue sea", "--license", "mit")
    result = json.loads(run_here(capsys, monkeypatch, *words, "--json", "-")[0])
    assert result["url"].startswith(hub.endpoint)
    assert result["evaluation"]["n"] == 18
    files = hub.files[REPOSITORY, "main"]
    assert files["model.safetensors"] == model.read_bytes()
    assert b"type: auroc" in files["README.md"]
    assert "--test" in fails(capsys, monkeypatch, "push", model, REPOSITORY, "--ood", photos)
    assert "OWNER/NAME" in fails(capsys, monkeypatch, "push", model, "a/b/c")


def test_the_environment_names_the_hub(fitted: SOTGLPClassifier, hub: Hub, tmp_path: Path) -> None:
    model = tmp_path / "m.safetensors"
    fitted.save(model)
    names = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-m", "sotglp", "push", str(model), REPOSITORY]
    done = subprocess.run(command, env=os.environ | names, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert hub.endpoint in done.stdout
    assert hub.files[REPOSITORY, "main"]["model.safetensors"] == model.read_bytes()
