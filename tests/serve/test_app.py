"""The service in this process: the answers of `mmsent predict`, whatever the batch, and a reason for every refusal."""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import json
import re
import shutil
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from mmsent.cli.main import main
from mmsent.config import (
    DataSettings,
    EncoderSettings,
    ExtractSettings,
    FitSettings,
    Fusion,
    SplitSettings,
    ViewSettings,
    settings,
)
from mmsent.data.corrections import corrected_list
from mmsent.data.dataset import Dataset, load_dataset
from mmsent.errors import DataError, RunError, UsageError
from mmsent.features.engine import LocalEngine
from mmsent.features.extract import extract
from mmsent.features.new_posts import NewPost
from mmsent.inference.explain import Explanation, Modality
from mmsent.inference.predict import predict
from mmsent.inference.tally import Way, tally
from mmsent.inference.tuned import run_blocks
from mmsent.training.fit import fit
from mmsent.training.prediction_table import predictions_csv
from mmsent.training.runs import Run
from tests.helpers.fake import fake_encoders
from tests.helpers.fake_cache import fake_cache
from tests.helpers.made import make_guid, make_manifest
from tests.helpers.tuned import tuned_world

pytest.importorskip("fastapi")
from fastapi.testclient import TestClient

from mmsent.report.gallery import Row
from mmsent.serve import page_schemas, schemas
from mmsent.serve.app import create_app
from mmsent.serve.batching import Batcher
from mmsent.serve.guard import HEADERS, is_loopback
from mmsent.serve.limits import Limits
from mmsent.serve.queueing import Admission
from mmsent.serve.requests import Refused, parse, parse_json
from mmsent.serve.review import Review, read_table, unlabelled_rows, validation_rows
from mmsent.serve.service import NoHeads, Service

QUICK: dict[str, Any] = {"epochs": 3, "lr": 1e-2, "hidden": 16, "common_width": 16, "heads": 4}
NAMES = ("concat", "weighted", "attention", "half")
BASE = "http://localhost:8000"
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, dict[str, Run]]:
    """A data set, and runs on it by name; `half` labels posts that lack a half."""
    folder = tmp_path_factory.mktemp("serve")
    data = load_dataset(make_guid(folder / "posts", n_train=40, n_test=12, size=40))
    cache = fake_cache(data, folder / "cache")
    wanted = [FitSettings(**QUICK, fusion=Fusion(name)) for name in NAMES[:3]]
    wanted.append(FitSettings(**QUICK, fusion=Fusion.concat, modality_dropout=0.4))
    done = fit(cache, folder / "runs", wanted, SplitSettings())
    return data, dict(zip(NAMES, done, strict=True))


@pytest.fixture(scope="module")
def runs(world: tuple[Dataset, dict[str, Run]]) -> list[Run]:
    return [world[1][name] for name in NAMES[:3]]


def posts_of(data: Dataset, split: str = "test") -> list[NewPost]:
    return [NewPost(post.id, data.text_of(post), post.image) for post in data.posts if post.split == split]


def service_of(runs: list[Run], **limits: Any) -> Service:
    return Service(runs, Limits(**limits), opener=lambda _: fake_encoders())


def client_of(runs: list[Run], *, limits: dict[str, Any] | None = None, **more: Any) -> TestClient:
    app = create_app(service_of(runs, **(limits or {})), **more)
    return TestClient(app, base_url=BASE, raise_server_exceptions=False)


@pytest.fixture(scope="module")
def client(runs: list[Run]) -> Iterator[TestClient]:
    with client_of(runs) as opened:
        yield opened


def as_json(post: NewPost, **more: Any) -> dict[str, Any]:
    assert isinstance(post.image, Path)
    return {"text": post.text, "image": base64.b64encode(post.image.read_bytes()).decode(), **more}


def close_to(found: dict[str, Any], wanted: Any) -> None:
    assert found["label"] == wanted.label
    assert found["heads"] == wanted.heads
    assert found["agreeing"] == wanted.agreeing
    assert found["problem"] == wanted.problem
    assert found["decision"] == wanted.decision
    assert found["probabilities"] == pytest.approx(wanted.probabilities, abs=1e-5)


# --- answers


def test_json_and_forms_one_and_many_are_answered_as_predict_answers(
    client: TestClient, runs: list[Run], world: tuple[Dataset, dict[str, Run]]
) -> None:
    posts = posts_of(world[0])
    wanted = predict(posts, runs, encoders=fake_encoders())
    one = client.post("/predict", json=as_json(posts[0], id="mine"))
    assert one.status_code == 200
    schemas.Answer.model_validate(one.json())
    assert one.json()["id"] == "mine"
    close_to(one.json(), wanted[0])
    many = client.post("/predict", json={"posts": [as_json(post) for post in posts]}).json()
    schemas.Answers.model_validate(many)
    assert [found["id"] for found in many["predictions"]] == [str(i + 1) for i in range(len(posts))]
    files = [("image", (post.image.name, post.image.read_bytes())) for post in posts]  # type: ignore[union-attr]
    form = client.post("/predict", files=files, data={"text": [post.text for post in posts]}).json()
    for found, again, want in zip(many["predictions"], form["predictions"], wanted, strict=True):
        close_to(found, want)
        close_to(again, want)
    single = client.post("/predict", files=files[:1], data={"text": posts[0].text})
    close_to(single.json(), wanted[0])
    assert len({found["label"] for found in many["predictions"]}) > 1


def test_what_the_encoder_does_not_read_of_a_text_is_said(
    client: TestClient, world: tuple[Dataset, dict[str, Run]]
) -> None:
    post = posts_of(world[0])[0]
    long = client.post("/predict", json={**as_json(post), "text": "word " * 30}).json()
    assert long["label"] is not None
    assert long["problem"] == "the text encoder reads 12 of the text's 30 tokens, not its end"
    strange = client.post("/predict", json={**as_json(post), "text": "п о г о д а"}).json()
    assert strange["problem"].endswith("its words fall apart into single letters")


def test_each_head_is_shown_with_its_own_probabilities_and_weights(
    client: TestClient, runs: list[Run], world: tuple[Dataset, dict[str, Run]]
) -> None:
    post = posts_of(world[0])[0]
    found = client.post("/predict", json=as_json(post)).json()
    alone = [predict([post], [run], encoders=fake_encoders())[0] for run in runs]
    for head, run, want in zip(found["by_head"], runs, alone, strict=True):
        assert (head["run"], head["fusion"], head["label"]) == (run.name, run.fusion.value, want.label)
        assert head["probabilities"] == pytest.approx(want.probabilities, abs=1e-5)
    concat, weighted, attention = (head["weights"] for head in found["by_head"])
    assert concat is None
    logits = runs[1].head().weight_logits.softmax(dim=0).tolist()
    assert [weighted["image"], weighted["text"]] == pytest.approx(logits, abs=1e-5)
    assert attention["image"] + attention["text"] == pytest.approx(1, abs=1e-5)


