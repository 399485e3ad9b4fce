"""What requests and answers look like; the API's own description is made from these."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Order = Literal["unsure", "sure", "disagreement", "doubtful", "listed"]
Only = Literal["all", "wrong", "split"]
Probabilities = Annotated[dict[str, float], Field(description="a probability by label; they sum to 1")]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PostIn(_In):
    """A post. Give a text or a picture, or both; heads that need both halves refuse a post with one."""

    id: Annotated[str, Field(max_length=255)] | None = Field(None, description="comes back with the answer")
    text: str | None = Field(None, description="the post's text", examples=["What a day!"])
    image: str | None = Field(
        None,
        description="the picture file's bytes in base64, or a data URL: JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF",
        json_schema_extra={"contentEncoding": "base64"},
    )


class PostsIn(_In):
    """Several posts."""

    posts: list[PostIn] = Field(min_length=1)


class _Out(BaseModel):
    model_config = ConfigDict(extra="forbid")


class HeadAnswer(_Out):
    """What one head says."""

    run: str = Field(description="the run's name")
    fusion: str = Field(description="how the head joins picture and text")
    label: str | None = Field(description="its likeliest label; null where it cannot label such a post")
    probabilities: Probabilities
    weights: dict[str, float] | None = Field(
        description="how much of what the head reads is image and text; null for heads without such weights"
    )


class Answer(_Out):
    """A labelled post: all that `mmsent predict --json` prints, and each head's probabilities."""

    id: str
    label: str | None = Field(description="the vote's label; null where no head can label the post")
    probabilities: Probabilities
    heads: dict[str, str] = Field(description="each voting run's label")
    agreeing: int = Field(description="how many heads are behind the label")
    problem: str = Field(description="what was wrong with a half of the post; empty where nothing was")
    calibrated: bool = Field(description="whether the probabilities are calibrated")
    by_head: list[HeadAnswer]


class Answers(_Out):
    """Labelled posts, in the order of the request."""

    predictions: list[Answer]


class Word(_Out):
    """What a word does for the label's logit."""

    word: str
    grad_cam: float
    gradient: float
    gradient_norm: float
    integrated: float
    occlusion: float


class TextPart(_Out):
    """The words of the text as the encoder read it."""

    text: str
    words: list[Word]
    correlations: dict[str, float | None]
    delta: float
    tokens: int
    cut: bool


class Map(_Out):
    """Grad-CAM at one layer: rows of shares of the maximum."""

    layer: str
    grid: list[int]
    peak: list[int]
    maximum: float
    correlation: float | None
    values: list[list[float]]


class Occlusion(_Out):
    """Loss of logit where a window covers a place."""

    grid: list[int]
    peak: list[int]
    values: list[list[float]]


class PicturePart(_Out):
    """Maps over the picture as the encoder saw it."""

    size: int
    window: int
    stride: int
    grad_cam: list[Map]
    occlusion: Occlusion | None
    seen: str = Field(description="the picture as the encoder saw it, a data URL")


class Shares(_Out):
    """Loss of logit without the picture, without the text, and the picture's share of both."""

    image: float
    text: float
    image_share: float | None


class ExplanationOut(_Out):
    """Why one head says what it says of a post; what `mmsent explain --json` prints, and the picture that was seen."""

    id: str
    run: str
    fusion: str
    label: str
    target: str
    logit: float
    probabilities: Probabilities
    temperature: float | None
    difference: float
    problem: str
    missing: list[str]
    modality: Shares
    picture: PicturePart | None
    text: TextPart | None


class Problem(_Out):
    """Why there is no answer."""

    detail: str


class Health(_Out):
    """Whether the service works."""

    status: str
    version: str
    waiting: int = Field(description="posts taken and not answered yet")


class Head(_Out):
    """A head of the service."""

    run: str
    fusion: str
    halves: list[str] = Field(description="the halves it reads")
    needs_both: bool
    calibrated: bool


class Example(_Out):
    """A drawn post to try."""

    image: str
    text: str


class Info(_Out):
    """What the service serves."""

    version: str
    encoder: str
    data: str = Field(description="the name of the data set that the heads learned from")
    labels: list[str]
    colours: dict[str, str]
    heads: list[Head]
    calibrated: bool
    max_text: int
    max_body: int
    max_pixels: int
    max_posts: int
    examples: list[Example]
    review: bool
    key: bool = Field(description="whether a key is needed")


class ReviewRow(_Out):
    """A reviewed prediction. row: its place in the table."""

    row: int
    id: str
    label: str | None
    predicted: str
    confidence: float
    probabilities: Probabilities
    heads: dict[str, str]
    agreeing: int | None
    text: str | None
    picture: bool
    correctable: bool


class ReviewPage(_Out):
    """A part of the reviewed predictions. total: rows in all; matching: those that pass the filter."""

    digest: str = Field(description="changes with the predictions")
    table: str = Field(description="the file's name; empty where the runs' validation rows are reviewed")
    runs: list[str] = Field(description="the runs whose validation rows these are")
    total: int
    matching: int
    rows: list[ReviewRow]


class CorrectionsIn(_In):
    """Corrected labels by post id."""

    corrections: dict[str, str] = Field(min_length=1)


def form_schema() -> dict[str, Any]:
    """The multipart form of one or several posts."""
    return {
        "type": "object",
        "description": "Parts called text and image. Repeat both, in the same order, for several posts.",
        "properties": {
            "text": {"type": "array", "items": {"type": "string"}},
            "image": {"type": "array", "items": {"type": "string", "format": "binary"}},
        },
        "additionalProperties": False,
    }
