"""What requests and answers of the endpoints behind the pages look like: review, comparison and map."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from mmsent.serve.schemas import Exact


class ReviewRow(Exact):
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


class ReviewPage(Exact):
    """All posts of the review."""

    digest: str = Field(description="names the data set")
    table: str = Field(description="the name of the table; empty when the runs' validation rows are reviewed")
    runs: list[str] = Field(description="the runs that these validation rows belong to")
    posts: bool = Field(description="whether the data set is available")
    fresh: bool = Field(description="whether the data set has no list, so that /review/list writes its first")
    useful: bool = Field(description="whether /review/useful has an order of its posts")
    rows: list[ReviewRow]


class Setting(Exact):
    """A setting that two runs do not share; null where a run does not have it."""

    name: str
    a: Any
    b: Any


class Gap(Exact):
    """A score of two runs, how far b lies above a, and the 95% interval of that."""

    measure: str
    a: float
    b: float
    difference: float
    low: float
    high: float


class Case(Exact):
    """A post that only one of two runs has right. row: its place in the review; null where it is not there."""

    id: str
    label: str
    a: str
    b: str
    row: int | None
    text: str
    picture: bool


class Compared(Exact):
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


class MapPoints(Exact):
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


class MapNeighbour(Exact):
    """A similar post: its row in the map, the cosine of the features, the beginning of its text."""

    row: int
    similarity: float
    text: str


class MapPost(Exact):
    """A post of the map. review: its row there; null where it is not."""

    row: int
    text: str
    picture: bool
    review: int | None
    near: list[MapNeighbour]


class CorrectionsIn(Exact):
    """Corrected labels by post id."""

    corrections: dict[str, str] = Field(min_length=1)


class LabelsIn(Exact):
    """All labels that somebody gave, by post id."""

    person: str = Field(min_length=1, max_length=60)
    labels: dict[str, str]


class PairOut(Exact):
    """Two people."""

    a: str
    b: str
    kappa: float | None = Field(description="Cohen's kappa; null without a post that both have labelled")


class AgreementOut(Exact):
    """How far people agree."""

    people: list[str]
    posts: int = Field(description="posts that all of them have labelled")
    cohen: list[PairOut]
    fleiss: float | None = Field(description="Fleiss' kappa of all; null without a post")
    conflicts: dict[str, dict[str, str]] = Field(description="posts with several labels: each person's")
