"""Posts without a label: what is predicted of them, and which to label next."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmsent.data.dataset import Dataset
from mmsent.errors import RunError
from mmsent.features.cache import NO_LABEL, Cache
from mmsent.inference.useful import useful_order
from mmsent.inference.vote import vote_split
from mmsent.training.runs import Run

pytest.importorskip("fastapi")

from mmsent.report.gallery import Row
from mmsent.serve.review import Review, waiting_rows
from tests.serve.test_app import client_of, runs, world  # noqa: F401

SHARES = [[0.4, 0.3, 0.3], [0.9, 0.05, 0.05], [0.34, 0.33, 0.33], [0.6, 0.2, 0.2], [1.0, 0.0, 0.0]]


@pytest.fixture(scope="module")
def cache(runs: list[Run]) -> Cache:  # noqa: F811
    return Cache.open(Path(runs[0].info["cache"]["path"]))


def bare(name: str, shares: list[float]) -> Row:
    return Row(name, None, "a", shares[0], dict(zip("abc", shares, strict=True)), {})


def test_posts_without_a_label_come_in_the_order_of_their_use(
    cache: Cache,
    runs: list[Run],  # noqa: F811
    world: tuple[Dataset, dict[str, Run]],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids = [post.id for post in world[0].of("train")][:5]
    allowed = {*ids, "not in the cache"}
    monkeypatch.setattr("mmsent.serve.review.correctable", lambda _: allowed)
    rows = [Row("known", "a", "a", 1.0, {"a": 1.0, "b": 0.0, "c": 0.0}, {}), bare("not in the cache", SHARES[0])]
    rows += [bare(name, shares) for name, shares in zip(reversed(ids), SHARES, strict=True)]
    found = cache.load("train")
    halves = [half / np.linalg.norm(half, axis=1, keepdims=True) for half in (found.image[:5, 0], found.text[:5])]
    order = useful_order(np.array(SHARES[::-1]), np.concatenate(halves, axis=1), 5)
    review = Review(rows, world[0], cache=cache)
    with client_of(runs, review=lambda: review) as client:
        assert client.get("/review/rows").json()["useful"] is True
        said = client.get("/review/useful").json()
    assert said == [ids[i] for i in order]
    assert said[0] == ids[2]  # the least sure
    allowed.clear()
    for other in (Review(rows, world[0], cache=cache), Review(rows, world[0]), Review(rows[:1], world[0], cache=cache)):
        assert (other.page()["useful"], other.useful) == (False, [])
    allowed.add("not in the cache")
    assert Review(rows[:2], world[0], cache=cache).useful == []


def test_what_the_cache_holds_without_a_label_waits(
    cache: Cache,
    runs: list[Run],  # noqa: F811
    world: tuple[Dataset, dict[str, Run]],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = world[0]
    assert waiting_rows(cache, runs, data) == []  # the test posts without a label stay test posts
    whole = Cache.index

    def index(self: Cache, split: str, **more: Any) -> Any:
        found = whole(self, split, **more)
        return replace(found, labels=np.where(np.arange(len(found)) < 3, NO_LABEL, found.labels))

    monkeypatch.setattr(Cache, "index", index)
    rows, voted = waiting_rows(cache, runs, data), vote_split(runs, cache, "train")
    assert [(row.id, row.label, row.predicted) for row in rows] == [
        (name, None, said) for name, said in zip(voted.ids[:3], voted.predicted[:3], strict=True)
    ]
    assert rows[0].heads == {run.name: said[0] for run, said in zip(runs, voted.choices, strict=True)}
    assert list(rows[0].probabilities.values()) == pytest.approx(voted.probabilities[0].tolist())

    def broken(*_: Any, **__: Any) -> Any:
        raise RunError("these runs do not fit")

    monkeypatch.setattr("mmsent.serve.review.vote_split", broken)
    assert waiting_rows(cache, runs, data) == []
