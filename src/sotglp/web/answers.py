"""Answers of the API: JSON objects, field by field, and predictions as a CSV table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from sotglp.console.output import PREDICTION_COLUMNS, UNKNOWN, csv_table
from sotglp.images.decode import MAX_PIXELS
from sotglp.web.limits import Limits


class Answer(BaseModel):
    """A JSON object with these fields and no others."""

    model_config = ConfigDict(extra="forbid")


class ErrorAnswer(Answer):
    """The reason why a request was refused."""

    error: str = Field(
        description="One sentence: what is wrong and what to do.",
        examples=["can't read leaf.jpg: it is empty; replace it or leave it out"],
    )


class Health(Answer):
    """State of the server, and the model that it serves."""

    status: Literal["ok"]
    version: str = Field(description="Version of sotglp.")
    model: str | None = Field(description="Name of the model file; null until the page has trained a model.")
    kind: str | None = Field(description="Kind of model.", examples=["sot-glp"])
    backbone: str | None = Field(description="Architecture of the backbone.", examples=["ViT-B-16"])
    n_classes: int = Field(ge=0)
    device: str | None = Field(examples=["cpu"])
    trains: bool = Field(description="Whether the page trains models, through /training.")


class Ready(Answer):
    """The server can predict."""

    status: Literal["ready"]


class LimitsAnswer(Answer):
    """Limits of one request."""

    max_image_bytes: int
    max_images: int
    max_seconds: float
    max_pixels: int


def limits_answer(limits: Limits) -> LimitsAnswer:
    """Return the limits of a request."""
    return LimitsAnswer(
        max_image_bytes=limits.max_image_bytes,
        max_images=limits.max_images,
        max_seconds=limits.max_seconds,
        max_pixels=MAX_PIXELS,
    )


class ModelAnswer(Answer):
    """The model as it is served now."""

    classes: list[str] = Field(description="Class names, in the model's order.", examples=[["oak", "wren"]])
    added: list[str] = Field(description="Classes that were added since the server started.")
    kind: str
    has_maps: bool = Field(description="Whether the model supports /explain.")
    n_prompts: int = Field(description="Local prompts per class; 0 without maps.")
    calibrated: bool
    tpr: float | None = Field(description="Target share of in-distribution images that the threshold accepts.")
    ood_method: str = Field(description="Kind of the in-distribution score.", examples=["gl-mcm"])
    threshold: float | None = Field(description="Images with a lower score are unknown.")
    can_add_classes: bool
    changed: bool = Field(description="Whether classes were added since the server started.")
    limits: LimitsAnswer


class Prediction(Answer):
    """Prediction for one image."""

    name: str = Field(description="File name, as sent.", examples=["garden.jpg"])
    label: str = Field(description="The most probable class.", examples=["wren"])
    probability: float = Field(ge=0, le=1, description="Probability of that class, at the calibrated temperature.")
    ood_score: float = Field(description="In-distribution score; higher means more like the known classes.")
    is_unknown: bool | None = Field(
        description="Whether the score is below the threshold; null if the model isn't calibrated or unknown=false."
    )
    probabilities: dict[str, float] = Field(
        description="Probability of every class.", examples=[{"oak": 0.1, "wren": 0.9}]
    )


class Unreadable(Answer):
    """An image that can't be read."""

    name: str
    error: str


class Predictions(Answer):
    """One prediction per image, in the order of the upload."""

    predictions: list[Prediction | Unreadable]


class Patch(Answer):
    """One patch of the support."""

    row: int
    column: int
    box: tuple[float, float, float, float] = Field(description="Left, top, right, bottom in pixels of the image.")
    mass: list[float] = Field(description="Share of the mass of each local prompt on this patch.")


class ExplainedClass(Answer):
    """Scores and patches of one class."""

    label: str
    probability: float
    global_score: float = Field(description="Mean cosine of the image with the global prompts.")
    local_score: float = Field(description="Transported cosine of the patches with the local prompts.")
    n_prompts: int
    patches: list[Patch] = Field(description="Patches with mass, in descending order of mass.")


class ExplanationAnswer(Answer):
    """Prediction and transport maps of one image."""

    path: str = Field(description="File name, as sent.")
    width: int = Field(description="Width of the upright image, in pixels.")
    height: int
    seen: tuple[float, float, float, float] = Field(
        description="Left, top, right, bottom of the part of the image that the model sees after cropping."
    )
    ood_score: float
    ood_method: str
    ood_temperature: float
    threshold: float | None
    is_unknown: bool | None
    classes: list[ExplainedClass]
    probabilities: dict[str, float] = Field(description="Probability of every class.")


class ClassAdded(Answer):
    """Classes after one was added."""

    classes: list[str]
    added: str
    recalibration: str = Field("", description="How the calibration was repeated; empty without one.")


class ClassRemoved(Answer):
    """Classes after one was removed."""

    classes: list[str]
    removed: str
    recalibration: str = Field("", description="How the calibration was repeated; empty without one.")


def predictions_csv(predictions: Sequence[Prediction | Unreadable]) -> str:
    """Return a CSV table with one row per image; an unreadable image has a name and empty cells."""
    rows: list[list[object]] = []
    for one in predictions:
        if isinstance(one, Unreadable):
            rows.append([one.name, None, None, None, None])
        else:
            label = UNKNOWN if one.is_unknown else one.label
            rows.append([one.name, label, one.probability, one.ood_score, one.is_unknown])
    return csv_table(PREDICTION_COLUMNS, rows)
