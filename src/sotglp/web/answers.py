"""What the API answers, field by field."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Answer(BaseModel):
    """A JSON object with these fields and no others."""

    model_config = ConfigDict(extra="forbid")


class ErrorAnswer(Answer):
    """Why a request was refused."""

    error: str = Field(description="One sentence that says what is wrong and what to do.")

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {"error": "can't read leaf.jpg: it is empty; replace it or leave it out"},
        },
    )


class Health(Answer):
    """The server is up, and what it serves."""

    status: Literal["ok"]
    version: str = Field(description="Version of sotglp.")
    model: str = Field(description="Name of the model file.")
    kind: str = Field(description="Kind of model.", examples=["sot-glp"])
    backbone: str = Field(description="Architecture of the backbone.", examples=["ViT-B-16"])
    n_classes: int = Field(ge=2)
    device: str = Field(examples=["cpu"])


class LimitsAnswer(Answer):
    """Bounds on one request."""

    max_image_bytes: int
    max_images: int
    max_seconds: float
    max_pixels: int


class ModelAnswer(Answer):
    """The model as it is served now."""

    classes: list[str] = Field(description="Names of its classes, in its order.", examples=[["oak", "wren"]])
    added: list[str] = Field(description="Those that were added since the server started.")
    kind: str
    has_maps: bool = Field(description="Whether /explain can tell where it looked.")
    n_prompts: int = Field(description="Local prompts of a class; 0 without maps.")
    calibrated: bool
    tpr: float | None = Field(description="Share of images of the classes that the threshold is to let pass.")
    ood_method: str = Field(description="Kind of the in-distribution score.", examples=["gl-mcm"])
    threshold: float | None = Field(description="Images that score lower are unknown.")
    can_add_classes: bool
    changed: bool = Field(description="Whether classes were added, so that the calibration is gone.")
    limits: LimitsAnswer


class Prediction(Answer):
    """What the model says of one image."""

    name: str = Field(description="Name of the file, as it was sent.", examples=["garden.jpg"])
    label: str = Field(description="The most probable class.", examples=["wren"])
    probability: float = Field(ge=0, le=1, description="Of that class, at the calibrated temperature.")
    ood_score: float = Field(description="Larger is more like the classes.")
    is_unknown: bool | None = Field(
        description="Whether the score is below the threshold; null without calibration, or if it was not asked for."
    )
    probabilities: dict[str, float] = Field(description="Of every class.", examples=[{"oak": 0.1, "wren": 0.9}])


class Unreadable(Answer):
    """An image that can't be read."""

    name: str
    error: str


class Predictions(Answer):
    """What the model says of each image, in the order of the upload."""

    predictions: list[Prediction | Unreadable]


class Patch(Answer):
    """One patch of the support."""

    row: int
    column: int
    box: tuple[float, float, float, float] = Field(description="Left, top, right, bottom in pixels of the picture.")
    mass: list[float] = Field(description="Share of its mass that each local prompt puts here.")


class ExplainedClass(Answer):
    """What speaks for one class."""

    label: str
    probability: float
    global_score: float = Field(description="Mean cosine of the image with the global prompts.")
    local_score: float = Field(description="Transported cosine of its patches with the local prompts.")
    n_prompts: int
    patches: list[Patch] = Field(description="Those that some prompt took, the most taken first.")


class ExplanationAnswer(Answer):
    """What the model says of one image, and where it looked."""

    path: str = Field(description="Name of the file, as it was sent.")
    width: int = Field(description="Of the upright picture, in pixels.")
    height: int
    seen: tuple[float, float, float, float] = Field(
        description="Left, top, right, bottom of the part of the picture that the model saw."
    )
    ood_score: float
    ood_method: str
    ood_temperature: float
    threshold: float | None
    is_unknown: bool | None
    classes: list[ExplainedClass]
    probabilities: dict[str, float] = Field(description="Of every class.")


class ClassAdded(Answer):
    """The classes after one was added."""

    classes: list[str]
    added: str


class ClassRemoved(Answer):
    """The classes after one was removed."""

    classes: list[str]
    removed: str
