"""What requests and answers look like; the API's own description is made from these and from page_schemas.py."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Probabilities = Annotated[dict[str, float], Field(description="a probability by label; they sum to 1")]


class Exact(BaseModel):
    """The base of all: other fields are refused."""

    model_config = ConfigDict(extra="forbid")


class PostIn(Exact):
    """A post: a text, an image, or both. Heads that need both refuse a post with only one."""

    id: Annotated[str, Field(max_length=255)] | None = Field(None, description="returned with the answer")
    text: str | None = Field(None, description="the post's text", examples=["What a day!"])
    image: str | None = Field(
        None,
        description="the bytes of the image file in base64, or a data URL: JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF",
        json_schema_extra={"contentEncoding": "base64"},
    )


class PostsIn(Exact):
    """Several posts."""

    posts: list[PostIn] = Field(min_length=1)


class HeadAnswer(Exact):
    """The answer of one head."""

    run: str = Field(description="the run's name")
    fusion: str = Field(description="how the head joins image and text")
    label: str | None = Field(description="the most likely label; null if the head cannot label the post")
    probabilities: Probabilities
    weights: dict[str, float] | None = Field(
        description="the shares of image and text in what the head reads; null for heads without such weights"
    )


class Answer(Exact):
    """A labelled post: what `mmsent predict --json` prints, and each head's probabilities."""

    id: str
    label: str | None = Field(
        description="the label that won the vote; null if no head can label the post; where the service abstains, "
        "`uncertain` or the labels that can be it, joined by |"
    )
    probabilities: Probabilities
    heads: dict[str, str] = Field(description="the label of each voting run")
    agreeing: int = Field(description="how many heads chose the label")
    problem: str = Field(
        description="what is wrong with the image or the text, such as an end that the encoder does not read; empty if "
        "nothing is"
    )
    voted: str | None = Field(description="the label that won the vote, where the service abstains; else null")
    decision: str = Field(
        description="why the label is not the one with the highest probability, such as `no majority: neutral by "
        "rule`; empty if it is"
    )
    calibrated: bool = Field(description="whether the probabilities are calibrated")
    by_head: list[HeadAnswer]


class Answers(Exact):
    """Labelled posts, in the order of the request."""

    predictions: list[Answer]


class Word(Exact):
    """How a word changes the label's logit."""

    word: str
    grad_cam: float
    gradient: float
    gradient_norm: float
    integrated: float
    occlusion: float


class TextPart(Exact):
    """The words of the text as the encoder read it."""

    text: str
    words: list[Word]
    correlations: dict[str, float | None]
    delta: float
    tokens: int
    cut: bool


class Map(Exact):
    """Grad-CAM at one layer: rows of shares of the maximum."""

    layer: str
    grid: list[int]
    peak: list[int]
    maximum: float
    correlation: float | None
    values: list[list[float]]


class Occlusion(Exact):
    """How much the logit falls when a window covers a place."""

    grid: list[int]
    peak: list[int]
    values: list[list[float]]


class PicturePart(Exact):
    """Maps over the image as the encoder saw it."""

    size: int
    window: int
    stride: int
    grad_cam: list[Map]
    occlusion: Occlusion | None
    seen: str = Field(description="the image as the encoder saw it, a data URL")


class Shares(Exact):
    """How much the logit falls without the image and without the text: a positive value supports the label, a negative
    one opposes it."""

    image: float
    text: float


class ExplanationOut(Exact):
    """Why one head gives a post its label: what `mmsent explain --json` prints, and the image that the encoder saw."""

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
    cam_of: str = Field(description="what Grad-CAM differentiates: the label's logit, or the loss")
    modality: Shares
    picture: PicturePart | None
    text: TextPart | None


class Problem(Exact):
    """Why there is no answer."""

    detail: str


class Health(Exact):
    """Whether the service works."""

    status: str
    version: str
    waiting: int = Field(description="posts accepted and not answered yet")


class Head(Exact):
    """A head of the service."""

    run: str
    fusion: str
    halves: list[str] = Field(description="which of image and text it reads")
    needs_both: bool
    calibrated: bool


class Abstains(Exact):
    """When the service leaves a post to a person, and what it promises of the others."""

    level: float = Field(description="the share of errors that is promised")
    labels: list[str]
    least: float = Field(description="the confidence from which on a post is labelled; above 1: none is")
    bounds: list[float] = Field(description="per label the probability from which on it is in a set; empty: no sets")
    rows: int = Field(description="the validation rows that this comes from")
    answered: int = Field(description="how many of them would be labelled")
    wrong: int = Field(description="how many of those would be wrong")
    lowest: float = Field(description="the smallest level at which any of the rows is labelled")
    whole: bool = Field(description="whether every head voted on each of the rows")
    shared: list[str] = Field(description="labels with too few rows for a bound of their own")


class Part(Exact):
    """The surest part of the validation posts."""

    coverage: float = Field(description="which share of the posts it is")
    accuracy: float = Field(description="how many of them are labelled correctly")
    least: float = Field(description="the lowest confidence among them")


class Info(Exact):
    """What the service serves."""

    version: str
    encoder: str
    data: str = Field(description="the name of the data set that the heads were trained on")
    labels: list[str]
    colours: dict[str, str]
    heads: list[Head]
    calibrated: bool
    abstain: Abstains | None = Field(description="null: every post is labelled")
    coverage: list[Part] = Field(description="how accurate the surest validation posts are; empty if none are kept")
    max_text: int
    max_body: int
    max_pixels: int
    max_posts: int
    review: bool
    key: bool = Field(description="whether a key is needed")


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