def test_a_missing_half_is_answered_where_the_head_allows_it(world: tuple[Dataset, dict[str, Run]]) -> None:
    data, known = world
    post = posts_of(data)[0]
    text_only = replace(post, image=None)
    with client_of([known["half"]]) as client:
        wanted = predict([text_only], [known["half"]], encoders=fake_encoders())[0]
        close_to(client.post("/predict", json={"text": post.text}).json(), wanted)
        assert wanted.problem == "no picture"
        broken = client.post("/predict", json={"text": post.text, "image": "AAAA"}).json()
        assert broken["problem"].startswith("not a picture")
        assert broken["probabilities"] == pytest.approx(wanted.probabilities, abs=1e-5)


def test_a_missing_half_is_refused_where_the_heads_need_both(
    client: TestClient, world: tuple[Dataset, dict[str, Run]]
) -> None:
    post = posts_of(world[0])[0]
    alone = client.post("/predict", json={"text": post.text})
    assert alone.status_code == 422
    assert alone.json()["detail"].startswith("no picture; these heads need both image and text")
    among = client.post("/predict", json={"posts": [{"text": "a"}, as_json(post)]})
    assert among.status_code == 200
    first, second = among.json()["predictions"]
    assert (first["label"], first["heads"], first["by_head"][0]["probabilities"]) == (None, {}, {})
    assert first["problem"].startswith("no picture; ")
    assert second["label"] is not None


def test_answers_under_load_are_those_of_predict_and_go_in_batches(
    runs: list[Run], world: tuple[Dataset, dict[str, Run]]
) -> None:
    posts = posts_of(world[0]) + posts_of(world[0], "train")
    wanted = predict(posts, runs, encoders=fake_encoders())
    service = service_of(runs, batch_size=8, batch_wait=0.02)
    with TestClient(create_app(service), base_url=BASE) as client, ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda post: client.post("/predict", json=as_json(post)).json(), posts * 3))
        text = client.get("/metrics").text
    for found, want in zip(answers, wanted * 3, strict=True):
        close_to(found, want)
    batches = service.encoders.image.batches  # type: ignore[attr-defined]
    assert sum(batches) == len(answers)
    assert max(batches) <= 8
    assert len(batches) < len(answers) / 2
    assert f"mmsent_batch_posts_sum {float(len(answers))}" in text
    assert f'mmsent_requests_total{{endpoint="/predict",status="200"}} {float(len(answers))}' in text
    assert "mmsent_pending_posts 0.0" in text


def test_tuned_heads_under_load_share_one_pass_through_the_encoder() -> None:
    """Two heads that tune blocks and one that does not: per batch the encoder runs once, then each head's blocks."""
    world = tuned_world()
    service = Service(world.runs, Limits(batch_size=8, batch_wait=0.02), opener=lambda _: world.encoders)
    posts = posts_of(world.data) + posts_of(world.data, "train")
    wanted = predict(posts, world.runs, encoders=world.encoders)
    clip = world.encoders.text.clip.model  # type: ignore[attr-defined]
    watched = {"images": clip.visual, "texts": clip.token_embedding}
    watched |= {run.name: run_blocks(run, world.encoders) for run in world.runs[:2]}
    passes = dict.fromkeys(watched, 0)

    def counted(name: str) -> Callable[..., None]:
        def count(*_: Any) -> None:
            passes[name] += 1

        return count

    hooks = [module.register_forward_hook(counted(name)) for name, module in watched.items()]
    try:
        with TestClient(create_app(service), base_url=BASE) as client, ThreadPoolExecutor(24) as pool:
            passes |= dict.fromkeys(watched, 0)  # without the warm-up
            answers = list(pool.map(lambda post: client.post("/predict", json=as_json(post)).json(), posts))
    finally:
        for hook in hooks:
            hook.remove()
    for found, want in zip(answers, wanted, strict=True):
        close_to(found, want)
    assert len(set(passes.values())) == 1
    assert passes["texts"] < len(answers) / 2


# --- refusals


def test_what_makes_no_sense_is_refused_with_a_reason(client: TestClient) -> None:
    url = {"text": "a", "image": "http://169.254.1.1/x.png"}
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({"content": b"{", "headers": JSON}, 400, "not JSON"),
        ({"content": b'{"text": "\xff"}', "headers": JSON}, 400, "not UTF-8"),
        ({"content": b"[" * 100_000, "headers": JSON}, 400, "not JSON"),
        ({"content": b"9" * 9999, "headers": JSON}, 400, "not JSON"),
        ({"json": [1]}, 422, "expected a JSON object, got list"),
        ({"json": {}}, 422, "neither a text nor an image"),
        ({"json": {"txt": "a"}}, 422, "txt: Extra inputs are not permitted"),
        ({"json": {"text": 3}}, 422, "text: Input should be a valid string"),
        ({"json": {"posts": []}}, 422, "posts: List should have at least 1 item"),
        ({"json": {"posts": 1}}, 422, "posts: Input should be a valid list"),
        ({"json": {"posts": [{}]}}, 422, "post '1': neither a text nor an image"),
        ({"json": {"posts": [{"text": "a"}] * 65}}, 422, "65 posts in one request; the limit is 64"),
        ({"content": rb'{"text": "a", "id": "\ud800"}', "headers": JSON}, 422, "id: Input should be a valid string"),
        ({"json": {"text": "a", "id": "x" * 256}}, 422, "id: String should have at most 255"),
        ({"json": url}, 422, "this is an address, and the service fetches nothing"),
        ({"json": {"text": "a", "image": "$"}}, 422, "image: not base64"),
        ({"json": {"text": "a" * 10_001}}, 422, "the text has 10001 characters; the limit is 10000"),
        ({"content": b"a=b", "headers": {"content-type": "text/plain"}}, 415, "content type 'text/plain'"),
        ({"content": b"a=b"}, 415, "content type '(none)'"),
        ({"content": b"a", "headers": {"content-type": "multipart/form-data"}}, 400, "names no boundary"),
        ({"content": b"a", "headers": {"content-type": "multipart/form-data; boundary=b"}}, 400, "no"),
        (
            {"content": b"a", "headers": {"content-type": f"multipart/form-data; boundary={'b' * 300}"}},
            400,
            "not a multipart form",
        ),
        ({"files": {"other": b"a"}}, 422, "a part called 'other'; expected text or image"),
        ({"files": [("image", b"a"), ("image", b"b")], "data": {"text": "a"}}, 422, "2 images and 1 texts"),
        ({"files": {"text": b"\xff"}}, 422, "text: not UTF-8"),
        ({"files": [("text", b"a")] * 129}, 422, "the form has more than 128 parts"),
    ]
    for given, status, reason in cases:
        found = client.post("/predict", **given)
        assert (found.status_code, list(found.json())) == (status, ["detail"]), (given, found.text)
        assert reason in found.json()["detail"], found.text
    assert client.get("/healthz").json()["status"] == "ok"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"posts": [[%s[]]]}' % (b"[]," * 700_000), "the body holds more than one request may"),
        (b"{%s}" % b",".join(b'"%x": 1' % i for i in range(200_000)), "0: Extra inputs are not permitted"),
        (b'{"posts": [{%s}]}' % b",".join(b'"%x": 1' % i for i in range(200_000)), "posts.0.0: Extra inputs are not"),
        (
            b'{"corrections": {%s}}' % b",".join(b'"%x": 1' % i for i in range(200_000)),
            "corrections.0: Input should be",
        ),
    ],
    ids=["values", "names", "names of a post", "corrections"],
)
def test_a_short_body_takes_no_great_memory(body: bytes, reason: str) -> None:
    kind = "application/json"
    read = (
        partial(parse_json, body, kind, page_schemas.CorrectionsIn)
        if b"corr" in body
        else partial(parse, body, kind, Limits())
    )
    tracemalloc.start()
    try:
        with pytest.raises(Refused, match=reason):
            read()
        assert tracemalloc.get_traced_memory()[1] < 20 * len(body)
    finally:
        tracemalloc.stop()


