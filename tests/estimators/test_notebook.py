"""Estimators and their results in a notebook."""

from __future__ import annotations

from pathlib import Path

import pytest

from sotglp import Backbone, SOTGLPClassifier
from support.estimators import classifier


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[SOTGLPClassifier, Path]:
    from support.samples import make_class_folders, tiny_clip

    photos = make_class_folders(tmp_path_factory.mktemp("notebook") / "train")
    return classifier(Backbone.from_open_clip(tiny_clip()), epochs=1).fit(photos), photos


def test_an_estimator_shows_its_parameters(fitted: tuple[SOTGLPClassifier, Path]) -> None:
    html = fitted[0]._repr_html_()
    assert "SOTGLPClassifier" in html
    assert "learning_rate" in html
    assert len(html) < 200_000
    assert "OrderedDict" not in html


def test_results_show_as_tables_and_pictures(fitted: tuple[SOTGLPClassifier, Path]) -> None:
    estimator, photos = fitted
    picture = next(photos.rglob("*.png"))
    assert "data:image/png;base64," in estimator.explain(picture)._repr_html_()
    evaluation = estimator.evaluate(photos, ood={"seas": photos / "blue sea"})
    assert evaluation["n"] == 18
    for part in ("95% interval", "green leaf", "AUROC"):
        assert part in evaluation._repr_html_()
        assert part in str(evaluation)


def test_a_table_of_predictions_agrees_with_predict(fitted: tuple[SOTGLPClassifier, Path]) -> None:
    estimator, photos = fitted
    paths = sorted(photos.rglob("*.png"))[:4]
    table = estimator.predict_table(paths)
    assert [entry["path"] for entry in table] == [str(path) for path in paths]
    assert [entry["label"] for entry in table] == estimator.predict(paths).tolist()
    assert "blue sea" in table._repr_html_()
