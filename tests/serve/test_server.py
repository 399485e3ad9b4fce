"""A running server against what its own description promises, against odd input, and against a signal."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from mmsent.data.dataset import load_dataset
from mmsent.data.images import MAX_BYTES
from mmsent.errors import DataError
from mmsent.features.new_posts import NewPost
from mmsent.inference.predict import predict
from mmsent.serve.server import _Server, bind
from mmsent.system.files import read_file
from mmsent.training.runs import open_run
from tests.helpers.corpus import ITEMS, TEXTS, Item, encoded, scene
from tests.helpers.fake import fake_encoders
from tests.helpers.fake_cache import fake_cache
from tests.helpers.made import make_guid

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with its cache and two runs of fake features; one run labels posts that lack a half."""
    from mmsent.config import FitSettings, SplitSettings
    from mmsent.training.fit import fit

    at = tmp_path_factory.mktemp("contract")
    data = load_dataset(make_guid(at / "posts", n_train=40, n_test=12, size=40))
    cache = fake_cache(data, at / "cache")
    quick: dict[str, Any] = {"epochs": 2, "lr": 1e-2, "hidden": 16, "common_width": 16, "heads": 4}
    fit(cache, at / "runs", [FitSettings(**quick)], SplitSettings())
    fit(cache, at / "half", [FitSettings(**quick, modality_dropout=0.4)], SplitSettings())
    return at


