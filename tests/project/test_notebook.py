from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "docs" / "first_model.ipynb"


@pytest.fixture(scope="module")
def stored() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_notebook_is_stored_without_outputs(stored: Any) -> None:
    nbformat.validate(stored)
    cells = [cell for cell in stored.cells if cell.cell_type == "code"]
    assert cells
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(stored: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "TMPDIR", str(tmp_path))
    client = NotebookClient(stored, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}})
    ran = client.execute()
    printed = "\n".join(
        output.text for cell in ran.cells for output in cell.get("outputs", []) if output.output_type == "stream"
    )
    accuracy, auroc = (float(re.search(rf"{name} ([\d.]+)", printed)[1]) for name in ("accuracy", "AUROC"))  # type: ignore[index]
    # Chance is 0.125 and 0.5.
    assert accuracy > 0.5
    assert auroc > 0.8
    assert re.search(r"^True \d+ bytes", printed, re.MULTILINE), "the loaded model predicts otherwise"
    pictures = [
        output for cell in ran.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 1, "one explanation is drawn"
