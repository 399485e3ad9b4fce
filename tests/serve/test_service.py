"""A service that leaves posts to a person, and what its page is told of it."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from mmsent.data.dataset import Dataset
from mmsent.evaluation.compare import compare_runs
from mmsent.inference.abstain import Abstention
from mmsent.inference.held_out import held_out
from mmsent.inference.tally import Way
from mmsent.serve.app import create_app
from mmsent.serve.limits import Limits
from mmsent.serve.review import Review, validation_rows
from mmsent.serve.service import Service
from mmsent.training.runs import Run
from tests.helpers.fake import fake_encoders
from tests.serve.test_app import BASE, as_json, posts_of, runs, world  # noqa: F401


@pytest.mark.parametrize("sets", [False, True])
def test_answers_and_info_say_what_is_uncertain(
    runs: list[Run],  # noqa: F811
    world: tuple[Dataset, dict[str, Run]],  # noqa: F811
    sets: bool,
) -> None:
    rows = held_out(runs)
    when = Abstention.of(rows, runs[0].labels, Way.of(runs[0].labels, None, False), 0.6, sets=sets)
    service = Service(runs, Limits(), abstention=when, opener=lambda _: fake_encoders())
    posts = [as_json(post, id=post.id) for post in posts_of(world[0])]
    with TestClient(create_app(service), base_url=BASE) as client:
        found = client.post("/predict", json={"posts": posts}).json()["predictions"]
        info = client.get("/info").json()
    for one in found:
        p = one["probabilities"]
        assert one["voted"] in runs[0].labels
        assert one["label"] == when.answer(one["voted"], [p[name] for name in runs[0].labels])
    assert info["abstain"] == when.to_json()
    assert [part["coverage"] for part in info["coverage"]] == [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]


def test_without_abstention_every_post_has_its_label(runs: list[Run], world: tuple[Dataset, dict[str, Run]]) -> None:  # noqa: F811
    service = Service(runs, Limits(), opener=lambda _: fake_encoders())
    with TestClient(create_app(service), base_url=BASE) as client:
        one = client.post("/predict", json=as_json(posts_of(world[0])[0])).json()
        info = client.get("/info").json()
    assert (one["voted"], info["abstain"]) == (None, None)
    assert one["label"] in runs[0].labels


def test_two_served_runs_side_by_side(runs: list[Run], world: tuple[Dataset, dict[str, Run]]) -> None:  # noqa: F811
    rows, shared = validation_rows(runs)
    review = Review(rows, world[0], runs=[run.name for run in shared])
    app = create_app(Service(runs, Limits(), opener=lambda _: fake_encoders()), review=lambda: review)
    names = {"a": runs[0].name, "b": runs[1].name}
    with TestClient(app, base_url=BASE) as client:
        found = client.get("/compare/runs", params=names).json()
        assert client.get("/compare").status_code == 200
        same = client.get("/compare/runs", params=names | {"b": runs[0].name})
        unknown = client.get("/compare/runs", params=names | {"b": "x"})
    wanted = compare_runs(runs[0], runs[1]).to_json()
    sides = ("only_a", "only_b")
    assert {k: v for k, v in found.items() if k not in sides} == {k: v for k, v in wanted.items() if k not in sides}
    for side in sides:
        assert [case["id"] for case in found[side]] == [case["id"] for case in wanted[side]]
        assert all(rows[case["row"]].id == case["id"] and case["picture"] for case in found[side])
    assert (same.status_code, unknown.status_code) == (422, 422)
    assert "compared with itself" in same.json()["detail"]
