"""The map over HTTP, and how fluid it is with 100,000 points."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from mmsent.data.dataset import Dataset
from mmsent.features.cache import Cache
from mmsent.report.landscape import Landscape
from mmsent.serve.app import create_app
from mmsent.serve.limits import Limits
from mmsent.serve.review import Review, validation_rows
from mmsent.serve.server import bind
from mmsent.serve.service import Service
from mmsent.training.runs import Run
from tests.helpers.fake import fake_encoders
from tests.serve.test_app import BASE, runs, world  # noqa: F401

MANY = 100_000


def made(cache: Cache, n: int) -> Landscape:
    """Three clouds of points."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, n)
    xy = rng.normal(size=(n, 2)) * 0.12 + np.array([[0.2, 0.2], [0.8, 0.3], [0.5, 0.8]])[label]
    predicted = np.where(rng.random(n) < 0.8, label, rng.integers(0, 3, n))
    columns = (label, predicted, rng.integers(80, 255, n), rng.integers(0, 3, n), rng.integers(1, 4, n))
    packed = [column.astype(np.uint8) for column in columns]
    return Landscape(cache, [f"post {i}" for i in range(n)], xy.astype(np.float32), "UMAP", *packed, heads=3)


@pytest.fixture(scope="module")
def cache(runs: list[Run]) -> Cache:  # noqa: F811
    return Cache.open(Path(runs[0].info["cache"]["path"]))


def app_of(runs: list[Run], data: Dataset, place: Any) -> FastAPI:  # noqa: F811
    rows, shared = validation_rows(runs)
    review = Review(rows, data, runs=[run.name for run in shared])
    service = Service(runs, Limits(), opener=lambda _: fake_encoders())
    return create_app(service, review=lambda: review, places=place)


def test_points_posts_and_pictures(
    runs: list[Run],  # noqa: F811
    world: tuple[Dataset, dict[str, Run]],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mmsent.report import landscape as module

    monkeypatch.setattr(module, "umap_points", lambda *_: None)
    opened = Cache.open(Path(runs[0].info["cache"]["path"]))
    with TestClient(app_of(runs, world[0], lambda: module.landscape(opened, runs)), base_url=BASE) as client:
        points = client.get("/map/points").json()
        held = points["ids"].index(validation_rows(runs)[0][0].id)
        post = client.get(f"/map/posts/{held}").json()
        picture = client.get(f"/map/pictures/{held}")
        assert client.get("/map").status_code == 200
        assert client.get("/map/posts/999").status_code == 422
        assert client.get("/map/pictures/999").status_code == 404
    assert points["ids"] == [p.id for p in [*world[0].of("train"), *world[0].of("test")]]
    assert (post["row"], post["review"], post["picture"], len(post["near"])) == (held, 0, True, 8)
    texts = {p.id: world[0].text_of(p) for p in world[0].posts}
    assert post["text"] == texts[points["ids"][held]]
    assert all(one["text"] == texts[points["ids"][one["row"]]][:140] for one in post["near"])
    assert picture.headers["content-type"] == "image/webp"


def test_without_a_cache_there_is_no_map(runs: list[Run], world: tuple[Dataset, dict[str, Run]]) -> None:  # noqa: F811
    with TestClient(app_of(runs, world[0], None), base_url=BASE) as client:
        assert client.get("/map/points").status_code == 404


# --- in a browser

WATCH = """
window.refused = [];
document.addEventListener("securitypolicyviolation", (event) => window.refused.push(event.violatedDirective));
"""
FRAMES = """
const [act, done] = [arguments[0], arguments[1]];
const canvas = document.getElementById("map");
const box = canvas.getBoundingClientRect();
const at = (i) => ({ clientX: box.left + box.width * (0.5 + 0.35 * Math.cos(i / 8)),
  clientY: box.top + box.height * (0.5 + 0.35 * Math.sin(i / 8)), pointerId: 1, bubbles: true });
document.getElementById(act).click();
const times = [];
let i = 0;
canvas.dispatchEvent(new PointerEvent("pointerdown", at(0)));
requestAnimationFrame(function frame(now) {
  times.push(now);
  i += 1;
  if (i > 50) {
    const before = performance.now();
    canvas.dispatchEvent(new PointerEvent("pointerup", at(i)));
    const [seconds, end] = [(times.at(-1) - times[0]) / 1000, performance.now() - before];
    return done({ seconds, end, frames: times.length - 1 });
  }
  canvas.dispatchEvent(new PointerEvent("pointermove", at(i)));
  requestAnimationFrame(frame);
});
"""


@pytest.fixture(scope="module")
def address(cache: Cache, runs: list[Run], world: tuple[Dataset, dict[str, Run]]) -> Iterator[str]:  # noqa: F811
    bound = bind("127.0.0.1", 0)
    app = app_of(runs, world[0], lambda: made(cache, MANY))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    yield f"http://127.0.0.1:{bound.getsockname()[1]}/"
    server.should_exit = True
    thread.join(10)


@pytest.mark.slow
def test_100000_points_stay_fluid(browser: Any, address: str, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = {"width": 1400, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH})
    browser.set_script_timeout(60)
    paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
    first = drawn = end = np.inf
    rates = {"pan": 0.0, "lasso": 0.0}
    for attempt in range(
        4
    ):  # the service makes the map at the first; the best of the others, for a machine may be busy
        browser.get("about:blank")
        browser.get(f"{address}map")
        wait(browser)
        if attempt == 0:
            continue
        times = browser.execute_script(f"return [{paint}, window.mmsentMapDrawn]")
        first, drawn = min(first, times[0]), min(drawn, times[1])
        for act in rates:
            found = browser.execute_async_script(FRAMES, act)
            rates[act] = max(rates[act], found["frames"] / found["seconds"])
        end = min(end, found["end"])
    told = browser.execute_script("return document.getElementById('list-title').textContent")
    refused = browser.execute_script("return window.refused")
    with capsys.disabled():
        print(f"\n{MANY:,} points: first paint {first:.0f} ms, map drawn {drawn:.0f} ms")
        print(", ".join(f"{act} {rate:.0f} frames/s" for act, rate in rates.items()))
        print(f"choosing the points in the lasso {end:.0f} ms")
    assert refused == []
    assert "posts in the lasso" in told
    assert first < 2000
    assert drawn < 2000
    assert min(rates.values()) >= 30


def wait(browser: Any) -> None:
    for _ in range(300):
        if browser.execute_script("return document.documentElement.dataset.ready === 'yes' && window.mmsentMapDrawn"):
            return
        time.sleep(0.1)
    raise AssertionError(browser.execute_script("return document.body.innerText"))
