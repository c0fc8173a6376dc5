from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sotglp import SOTGLPClassifier
from sotglp.console.table import Table
from sotglp.hub.card import is_unedited, markdown_table, model_card
from sotglp.model_file.record import ModelRecord, read_record
from sotglp.scoring.evaluation import Evaluation


@pytest.fixture(scope="module")
def record(fitted: SOTGLPClassifier, tmp_path_factory: pytest.TempPathFactory) -> ModelRecord:
    path = tmp_path_factory.mktemp("card") / "m.safetensors"
    fitted.save(path)
    return read_record(path)


@pytest.fixture(scope="module")
def evaluation(fitted: SOTGLPClassifier, photos: Path) -> Evaluation:
    return fitted.evaluate(photos, ood={"seas": photos / "blue sea"})


def test_a_card_has_metrics_for_the_hub(record: ModelRecord, evaluation: Evaluation) -> None:
    card = model_card(record, "me/birds", evaluation, license="mit")
    _, front, _ = card.split("---\n", 2)
    data = yaml.safe_load(front)
    assert data["library_name"] == "sotglp"
    assert data["license"] == "mit"
    assert data["pipeline_tag"] == "image-classification"
    (entry,) = data["model-index"]
    metrics = {metric["type"]: metric["value"] for result in entry["results"] for metric in result["metrics"]}
    assert metrics == {
        "accuracy": evaluation["accuracy"],
        "ece": evaluation["ece"],
        "auroc": evaluation["ood"]["seas"]["auroc"],
    }


def test_a_card_tells_classes_shots_accuracy_threshold_and_limits(record: ModelRecord, evaluation: Evaluation) -> None:
    card = model_card(record, "me/birds", evaluation, description="Photos of my garden.")
    assert "# birds\n" in card
    for text in ("blue sea", "green leaf", "tiny", "SOT-GLP", "all of each class", "95% interval", "seas", "MIT"):
        assert text in card
    assert record.calibration is not None
    assert f"{record.calibration.rejection.threshold:.6g}" in card
    assert 'SOTGLPClassifier.from_pretrained("me/birds")' in card
    assert "Photos of my garden." in card


def test_a_card_says_what_is_not_known(record: ModelRecord) -> None:
    card = model_card(record, "me/birds")
    assert "was not evaluated" in card
    assert "model-index" not in card
    assert "license" not in card


def test_an_edited_card_is_recognised(record: ModelRecord) -> None:
    card = model_card(record, "me/birds")
    assert is_unedited(card)
    assert is_unedited(card.replace("\n", "\r\n"))
    assert not is_unedited(card.replace("## Limits", "## Borders"))
    assert not is_unedited(card + "More.\n")
    assert not is_unedited("# Birds\n")


def test_names_of_classes_cannot_break_a_table() -> None:
    text = markdown_table(Table(["class", "n"], [["a|b\n<script>", "1"]], right=(1,)))
    assert text.splitlines() == ["| class | n |", "| --- | ---: |", "| a\\|b\\\\n\\<script\\> | 1 |"]