class Server:
    """`mmsent serve` with fake encoders, in a process of its own."""

    def __init__(self, folder: Path, *more: str, runs: str = "runs", pause: float = 0) -> None:
        names = [str(path) for path in sorted((folder / runs).iterdir()) if (path / "run.json").is_file()]
        command = [sys.executable, "-m", "tests.helpers.serve_fakes"]
        self.process = subprocess.Popen(
            [*command, str(pause), *names, "--data", str(folder / "posts"), "--port", "0", *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={name: value for name, value in os.environ.items() if not name.startswith("MMSENT_")}
            | {"PYTHONPATH": str(ROOT)},
        )
        assert self.process.stdout is not None
        found = re.search(r"http://\S+/", self.process.stdout.readline())
        assert found, self.process.stderr.read() if self.process.stderr else ""
        self.address = found[0].rstrip("/")

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal and wait: exit status and standard error."""
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said


@contextlib.contextmanager
def serving(folder: Path, *more: str, **how: Any) -> Iterator[Server]:
    server = Server(folder, *more, **how)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.communicate()


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with serving(folder, "--max-body", "4000000") as running:
        yield running


def as_json(post: NewPost) -> dict[str, Any]:
    assert isinstance(post.image, Path)
    return {"id": post.id, "text": post.text, "image": base64.b64encode(post.image.read_bytes()).decode()}


def posts_of(folder: Path) -> list[NewPost]:
    data = load_dataset(folder / "posts")
    return [NewPost(post.id, data.text_of(post), post.image) for post in data.posts if post.split == "test"]


# --- behind a proxy


NGINX = """
daemon off; pid {at}/nginx.pid; error_log {at}/error.log;
events {{}}
http {{
  access_log off; client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/a;
  uwsgi_temp_path {at}/b; scgi_temp_path {at}/c;
  {server}
}}
"""


@pytest.mark.skipif(shutil.which("nginx") is None, reason="no nginx on this machine")
def test_the_proxy_of_the_documents(folder: Path, tmp_path: Path) -> None:
    """The server block of the how-to as it stands, without TLS and with free ports: pages load and may ask."""
    text = (ROOT / "docs" / "how-to" / "serve.md").read_text(encoding="utf-8")
    block = text.split("```nginx\n", 1)[1].split("```", 1)[0]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with serving(folder, "--allow-host", "posts.example.org") as server:
        block = block.replace("listen 443 ssl;", f"listen 127.0.0.1:{port};")
        block = block.replace("http://127.0.0.1:8000", server.address)
        (tmp_path / "nginx.conf").write_text(NGINX.format(at=tmp_path, server=block))
        proxy = subprocess.Popen(["nginx", "-c", str(tmp_path / "nginx.conf"), "-p", str(tmp_path)])
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"host": "posts.example.org"}) as client:
                wait_for(client)
                for root in ("/", "/mmsent/"):
                    pages_work(client, root, posts_of(folder)[0])
                assert client.get("/mmsent").headers["location"].endswith("/mmsent/")
        finally:
            proxy.terminate()
            proxy.wait(20)


def wait_for(client: httpx.Client) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with contextlib.suppress(httpx.ConnectError):
            client.get("/healthz")
            return
        time.sleep(0.05)


def pages_work(client: httpx.Client, root: str, post: NewPost) -> None:
    """Every link, script and request of the pages leads to an answer, seen from where the page is."""
    for name in ("", "review", "docs"):
        page = client.get(root + name)
        assert page.status_code == 200
        links = re.findall(r'(?:href|src)="([^"#]+)"', page.text)
        assert len(links) >= 6
        for script in [link for link in links if link.endswith(".js")]:
            code = client.get(urljoin(root + name, script)).text
            links += re.findall(r'askJson\("([^"]+)"\)', code)
        for link in links:
            assert client.get(urljoin(root + name, link)).status_code == 200, (root + name, link)
    page = {"origin": "https://posts.example.org"}
    asked = client.post(urljoin(root, "predict"), json=as_json(post), headers=page)
    assert asked.status_code == 200
    assert (
        client.post(urljoin(root, "predict"), json=as_json(post), headers={"origin": "https://x.org"}).status_code
        == 403
    )
    moved = client.post(urljoin(root, "predict/"), json=as_json(post))
    assert urljoin(root + "predict/", moved.headers["location"]) == f"{root}predict"


# --- the description


@pytest.mark.timeout(600)
@pytest.mark.parametrize("keyed", [False, True])
def test_schemathesis_finds_no_breach(folder: Path, keyed: bool, tmp_path: Path) -> None:
    """422 is an answer to what fits the schema too: a text in base64 need not be a picture."""
    config = tmp_path / "schemathesis.toml"
    config.write_text('[checks.positive_data_acceptance]\nexpected-statuses = ["2xx", 401, 403, 404, 413, 422]\n')
    with serving(folder, "--max-body", "4000000", *(["--api-key", "secret"] if keyed else [])) as server:
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config)),
            *("run", f"{server.address}/openapi.json", "--max-examples", "12" if keyed else "40", "--seed", "1"),
            *("--header", "Authorization: Bearer secret") * keyed,
        ]
        headers = {"Authorization": "Bearer secret"}
        httpx.get(f"{server.address}/map/points", headers=headers, timeout=120)  # made once, in many seconds
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=500, check=False)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert httpx.get(f"{server.address}/healthz").json()["waiting"] == 0
        numbers = httpx.get(f"{server.address}/metrics", headers=headers).text
        status, said = server.stop()
    assert status == 0
    assert "Traceback" not in said
    sent = re.findall(r'mmsent_requests_total\{endpoint="(/[^"]*)",status="(\d+)"\} (\d+)', numbers)
    assert {path for path, _, _ in sent} >= {
        "/predict",
        "/explain",
        "/review/rows",
        "/review/list",
        "/review/pictures/{row}",
    }
    assert not [one for one in sent if one[1].startswith("5")]
    assert sum(int(n) for _, _, n in sent) > 200


# --- odd input


def odd_posts(item: Item, folder: Path) -> list[tuple[bytes | None, bytes | None]]:
    """Picture and text of an item's posts, as bytes; None where there is none. Lists themselves are not posted."""
    folder.mkdir()
    try:
        root = item.build(folder)
        data = load_dataset(root, strict=False)
    except (DataError, OSError):
        return []
    found = []
    for post in data.posts:
        if item.odd is not None and post.id != item.odd:
            continue

        def raw(what: Any) -> bytes | None:
            try:
                return read_file(what, MAX_BYTES) if isinstance(what, Path) else what.encode() if what else None
            except (OSError, UnicodeError):
                return None

        found.append((raw(post.image), raw(post.text)))
    return found[:3]


@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("runs", ["runs", "half"])
def test_odd_input_gets_an_answer_or_a_reason(folder: Path, tmp_path: Path, runs: str) -> None:
    sound = posts_of(folder)[0]
    seen: dict[int, int] = {}
    with serving(folder, "--max-body", "40000000", runs=runs) as server, httpx.Client(timeout=60) as client:
        for item in ITEMS:
            for image, text in odd_posts(item, tmp_path / item.slug):
                form = [("image", ("odd", image))] if image is not None else []
                form += [("text", (None, text))] if text is not None else []
                answers = [client.post(f"{server.address}/predict", files=form)] if form else []
                given = {} if image is None else {"image": base64.b64encode(image).decode()}
                with contextlib.suppress(UnicodeDecodeError):
                    given |= {} if text is None else {"text": text.decode()}
                    answers.append(client.post(f"{server.address}/predict", json=given))
                for answer in answers:
                    seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
                    body = answer.json()
                    if answer.status_code == 200:
                        assert sum(body["probabilities"].values()) == pytest.approx(1, abs=1e-6)
                    else:
                        assert answer.status_code in {400, 413, 422}, (item.name, body)
                        assert len(body["detail"]) > 5
            assert server.process.poll() is None, item.name
        wanted = predict([sound], [open_run(p) for p in (folder / runs).iterdir()], encoders=fake_encoders())[0]
        found = client.post(f"{server.address}/predict", json=as_json(sound)).json()
        status, said = server.stop()
    assert found["probabilities"] == pytest.approx(wanted.probabilities, abs=1e-5)
    assert (status, "Traceback" in said) == (0, False)
    assert seen[200] > 40, seen
    assert seen[422] > 10, seen


# --- signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_once_what_was_taken_is_answered(folder: Path, number: int) -> None:
    posts = posts_of(folder)[:8]
    with serving(folder, "--batch-size", "1", pause=0.25) as server, ThreadPoolExecutor(8) as pool:

        def ask(post: NewPost) -> int:
            return httpx.post(f"{server.address}/predict", json=as_json(post), timeout=60).status_code

        sent = [pool.submit(ask, post) for post in posts]
        until = time.monotonic() + 30
        while httpx.get(f"{server.address}/healthz").json()["waiting"] < 8 and time.monotonic() < until:
            time.sleep(0.02)
        status, said = server.stop(number)
        assert [one.result() for one in sent] == [200] * 8
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.address}/healthz")
    assert (status, said.splitlines()[-1]) == (0, "stopped; every accepted post was answered")