def test_a_damaged_form_writes_nothing_into_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Refused, match="not a multipart form"):
        parse(b"--x", "multipart/form-data; boundary=b", Limits())
    assert not caplog.records


def test_a_form_cut_short_is_no_form(client: TestClient) -> None:
    body = b'--b\r\ncontent-disposition: form-data; name="text"\r\n\r\nhappy'
    found = client.post("/predict", content=body, headers={"content-type": "multipart/form-data; boundary=b"})
    assert (found.status_code, found.json()["detail"]) == (
        400,
        "the body is not a multipart form: it ends before its last boundary",
    )


def test_an_empty_file_input_is_no_picture_and_an_empty_file_is_a_bad_one() -> None:
    def form(disposition: str) -> list[NewPost]:
        parts = ['name="text"\r\n\r\nhi', f"{disposition}\r\n\r\n"]
        body = "".join(f"--b\r\ncontent-disposition: form-data; {part}\r\n" for part in parts) + "--b--\r\n"
        return parse(body.encode(), "multipart/form-data; boundary=b", Limits())[0]

    assert form('name="image"; filename=""') == [NewPost("post", "hi", None)]
    assert form('name="image"; filename="a.jpg"') == [NewPost("post", "hi", b"")]


def test_data_urls_are_read() -> None:
    raw = base64.b64encode(b"bytes").decode()
    lines = base64.encodebytes(b"bytes" * 40).decode()  # as MIME and `base64 FILE` have it
    body = json.dumps({"image": lines.replace("\n", "\r\n ")}).encode()
    assert parse(body, "application/json", Limits())[0] == [NewPost("post", None, b"bytes" * 40)]
    for image in (raw, f"data:image/png;base64,{raw}"):
        body = json.dumps({"image": image}).encode()
        assert parse(body, "application/json; charset=utf-8", Limits())[0] == [NewPost("post", None, b"bytes")]


def test_limits_on_bodies_and_pixels(runs: list[Run], world: tuple[Dataset, dict[str, Run]]) -> None:
    post = posts_of(world[0])[0]
    with client_of(runs, limits={"body": 2000, "pixels": 1000}) as client:
        large = client.post("/predict", json={"text": "a" * 3000})
        assert (large.status_code, large.json()["detail"]) == (413, "the body has 3011 bytes; the limit is 2000")
        parts = iter([b'{"text": "', b"a" * 1500, b"a" * 1500])
        streamed = client.post("/predict", content=parts, headers=JSON)
        assert (streamed.status_code, streamed.json()["detail"]) == (413, "the body has more than 2000 bytes")
    with client_of(runs, limits={"pixels": 1000}) as client:
        refused = client.post("/predict", json=as_json(post))
        assert refused.status_code == 422
        assert refused.json()["detail"].startswith("picture has 40x40 pixels; the limit is 1000")


def test_nobody_is_told_to_come_again_for_what_could_never_be_taken(
    runs: list[Run], world: tuple[Dataset, dict[str, Run]]
) -> None:
    posts = [as_json(post) for post in posts_of(world[0])[:3]]
    with client_of(runs, limits={"queue": 2, "memory": 1024}) as client:
        many = client.post("/predict", json={"posts": posts})
        assert (many.status_code, many.json()["detail"]) == (422, "3 posts in one request; the limit is 2")
        assert client.get("/info").json()["max_posts"] == 2
        large = client.post("/predict", json=posts[0] | {"text": "a" * 5000})
        assert large.status_code == 200


def test_beyond_the_queue_clients_are_told_to_come_again(
    runs: list[Run], world: tuple[Dataset, dict[str, Run]], monkeypatch: pytest.MonkeyPatch
) -> None:
    post, go = posts_of(world[0])[0], threading.Event()
    service = service_of(runs, queue=2, batch_size=1)
    answer = service.answer
    monkeypatch.setattr(service, "answer", lambda batch: (go.wait(30), answer(batch))[1])
    with TestClient(create_app(service), base_url=BASE) as client, ThreadPoolExecutor(2) as pool:
        taken = [pool.submit(client.post, "/predict", json=as_json(post)) for _ in range(2)]
        until = time.monotonic() + 20
        while client.get("/healthz").json()["waiting"] < 2 and time.monotonic() < until:
            time.sleep(0.01)
        shed = client.post("/predict", json=as_json(post))
        assert shed.status_code == 503
        assert 1 <= int(shed.headers["retry-after"]) <= 30
        assert "mmsent_shed_total 1.0" in client.get("/metrics").text
        go.set()
        assert [one.result().status_code for one in taken] == [200, 200]
        assert client.post("/predict", json=as_json(post)).status_code == 200


def test_a_post_that_takes_too_long_is_given_up_and_not_worked_on(
    runs: list[Run], world: tuple[Dataset, dict[str, Run]], monkeypatch: pytest.MonkeyPatch
) -> None:
    post, go, seen = posts_of(world[0])[0], threading.Event(), []
    service = service_of(runs, timeout=0.2, batch_size=1)
    answer = service.answer

    def slow(batch: Any) -> Any:
        go.wait(30)
        seen.extend(name for name, _ in batch)
        return answer(batch)

    monkeypatch.setattr(service, "answer", slow)
    with TestClient(create_app(service), base_url=BASE) as client:
        late = [client.post("/predict", json=as_json(post, id=str(i))) for i in range(2)]
        assert [one.status_code for one in late] == [503, 503]
        assert late[0].json()["detail"] == "there was no answer within 0.2 s"
        go.set()
        assert client.post("/predict", json=as_json(post, id="2")).status_code == 200
    assert seen == ["0", "2"]  # the first was under way already; the second was waiting


def test_what_a_stopping_service_gives_up_on_gets_an_answer(
    runs: list[Run], world: tuple[Dataset, dict[str, Run]], monkeypatch: pytest.MonkeyPatch
) -> None:
    service, begun, go = service_of(runs), threading.Event(), threading.Event()
    answer = service.answer
    monkeypatch.setattr(service, "answer", lambda batch: (begun.set(), go.wait(30), answer(batch))[2])
    app = create_app(service)

    async def main() -> httpx.Response:
        transport, post = httpx.ASGITransport(app), as_json(posts_of(world[0])[0])
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url=BASE) as client:
            asked = asyncio.create_task(client.post("/predict", json=post))
            await asyncio.get_running_loop().run_in_executor(None, begun.wait, 20)
            asked.cancel()  # as uvicorn does once the time to drain is over
            try:
                return await asked
            finally:
                go.set()

    found = asyncio.run(main())
    assert (found.status_code, found.json()["detail"]) == (503, "the service is stopping; try again later")
    assert int(found.headers["retry-after"]) >= 1


