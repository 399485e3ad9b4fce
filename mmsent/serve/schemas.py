"""What requests and answers look like; the API's own description is made from these."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Probabilities = Annotated[dict[str, float], Field(description="a probability by label; they sum to 1")]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PostIn(_In):
    """A post: a text, an image, or both. Heads that need both refuse a post with only one."""

    id: Annotated[str, Field(max_length=255)] | None = Field(None, description="returned with the answer")
    text: str | None = Field(None, description="the post's text", examples=["What a day!"])
    image: str | None = Field(
        None,
        description="the bytes of the image file in base64, or a data URL: JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF",
        json_schema_extra={"contentEncoding": "base64"},
    )


class PostsIn(_In):
    """Several posts."""

    posts: list[PostIn] = Field(min_length=1)


class _Out(BaseModel):
    model_config = ConfigDict(extra="forbid")


class HeadAnswer(_Out):
    """The answer of one head."""

    run: str = Field(description="the run's name")
    fusion: str = Field(description="how the head joins image and text")
    label: str | None = Field(description="the most likely label; null if the head cannot label the post")
    probabilities: Probabilities
    weights: dict[str, float] | None = Field(
        description="the shares of image and text in what the head reads; null for heads without such weights"
    )


class Answer(_Out):
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


class Answers(_Out):
    """Labelled posts, in the order of the request."""

    predictions: list[Answer]


class Word(_Out):
    """How a word changes the label's logit."""

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
    """How much the logit falls when a window covers a place."""

    grid: list[int]
    peak: list[int]
    values: list[list[float]]


class PicturePart(_Out):
    """Maps over the image as the encoder saw it."""

    size: int
    window: int
    stride: int
    grad_cam: list[Map]
    occlusion: Occlusion | None
    seen: str = Field(description="the image as the encoder saw it, a data URL")


class Shares(_Out):
    """How much the logit falls without the image and without the text: a positive value supports the label, a negative
    one opposes it."""

    image: float
    text: float


class ExplanationOut(_Out):
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


class Problem(_Out):
    """Why there is no answer."""

    detail: str


class Health(_Out):
    """Whether the service works."""

    status: str
    version: str
    waiting: int = Field(description="posts accepted and not answered yet")


class Head(_Out):
    """A head of the service."""

    run: str
    fusion: str
    halves: list[str] = Field(description="which of image and text it reads")
    needs_both: bool
    calibrated: bool


class Abstains(_Out):
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


class Part(_Out):
    """The surest part of the validation posts."""

    coverage: float = Field(description="which share of the posts it is")
    accuracy: float = Field(description="how many of them are labelled correctly")
    least: float = Field(description="the lowest confidence among them")


class Info(_Out):
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


class ReviewRow(_Out):
    """A post and what is predicted for it; null, without probabilities, where nothing is. row: its place."""

    row: int
    id: str
    label: str | None
    predicted: str | None
    confidence: float
    probabilities: dict[str, float]
    heads: dict[str, str]
    decision: str = Field(description="why the prediction is not the label with the highest probability")
    marked: bool = Field(description="whether an audit marks it")
    picture: bool
    correctable: bool


class ReviewPage(_Out):
    """All posts of the review."""

    digest: str = Field(description="names the data set")
    table: str = Field(description="the name of the table; empty when the runs' validation rows are reviewed")
    runs: list[str] = Field(description="the runs that these validation rows belong to")
    posts: bool = Field(description="whether the data set is available")
    fresh: bool = Field(description="whether the data set has no list, so that /review/list writes its first")
    useful: bool = Field(description="whether /review/useful has an order of its posts")
    rows: list[ReviewRow]


class Setting(_Out):
    """A setting that two runs do not share; null where a run does not have it."""

    name: str
    a: Any
    b: Any


class Gap(_Out):
    """A score of two runs, how far b lies above a, and the 95% interval of that."""

    measure: str
    a: float
    b: float
    difference: float
    low: float
    high: float


class Case(_Out):
    """A post that only one of two runs has right. row: its place in the review; null where it is not there."""

    id: str
    label: str
    a: str
    b: str
    row: int | None
    text: str
    picture: bool


class Compared(_Out):
    """Two runs side by side, on the posts that both validated on."""

    a: str
    b: str
    rows: int
    others: int = Field(description="posts that only one of them validated on; they are left out")
    settings: list[Setting]
    gaps: list[Gap]
    p_value: float = Field(description="of McNemar's exact test")
    only_a: list[Case]
    only_b: list[Case]


class MapPoints(_Out):
    """All posts of the cache as points: x and y as base64 of little-endian float32, the others as base64 of bytes, 255
    for none."""

    method: str = Field(description="UMAP or PCA")
    labels: list[str]
    ids: list[str]
    heads: int
    useful: bool = Field(description="whether /review/useful has an order of its posts")
    x: str
    y: str
    label: str = Field(description="the known label, its place in `labels`; test labels stay closed")
    predicted: str
    confidence: str = Field(description="0 to 255")
    split: str = Field(description="0: train, 1: validation, 2: test")
    agreeing: str = Field(description="how many heads chose the prediction")


class MapNeighbour(_Out):
    """A similar post: its row in the map, the cosine of the features, the beginning of its text."""

    row: int
    similarity: float
    text: str


class MapPost(_Out):
    """A post of the map. review: its row there; null where it is not."""

    row: int
    text: str
    picture: bool
    review: int | None
    near: list[MapNeighbour]


class CorrectionsIn(_In):
    """Corrected labels by post id."""

    corrections: dict[str, str] = Field(min_length=1)


class LabelsIn(_In):
    """All labels that somebody gave, by post id."""

    person: str = Field(min_length=1, max_length=60)
    labels: dict[str, str]


class PairOut(_Out):
    """Two people."""

    a: str
    b: str
    kappa: float | None = Field(description="Cohen's kappa; null without a post that both have labelled")


class AgreementOut(_Out):
    """How far people agree."""

    people: list[str]
    posts: int = Field(description="posts that all of them have labelled")
    cohen: list[PairOut]
    fleiss: float | None = Field(description="Fleiss' kappa of all; null without a post")
    conflicts: dict[str, dict[str, str]] = Field(description="posts with several labels: each person's")


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