def test_who_has_connected_before_the_signal_is_answered(folder: Path) -> None:
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with serving(folder) as server, contextlib.ExitStack() as hang_up:

        def connected() -> socket.socket:
            port = int(server.address.rsplit(":", 1)[1])
            return hang_up.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))

        early = connected()
        time.sleep(0.3)  # the server has taken it, and waits for its request
        server.process.send_signal(signal.SIGSTOP)
        queued = connected()  # by the kernel
        queued.sendall(request)
        server.process.send_signal(signal.SIGTERM)
        server.process.send_signal(signal.SIGCONT)
        time.sleep(0.3)
        early.sendall(request)
        assert [one.recv(12) for one in (queued, early)] == [b"HTTP/1.1 200"] * 2
        assert server.process.wait(60) == 0


def test_a_connection_that_the_kernel_still_holds_is_taken_along() -> None:
    """It came while the server was busy: asyncio alone would close it unseen."""
    bound = bind("127.0.0.1", 0)
    server = _Server(uvicorn.Config(FastAPI(), log_level="warning"), lambda: None)

    async def came_and_went() -> bytes:
        server.config.load()
        server.lifespan = server.config.lifespan_class(server.config)
        await server.startup([bound])
        with socket.create_connection(bound.getsockname(), timeout=30) as client:
            client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await server.shutdown([bound])
            return client.recv(12)

    assert asyncio.run(came_and_went()) == b"HTTP/1.1 200"


def test_a_connection_without_a_request_does_not_hold_up_the_end(folder: Path) -> None:
    with serving(folder) as server:
        port = int(server.address.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port), timeout=30) as idle:
            signalled = time.monotonic()
            assert server.stop()[0] == 0
            assert time.monotonic() - signalled < 15  # half of --drain
            assert idle.recv(1) == b""


def test_clients_of_a_server_that_is_restarted_see_refused_connections_alone(folder: Path) -> None:
    posts = posts_of(folder)
    wanted = {
        p.id: p for p in predict(posts, [open_run(p) for p in (folder / "runs").iterdir()], encoders=fake_encoders())
    }
    stop, outcomes = threading.Event(), []

    def ask(turn: int, address: str) -> None:
        while not stop.is_set():
            post = posts[turn % len(posts)]
            try:
                answer = httpx.post(f"{address}/predict", json=as_json(post), timeout=60)
                right = answer.status_code == 200 and answer.json()["probabilities"] == pytest.approx(
                    wanted[post.id].probabilities, abs=1e-5
                )
                outcomes.append("right" if right else f"wrong: {answer.status_code}")
            except httpx.ConnectError:
                outcomes.append("refused")
                time.sleep(0.02)
            except httpx.HTTPError as error:
                outcomes.append(type(error).__name__)

    with serving(folder, pause=0.01) as first, ThreadPoolExecutor(8) as pool:
        port = first.address.rsplit(":", 1)[1]
        asking = [pool.submit(ask, turn, first.address) for turn in range(8)]
        time.sleep(1)
        first.stop()
        time.sleep(0.5)
        before = len(outcomes)
        with serving(folder, "--port", port, pause=0.01):
            time.sleep(1)
            stop.set()
            for one in asking:
                one.result()
    assert set(outcomes) == {"right", "refused"}
    assert "right" in outcomes[before:]


def test_the_command_in_a_process_labels_texts_of_every_encoding(server: Server) -> None:
    for text in TEXTS.values():
        files: dict[str, Any] = {"text": (None, text.encode()), "image": ("a.png", encoded(scene()))}
        assert httpx.post(f"{server.address}/predict", files=files).status_code == 200