def test_a_body_that_does_not_come_is_given_up(runs: list[Run]) -> None:
    app = create_app(service_of(runs, read_timeout=0.1))

    async def main() -> httpx.Response:
        async def stalls() -> Any:
            yield b'{"text": '
            await asyncio.sleep(30)

        transport = httpx.ASGITransport(app)
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url=BASE) as client:
            return await client.post("/predict", content=stalls(), headers=JSON)

    found = asyncio.run(main())
    assert (found.status_code, found.json()["detail"]) == (408, "the request did not arrive completely within 0.1 s")


def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_bug(runs: list[Run]) -> None:
    app = create_app(service_of(runs))
    messages = iter([{"type": "http.request", "body": b'{"te', "more_body": True}, {"type": "http.disconnect"}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    async def main() -> None:
        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"", "headers": headers}
        async with app.router.lifespan_context(app):
            await app(scope, receive, send)

    asyncio.run(main())
    assert sent[0]["status"] == 400
    assert b"closed before" in sent[1]["body"]


def test_an_error_in_one_post_is_that_posts_alone(
    runs: list[Run], world: tuple[Dataset, dict[str, Run]], monkeypatch: pytest.MonkeyPatch
) -> None:
    posts = posts_of(world[0])[:3]
    service = service_of(runs, batch_size=8, batch_wait=0.2)
    answer = service.answer

    def fragile(batch: Any) -> Any:
        if any(name == "bad" for name, _ in batch):
            raise ValueError("boom")
        return answer(batch)

    monkeypatch.setattr(service, "answer", fragile)
    with (
        TestClient(create_app(service), base_url=BASE, raise_server_exceptions=False) as client,
        ThreadPoolExecutor(3) as pool,
    ):
        ids = ("1", "bad", "3")
        sent = [pool.submit(client.post, "/predict", json=as_json(p, id=i)) for p, i in zip(posts, ids, strict=True)]
        found = [one.result() for one in sent]
    assert [one.status_code for one in found] == [200, 500, 200]
    assert found[1].json() == {"detail": "unexpected ValueError; this is a bug"}
    assert HEADERS.items() <= dict(found[1].headers).items()


# --- who may ask


def test_a_key(runs: list[Run], world: tuple[Dataset, dict[str, Run]]) -> None:
    post = as_json(posts_of(world[0])[0])
    with client_of(runs, key="secret", review=lambda: Review([], None)) as client:
        for wrong in ({}, {"authorization": "Bearer secre"}, {"authorization": "Basic secret"}, {"x-key": "secret"}):
            refused = client.post("/predict", json=post, headers=wrong)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        for path in ("/metrics", "/review/rows", "/review/pictures/0"):
            assert client.get(path).status_code == 401
        assert client.post("/explain", json=post).status_code == 401
        assert client.post("/review/list", json={"corrections": {"1": "neutral"}}).status_code == 401
        for path in ("/", "/review", "/docs", "/healthz", "/info", "/openapi.json"):
            assert client.get(path).status_code == 200
        assert client.get("/info").json()["key"] is True
        right = {"authorization": "Bearer secret"}
        assert client.post("/predict", json=post, headers=right).status_code == 200


def test_foreign_hosts_and_pages_are_refused(runs: list[Run], world: tuple[Dataset, dict[str, Run]]) -> None:
    post = as_json(posts_of(world[0])[0])
    with client_of(runs, hosts=["localhost", "mood.example"]) as client:
        for host in ("localhost:8000", "127.0.0.1", "[::1]:8000", "mood.example", "Mood.Example.:443"):
            assert client.get("/info", headers={"host": host}).status_code == 200
        for host in ("evil.example", "evil.example:8000", "[", "", "mood.example:x", "1.2.3.4.evil.example"):
            assert client.get("/info", headers={"host": host}).status_code == 403
        asked = client.post("/predict", json=post, headers={"origin": "http://localhost:8000"})
        assert asked.status_code == 200
        for origin in ("http://evil.example", "null", "http://localhost:9999", "http://1.2.3.4"):
            assert client.post("/predict", json=post, headers={"origin": origin}).status_code == 403
        assert client.post("/predict", json=post, headers={"origin": "null", "host": ""}).status_code == 403
    with client_of(runs) as client:
        assert client.get("/info", headers={"host": "any.example"}).status_code == 200


def test_probes_and_monitoring_ask_by_address(runs: list[Run]) -> None:
    with client_of(runs, hosts=["mood.example"], key="secret") as client:
        for host in ("10.244.0.5:8000", "[fd00::5]:8000"):
            assert client.get("/healthz", headers={"host": host}).status_code == 200
            assert client.get("/metrics", headers={"host": host}).status_code == 401
            right = {"host": host, "authorization": "Bearer secret"}
            assert client.get("/metrics", headers=right).status_code == 200
        assert client.get("/healthz", headers={"host": "balancer.example"}).status_code == 200
        assert client.get("/healthz/x", headers={"host": "balancer.example"}).status_code == 403


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("mood.example", "https://mood.example"),
        ("mood.example:443", "https://mood.example"),
        ("mood.example:80", "http://mood.example"),
        ("mood.example.", "https://mood.example"),
        ("mood.example:8443", "https://mood.example:8443"),
        ("127.0.0.1:8000", "https://mood.example"),  # as nginx passes it on by default
        ("mood.example", "https://mood.example:8443"),
    ],
)
def test_pages_of_a_name_that_was_given_may_post(
    runs: list[Run], world: tuple[Dataset, dict[str, Run]], host: str, origin: str
) -> None:
    with client_of(runs, hosts=["mood.example", "localhost"]) as client:
        headers = {"host": host, "origin": origin}
        assert client.post("/predict", json=as_json(posts_of(world[0])[0]), headers=headers).status_code == 200


@pytest.mark.parametrize("prefix", ["", "/mmsent"])
def test_below_a_path_whether_the_proxy_strips_it_or_not(runs: list[Run], prefix: str) -> None:
    with client_of(runs, hosts=["mood.example"], root_path="/mmsent") as client:
        for path in ("/", "/static/style.css", "/info", "/docs"):
            assert client.get(prefix + path).status_code == 200
        assert client.get(f"{prefix}/healthz", headers={"host": "balancer.example"}).status_code == 200
        assert client.get(f"{prefix}/openapi.json").json()["servers"] == [{"url": "/mmsent"}]
        moved = client.post(f"{prefix}/predict/?a=1", follow_redirects=False)
        assert (moved.status_code, moved.headers["location"]) == (307, "../predict?a=1")
        counted = re.findall(r'requests_total\{endpoint="([^"]+)"', client.get("/metrics").text)
        assert {"/", "/info", "/docs"} <= {*counted}


def test_redirects_name_no_host(client: TestClient) -> None:
    for path, there in (
        ("/predict/", "../predict"),
        ("/review//", "../../review"),
        ("/static/index.js/", "../index.js"),
    ):
        found = client.get(path, follow_redirects=False)
        assert (found.status_code, found.headers["location"]) == (307, there)


def test_the_bare_path_leads_to_the_page(runs: list[Run]) -> None:
    with client_of(runs, root_path="/mmsent") as client:
        found = client.get("/mmsent", follow_redirects=False)
        assert (found.status_code, found.headers["location"]) == (307, "./mmsent/")


def test_compressed_bodies_are_refused_as_such(client: TestClient) -> None:
    raw = gzip.compress(json.dumps({"text": "hi"}).encode())
    for path in ("/predict", "/explain"):
        found = client.post(path, content=raw, headers=JSON | {"content-encoding": "gzip"})
        assert (found.status_code, found.json()["detail"]) == (
            415,
            "content encoding 'gzip' is not supported; send the body uncompressed",
        )


def test_head_is_answered_as_get(client: TestClient) -> None:
    for path in ("/healthz", "/", "/info", "/metrics", "/static/index.js", "/openapi.json"):
        found = client.head(path)
        assert (found.status_code, found.content) == (200, b""), path
        assert HEADERS.items() <= dict(found.headers).items()
    assert client.head("/nothing").status_code == 404


def test_every_answer_has_the_security_headers(client: TestClient) -> None:
    for path in ("/", "/healthz", "/nothing", "/static/index.js", "/static/gallery.js"):
        found = client.get(path)
        assert HEADERS.items() <= dict(found.headers).items(), path
    assert "'unsafe-inline'" not in HEADERS["content-security-policy"]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost", "LOCALHOST"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", "", "localhost.example.org"])
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)


# --- pages


def test_the_pages_load_nothing_from_elsewhere_and_hold_no_script_of_their_own(client: TestClient) -> None:
    script = "".join(
        client.get(f"/static/{name}.js").text
        for name in ("index", "review", "docs", "common", "gallery", "cards", "heat")
    )
    assert not re.search(r"""(ask|askJson|fetch)\(["`']/""", script)
    for path in ("/", "/review", "/docs"):
        page = client.get(path)
        assert not re.search(r'(href|src)="/', page.text)  # a proxy may serve it below a path
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "//" not in page.text.replace("<!doctype", ""), path
        assert page.text.count("<script") == page.text.count('<script type="module" src="static/') == 1
        assert "style=" not in page.text
        assert not re.search(r"<[^>]+ on\w+=", page.text)


def test_both_languages_say_everything(client: TestClient) -> None:
    english, chinese = (client.get(f"/static/{name}.js").text for name in ("english", "chinese"))

    def keys(text: str) -> dict[str, set[str]]:
        found = re.findall(r'(?:^|,)\s*(\w+): "((?:[^"\\]|\\.)*)"', text, re.MULTILINE)
        return {name: set(re.findall(r"\{(\w+)\}", value)) for name, value in found}

    assert keys(english) == keys(chinese)
    assert len(keys(english)) > 80
    for path in ("/", "/review", "/docs"):
        named = re.findall(r'data-t(?:-\w+)?="(\w+)"', client.get(path).text)
        assert set(named) <= keys(english).keys()


def test_what_is_served(client: TestClient, runs: list[Run]) -> None:
    info = client.get("/info").json()
    assert [head["run"] for head in info["heads"]] == [run.name for run in runs]
    assert info["labels"] == ["negative", "neutral", "positive"]
    assert (info["key"], info["review"]) == (False, False)


def test_the_description_names_every_answer(client: TestClient) -> None:
    found = client.get("/openapi.json").json()
    assert set(found["paths"]) == {"/predict", "/explain", "/healthz", "/metrics", "/info"}
    assert set(found["paths"]["/predict"]["post"]["requestBody"]["content"]) == {
        "application/json",
        "multipart/form-data",
    }
    text = json.dumps(found)
    for name in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in found["components"]["schemas"]
    assert "HTTPValidationError" not in text


# --- explanations


def test_explanations_go_through_with_their_arguments(
    runs: list[Run], world: tuple[Dataset, dict[str, Run]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def explained(run: Run, encoders: Any, post: NewPost, **more: Any) -> Explanation:
        asked.append((run.name, post.text, more["target"], more["occlude"], more["cam_of"]))
        if more["target"] == "odd":
            raise UsageError("unknown target")
        return Explanation(
            "post", run.name, "concat", "positive", "neutral", 1.0, {"positive": 1.0}, None, 0.0,
            Modality(1.0, 2.0), None, None, cam_of=more["cam_of"],
        )  # fmt: skip

    monkeypatch.setattr("mmsent.inference.explain.explain", explained)
    post = as_json(posts_of(world[0])[0])
    with client_of(runs) as client:
        found = client.post(
            "/explain",
            json=post,
            params={"run": runs[1].name, "target": "neutral", "occlusion": "true", "cam_of": "loss"},
        )
        schemas.ExplanationOut.model_validate(found.json())
        assert asked == [(runs[1].name, post["text"], "neutral", True, "loss")]
        assert found.json()["cam_of"] == "loss"
        assert client.post("/explain", json=post, params={"cam_of": "odd"}).status_code == 422
        assert client.post("/explain", json=post).json()["run"] == runs[0].name
        assert client.post("/explain", json=post, params={"target": "odd"}).status_code == 422
        assert client.post("/explain", json=post, params={"run": "none"}).status_code == 422
        assert (
            client.post("/explain", json={"posts": [post]}).json()["detail"]
            == "only one post can be explained per request"
        )
        bad = client.post("/explain", json={**post, "image": "AAAA"})
        assert bad.json()["detail"].startswith("not a picture")


def test_fakes_that_cannot_be_explained_say_so(client: TestClient, world: tuple[Dataset, dict[str, Run]]) -> None:
    found = client.post("/explain", json=as_json(posts_of(world[0])[0]))
    assert (found.status_code, found.json()["detail"]) == (
        422,
        "grid cannot be differentiated, so its labels cannot be explained",
    )


# --- batching, admission


def test_a_full_batch_does_not_wait_and_a_lone_item_waits_no_longer_than_it_should() -> None:
    seen: list[int] = []

    def work(items: Any) -> list[int]:
        seen.append(len(items))
        return [2 * item for item in items]

    batcher: Batcher[int, int] = Batcher(work, size=4, wait=0.3)
    started = time.monotonic()
    full = [batcher.submit(i) for i in range(4)]
    assert [one.result(5) for one in full] == [0, 2, 4, 6]
    assert time.monotonic() - started < 0.25
    started = time.monotonic()
    assert batcher.submit(5).result(5) == 10
    assert 0.25 < time.monotonic() - started < 2
    batcher.close()
    assert seen == [4, 1]
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit(1)


def test_what_was_cancelled_is_not_worked_on_and_closing_finishes_the_rest() -> None:
    go, seen = threading.Event(), []

    def work(items: Any) -> list[int]:
        go.wait(5)
        seen.extend(items)
        return list(items)

    batcher: Batcher[int, int] = Batcher(work, size=1, wait=0)
    futures: list[Future[int]] = [batcher.submit(i) for i in range(4)]
    while batcher.waiting == 4:
        time.sleep(0.001)
    assert futures[2].cancel()
    go.set()
    batcher.close()
    assert seen == [0, 1, 3]
    assert [one.result(0) for one in (futures[0], futures[1], futures[3])] == [0, 1, 3]
    assert not batcher.alive


def test_admission_gives_back_what_it_took() -> None:
    room = Admission(2, 100)
    with room.take(2):
        with pytest.raises(Refused) as refused, room.take(1):
            pass
        assert (refused.value.status, refused.value.retry_after) == (503, 1)
    with room.take(2), room.read() as more:
        more(60)
        with pytest.raises(Refused, match="large requests"):
            more(41)
    assert room.pending == 0
    with room.read() as more:
        more(100)


def test_half_precision_goes_one_by_one(runs: list[Run]) -> None:
    def half(_: Any) -> Any:
        pair = fake_encoders()
        pair.image.card = pair.image.card.model_copy(update={"precision": "bf16"})  # type: ignore[misc]
        return pair

    assert service_of(runs).batch_size == 16
    assert Service(runs, Limits(), opener=half).batch_size == 1
    assert Service(runs, Limits(batch_size=4), opener=half).batch_size == 4


def test_runs_must_fit_the_encoders_and_each_other(runs: list[Run]) -> None:
    with pytest.raises(RunError, match="was trained on features of"):
        Service(runs, Limits(), opener=lambda _: fake_encoders(1))
    with pytest.raises(RunError, match="each run can vote only once"):
        service_of([runs[0], runs[0]])
    with pytest.raises(UsageError, match="--tie"):
        Service(runs, Limits(), tie="odd", opener=lambda _: fake_encoders())


# --- review


@pytest.fixture
def review(runs: list[Run], world: tuple[Dataset, dict[str, Run]]) -> Review:
    rows, shared = validation_rows(runs)
    assert shared == runs
    return Review(rows, world[0], runs=[run.name for run in shared])


def test_validation_rows_are_the_vote_of_the_runs(runs: list[Run]) -> None:
    rows, _ = validation_rows(runs)
    labels = runs[0].labels
    tables = [{row.id: row for row in read_table(run.path / "validation.csv", labels)} for run in runs]
    p = np.array([[[t[row.id].probabilities[x] for x in labels] for row in rows] for t in tables])
    assert [row.predicted for row in rows] == [labels[k] for k in tally(p, Way(1)).labels]
    mean = tally(p, Way()).probabilities
    assert [[row.probabilities[x] for x in labels] for row in rows] == pytest.approx(mean, abs=1e-9)
    assert {row.label for row in rows} <= {*labels}


def test_validation_rows_are_voted_on_as_the_service_votes(runs: list[Run], tmp_path: Path) -> None:
    labels = ["a", "b", "c"]
    p = np.array([[[0.5, 0.1, 0.4]], [[0.5, 0.1, 0.4]], [[0.1, 0.46, 0.44]], [[0.1, 0.46, 0.44]]])  # c leads no head
    tied = []
    for i, rows in enumerate(p):
        (tmp_path / str(i)).mkdir()
        (tmp_path / str(i) / "validation.csv").write_text(predictions_csv(["x"], labels, rows, ["b"]))
        tied.append(Run(tmp_path / str(i), runs[0].info | {"labels": labels}))
    committee = [replace(run, info=run.info | {"committee": {"name": "c", "size": 4}}) for run in tied]
    cases: list[tuple[list[Run], dict[str, Any], str]] = [
        (tied, {}, "a"),
        (tied, {"tie": "b"}, "b"),
        (tied, {"soft": True}, "c"),
        (committee, {}, "c"),
    ]
    for given, how, said in cases:
        row = validation_rows(given, **how)[0][0]
        assert row.predicted == said
        assert row.confidence == pytest.approx(p.mean(axis=0)[0, labels.index(said)])


def test_reviewed_labels_say_why_they_are_not_the_likeliest() -> None:
    shares = {"negative": 0.34, "neutral": 0.24, "positive": 0.42}
    heads = {"a": "negative", "b": "neutral", "c": "positive"}
    row = Row("1", None, "neutral", 0.24, shares, heads)
    assert row.decision == "no majority: neutral by rule"
    row = Row("1", None, "positive", 0.42, shares, heads)
    assert row.decision == ""


def test_review_through_the_service(runs: list[Run], review: Review, world: tuple[Dataset, dict[str, Run]]) -> None:
    with client_of(runs, review=lambda: review) as client:
        page = client.get("/review/rows").json()
        assert len(page["rows"]) == 5
        row = page["rows"][3]
        post = next(p for p in world[0].posts if p.id == row["id"])
        text = world[0].text_of(post)
        assert client.get("/review/texts", params={"row": [3]}).json() == [text]
        assert client.get("/review/texts", params={"row": [3, 99]}).status_code == 422
        assert row["correctable"]
        assert client.get("/review/find", params={"text": text.upper()}).json() == [3]
        assert client.get("/review/find", params={"text": "nowhere"}).json() == []
        picture = client.get(f"/review/pictures/{row['row']}")
        assert (picture.headers["content-type"], picture.content[8:12]) == ("image/webp", b"WEBP")
        whole = client.get(f"/review/pictures/{row['row']}", params={"whole": True})
        assert isinstance(post.image, Path)
        assert whole.content == post.image.read_bytes()
        assert client.get("/review/pictures/99").status_code == 404
        found = client.post("/review/list", json={"corrections": {row["id"]: "neutral"}})
        assert found.headers["content-disposition"] == 'attachment; filename="train.txt"'
        assert f"\n{row['id']},neutral\n" in found.text
        for wrong in ({row["id"]: "odd"}, {"nobody": "neutral"}, {}, {row["id"]: 3}):
            assert client.post("/review/list", json={"corrections": wrong}).status_code == 422
        assert client.post("/review/list", content=b"x").status_code == 415


def test_the_list_holds_what_most_people_say(runs: list[Run], review: Review) -> None:
    ids = [row["id"] for row in review.page()["rows"]]
    with client_of(runs, review=lambda: review) as client:
        for person, said in (("anna", "neutral"), ("ben", "neutral"), ("caro", "positive")):
            labels = {ids[0]: said, ids[1]: (person[0] == "a" and "negative") or "positive"}
            found = client.post("/review/labels", json={"person": person, "labels": labels}).json()
        assert (found["people"], found["posts"]) == (["anna", "ben", "caro"], 2)
        assert found["conflicts"][ids[0]] == {"anna": "neutral", "ben": "neutral", "caro": "positive"}
        assert (found["cohen"][1]["a"], found["cohen"][1]["b"]) == ("anna", "caro")
        listed = client.post("/review/list", json={"corrections": {ids[0]: "negative"}}).text
        assert f"\n{ids[0]},neutral\n" in listed
        assert f"\n{ids[1]},positive\n" in listed
        client.post("/review/labels", json={"person": "caro", "labels": {}})  # who takes all back is no party
        client.post("/review/labels", json={"person": "ben", "labels": {ids[0]: "negative"}})
        split = client.post("/review/list", json={"corrections": {ids[0]: "positive"}}).text
        before = next(row["label"] for row in review.page()["rows"] if row["id"] == ids[0])
        assert f"\n{ids[0]},{before}\n" in split  # one against one: the label stays
        for wrong in ({"person": "", "labels": {}}, {"person": "a", "labels": {"1": 2}}, {"labels": {}}):
            assert client.post("/review/labels", json=wrong).status_code == 422
        for labels in ({ids[0]: "odd"}, {"nobody": "neutral"}):  # with which there would be no list for anybody
            refused = client.post("/review/labels", json={"person": "dora", "labels": labels})
            assert (refused.status_code, "cannot be labelled" in refused.text) == (422, True)
        assert client.post("/review/list", json={"corrections": {ids[0]: "positive"}}).text == split


def test_examples_are_clear_ones_and_one_that_heads_differ_on(world: tuple[Dataset, dict[str, Run]]) -> None:
    a, b, c, d, e = (post.id for post in world[0].posts.of("train")[:5])

    def row(name: str, label: str | None, predicted: str, confidence: float, *said: str) -> Row:
        return Row(name, label, predicted, confidence, {predicted: confidence}, {str(i): x for i, x in enumerate(said)})

    rows = [
        row("gone", "negative", "negative", 1.0, "negative", "negative"),
        row(a, "negative", "negative", 0.7, "negative", "negative"),
        row(b, "negative", "negative", 0.8, "negative", "negative"),
        row(c, "positive", "neutral", 0.9, "neutral", "neutral"),  # wrong
        row(d, "neutral", "neutral", 0.6, "neutral", "positive"),
        row(e, None, "positive", 0.5, "positive", "negative"),
    ]
    assert Review(rows, world[0]).examples() == [2, 4, 5]
    assert Review(rows, None).examples() == []


def test_a_service_without_heads_shows_posts_alone(world: tuple[Dataset, dict[str, Run]]) -> None:
    review = Review(unlabelled_rows(world[0]), world[0])
    app = create_app(NoHeads(Limits(), ["a", "b"], "posts"), review=lambda: review)
    with TestClient(app, base_url=BASE) as client:
        info = client.get("/info").json()
        assert (info["heads"], info["labels"], info["data"], info["review"]) == ([], ["a", "b"], "posts", True)
        assert len(client.get("/review/rows").json()["rows"]) == len(world[0].posts)
        assert client.get("/review/examples").json() == []
        assert client.post("/predict", json={"text": "a"}).status_code == 404


def test_posts_that_nothing_is_predicted_for(world: tuple[Dataset, dict[str, Run]]) -> None:
    page = Review(unlabelled_rows(world[0]), world[0]).page()
    row = page_schemas.ReviewPage.model_validate(page).rows[0]
    assert (row.predicted, row.probabilities, row.decision, row.picture) == (None, {}, "", True)
    assert {one["correctable"] for one in page["rows"]} == {True, False}  # the test rows are only shown


def test_tables_that_are_none_are_refused(tmp_path: Path) -> None:
    for text, reason in (
        ("id,predicted\n1,positive\n", "no column 'confidence'"),
        ("id,predicted,confidence,p_a\n1,b,0.5,1\n", "has the unknown label 'b'"),
        ("id,predicted,confidence,p_a\n1,a,x,1\n", "cannot be read as a table"),
        ("id,predicted,confidence,p_a\n1,a,nan,1\n", "post '1' has a probability that is not a number"),
        ("id,predicted,confidence,p_a\n1,a,1,inf\n", "post '1' has a probability that is not a number"),
    ):
        (tmp_path / "t.csv").write_text(text)
        with pytest.raises(DataError, match=reason):
            read_table(tmp_path / "t.csv", ["a"])
    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path / "none.csv", ["a"])


def test_columns_of_a_vote_are_no_heads(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "id,predicted,confidence,p_0,p_1,vote,twins,decision,agreeing,head\n1,0,1,1,0,soft,1,0,1,0\n"
    )
    (row,) = read_table(tmp_path / "t.csv", ["0", "1"])
    assert row.heads == {"head": "0"}


# --- corrected lists


def labels_of(path: Path) -> dict[str, str | None]:
    return {post.id: post.label for post in load_dataset(path).posts if post.split == "train"}


def put(dataset: Dataset, name: str, raw: bytes) -> None:
    path = dataset.root / name if dataset.layout == "guid" else dataset.root
    assert path.name == name
    path.write_bytes(raw)


def test_a_corrected_list_is_taken_by_extract_and_fit(tmp_path: Path) -> None:
    root = make_guid(tmp_path / "posts", n_train=30, n_test=4, size=32)
    data = load_dataset(root)
    before = labels_of(root)
    changed = {"3": "neutral" if before["3"] != "neutral" else "positive"}

    def run() -> Any:
        pair = fake_encoders()
        done = extract(
            load_dataset(root), ["train"], tmp_path / "cache", encoder=EncoderSettings(encoder="offline"),
            views=settings(ViewSettings, count=0), options=ExtractSettings(), engine=LocalEngine(pair), show=False,
        )  # fmt: skip
        fit(done.cache, tmp_path / "runs", [FitSettings(**QUICK)], SplitSettings())
        return done.cache, pair.image.seen  # type: ignore[attr-defined]

    assert run()[1] == 30
    put(data, *corrected_list(data, changed)[::2])
    assert labels_of(root) == before | changed
    cache, encoded = run()
    assert encoded == 0  # a changed label encodes nothing
    index = cache.index("train")
    assert cache.labels[index.labels[index.ids.index("3")]] == changed["3"]


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_a_corrected_manifest_has_the_new_labels_and_all_else_as_it_was(tmp_path: Path, ending: str) -> None:
    path = make_manifest(tmp_path / "posts", ending, n_train=8, n_test=3, size=16)
    data = load_dataset(path)
    before = {post.id: (post.label, data.text_of(post), post.image) for post in data.posts}
    changed = {"post 2": "neutral", "post 10": "positive"}  # the second had no label yet: it becomes a training row
    put(data, *corrected_list(data, changed)[::2])
    after = load_dataset(path)
    found = {post.id: (post.label, after.text_of(post), post.image) for post in after.posts}
    assert found == {name: (changed.get(name, row[0]), *row[1:]) for name, row in before.items()}
    assert {post.id for post in after.posts if post.split == "train"} >= {"post 10"}


def test_a_corrected_manifest_keeps_types_and_columns(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    def corrected(name: str, given: dict[str, Any], corrections: dict[str, str]) -> Any:
        table = pyarrow.table({"id": ["a", "b", "c"], "text": ["x", "y", "z"], **given})
        parquet.write_table(table.replace_schema_metadata({"made": "by hand"}), path := tmp_path / name)
        data = load_dataset(path, DataSettings(labels=("0", "1", "odd")))
        found = parquet.read_table(io.BytesIO(corrected_list(data, corrections)[2]))
        assert found.schema.metadata == {b"made": b"by hand"}
        return found

    number = pyarrow.array([1, 2, 3], pyarrow.int8())
    found = corrected("number.parquet", {"label": [0, 1, None], "n": number}, {"a": "1", "c": "1"})
    assert (found["label"].to_pylist(), found["n"].type) == ([1, 1, 1], pyarrow.int8())
    assert corrected("text.parquet", {"label": [0, 1, None]}, {"c": "odd"})["label"].to_pylist() == ["0", "1", "odd"]
    assert corrected("none.parquet", {}, {"b": "1"})["label"].to_pylist() == [None, "1", None]  # not the first row
    path = tmp_path / "n.jsonl"
    path.write_text('{"id": "a", "text": "\\ud800", "label": 0}\n{"id": "b", "text": "y", "label": 1}\n')
    raw = corrected_list(load_dataset(path, DataSettings(labels=("0", "1"))), {"b": "0"})[2]
    assert [json.loads(line)["label"] for line in raw.splitlines()] == [0, 0]
    assert json.loads(raw.splitlines()[0])["text"] == "\ud800"


def test_a_corrected_manifest_stays_in_its_encoding(tmp_path: Path) -> None:
    path = tmp_path / "posts.csv"
    rows = "".join(f"{i},今天天气很好，我们去公园散步吧。{i},positive\r\n" for i in range(20))
    path.write_bytes(f"id,text,label\r\n{rows}".encode("gb18030"))
    data = load_dataset(path)
    assert data.decoding.encoding == "gb18030"
    wanted = f"id,text,label\r\n{rows}".replace("散步吧。3,positive", "散步吧。3,neutral").encode("gb18030")
    assert corrected_list(data, {"3": "neutral"})[2] == wanted  # in another one, all posts would be encoded again


def test_test_posts_and_unknown_labels_are_refused(tmp_path: Path) -> None:
    root = make_guid(tmp_path / "posts", n_train=4, n_test=2, size=16)
    data = load_dataset(root)
    for labels, reason in (
        ({"5": "neutral"}, "belongs to the test split"),
        ({"1": "odd"}, "is not one of"),
        ({"99": "neutral"}, "has no post"),
    ):
        with pytest.raises(DataError, match=reason):
            corrected_list(data, labels)
    path = tmp_path / "posts.csv"
    path.write_text("id,text,label,split\na,x,positive,train\nb,y,,test\nc,z,,\n")
    manifest = load_dataset(path)
    with pytest.raises(DataError, match="belongs to the test split"):
        corrected_list(manifest, {"b": "neutral"})
    assert b"c,z,neutral,\r\n".replace(b"\r", b"") in corrected_list(manifest, {"c": "neutral"})[2]


def test_line_ends_and_a_missing_header_stay(tmp_path: Path) -> None:
    root = make_guid(tmp_path / "posts", n_train=3, n_test=1, size=16)
    (root / "train.txt").write_bytes(b"1,positive\r\n2,neutral\r\n3,negative\r\n")
    assert corrected_list(load_dataset(root), {"2": "positive"})[2] == b"1,positive\r\n2,positive\r\n3,negative\r\n"


# --- the command


def status_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stopped:
        main(["serve", *arguments])
    return int(stopped.value.code or 0), capsys.readouterr().err


def test_other_hosts_need_a_key(runs: list[Run], capsys: pytest.CaptureFixture[str]) -> None:
    status, said = status_of(capsys, str(runs[0].path), "--host", "0.0.0.0", "--port", "0")
    assert (status, said) == (
        2,
        "mmsent: --host 0.0.0.0 lets others in: give --api-key (or MMSENT_API_KEY), or --no-auth to let anybody ask\n",
    )


def test_bad_options_are_said_before_anything_is_loaded(
    runs: list[Run], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        status, said = status_of(capsys, str(runs[0].path), "--port", port)
        assert (status, f"cannot listen on 127.0.0.1 port {port}" in said) == (2, True)
    assert status_of(capsys, str(runs[0].path), "--api-key", "")[0] == 2
    for name in ("https://mood.example", "mood.example:8443", "mood.example/", ""):
        assert "give the bare name" in status_of(capsys, str(runs[0].path), "--allow-host", name)[1]
    for path in ("https://mood.example/a", "/a?b", "/a b"):
        assert "give a path alone" in status_of(capsys, str(runs[0].path), "--root-path", path)[1]
    for name in ("Mood.Example", "mood.example.", "10.1.2.3", "2001:db8::1"):
        assert "queue: got 0" in status_of(capsys, str(runs[0].path), "--allow-host", name, "--queue", "0")[1]
    assert "queue: got 0" in status_of(capsys, str(runs[0].path), "--queue", "0")[1]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert status_of(capsys, str(runs[0].path)) == (
        2,
        "mmsent: mmsent serve needs fastapi, uvicorn, python_multipart, prometheus_client: "
        "pip install 'mmsent[serve]'\n",
    )


def test_runs_without_validation_rows_are_served_without_a_review(
    runs: list[Run], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def listen(app: Any, bound: Any, limits: Limits, ready: Callable[[], None]) -> None:
        with TestClient(app, base_url=BASE) as client:
            seen.extend([client.get("/info").json()["review"], client.get("/review/rows").status_code])

    bare = tmp_path / runs[0].name
    shutil.copytree(runs[0].path, bare)
    (bare / "validation.csv").unlink()  # as in a folder from a hub
    monkeypatch.setattr("mmsent.serve.server.serve", listen)
    monkeypatch.setattr("mmsent.inference.predict.open_encoders", lambda settings: fake_encoders())
    status, said = status_of(capsys, str(bare), "--port", "0")
    assert (status, seen) == (0, [False, 404])
    assert f"there is no review page: {runs[0].name} holds no validation.csv; --review names a table" in said


def test_the_command_serves_until_it_is_told_to_stop(
    runs: list[Run],
    world: tuple[Dataset, dict[str, Run]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All but the listening: what the command hands over answers as it should."""
    seen: list[Any] = []

    def listen(app: Any, bound: Any, limits: Limits, ready: Callable[[], None]) -> None:
        ready()
        with TestClient(app, base_url=BASE) as client:
            seen.append(client.post("/predict", json=as_json(posts_of(world[0])[0])).json())
            seen.append(len(client.get("/review/rows").json()["rows"]))
            seen.append(client.get("/info", headers={"host": "evil.example"}).status_code)
            seen.append(client.get("/openapi.json").json()["servers"])

    monkeypatch.setattr("mmsent.serve.server.serve", listen)
    monkeypatch.setattr("mmsent.inference.predict.open_encoders", lambda settings: fake_encoders())
    names = [str(run.path) for run in runs]
    with pytest.raises(SystemExit) as stopped:
        main(["serve", *names, "--port", "0", "--data", str(world[0].root), "--root-path", "a/b/"])
    assert not stopped.value.code
    assert capsys.readouterr().out.startswith(f"serving concat ({runs[0].name}), weighted")
    close_to(seen[0], predict(posts_of(world[0])[:1], runs, encoders=fake_encoders())[0])
    assert seen[1:] == [5, 403, [{"url": "/a/b"}]]
