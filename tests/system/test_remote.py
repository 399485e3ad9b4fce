"""Pictures at URLs, and where only a path will do. fsspec's own memory and file systems stand for object stores."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from mmsent.cli.main import main
from mmsent.config import DataSettings, EncoderSettings, ExtractSettings, ViewSettings
from mmsent.data.dataset import load_dataset
from mmsent.data.images import read_image
from mmsent.data.prepare import prepare
from mmsent.errors import CacheError, DataError, UsageError
from mmsent.features.cache import Cache
from mmsent.features.engine import LocalEngine
from mmsent.features.extract import extract
from mmsent.serve import review as review_module
from mmsent.serve.review import Review, Row
from mmsent.system import network
from mmsent.system.files import fetch, protocol, require_local
from tests.helpers.fake import fake_encoders
from tests.helpers.made import make_manifest


def run(manifest: Path, out: Path, remote: tuple[str, ...] = (), max_bad: float = 0.0) -> Any:
    dataset = load_dataset(manifest, DataSettings(remote=remote))
    return extract(
        dataset,
        dataset.splits,
        out,
        encoder=EncoderSettings(),
        views=ViewSettings(count=1),
        options=ExtractSettings(max_bad=max_bad),
        engine=LocalEngine(fake_encoders()),
        show=False,
    )


@pytest.fixture
def store() -> Iterator[Any]:
    """An object store in memory."""
    found = fsspec.filesystem("memory")
    yield found
    found.store.clear()


@pytest.fixture
def posts(tmp_path: Path) -> Path:
    return make_manifest(tmp_path / "posts", "jsonl", 12, 4, size=20)


def upload(posts: Path, store: Any) -> None:
    for path in (posts.parent / "pictures").iterdir():
        store.pipe(f"/bucket/pictures/{path.name}", path.read_bytes())


def moved(manifest: Path, prefix: str) -> Path:
    """A copy of a manifest whose pictures are named by URLs."""
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    rows = [row | {"image": f"{prefix}{row['image']}"} for row in rows]
    out = manifest.parent / "moved" / manifest.name
    out.parent.mkdir()
    out.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return out


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_pictures_at_urls_give_the_same_cache(posts: Path, store: Any, tmp_path: Path, kind: str) -> None:
    upload(posts, store)
    prefix = "memory://bucket/" if kind == "memory" else f"{posts.parent.as_uri()}/"
    local = run(posts, tmp_path / "local").cache
    there = run(moved(posts, prefix), tmp_path / "there", (kind,)).cache
    for split in ("train", "test"):
        a, b = local.load(split), there.load(split)
        assert a.index.image_hashes == b.index.image_hashes
        assert (a.image == b.image).all()
        assert a.index.good.all()


def test_a_picture_that_cannot_be_fetched_is_quarantined(posts: Path, store: Any, tmp_path: Path) -> None:
    upload(posts, store)
    store.rm("/bucket/pictures/3.png")
    manifest = moved(posts, "memory://bucket/")
    result = run(manifest, tmp_path, ("memory",), max_bad=0.1)
    ((_, row_id, reason),) = result.quarantined
    assert row_id == "post 3"
    assert reason.startswith("picture cannot be read: ")
    upload(posts, store)
    again = run(manifest, tmp_path, ("memory",), max_bad=0.1)
    assert (again.encoded, again.quarantined) == ({"train": 1, "test": 0}, [])


def test_urls_are_fetched_only_where_that_is_allowed(posts: Path, tmp_path: Path) -> None:
    manifest = moved(posts, "https://host.invalid/")
    with pytest.raises(DataError, match=r"picture 'https://host\.invalid/.*' is at a URL; --remote https allows"):
        run(manifest, tmp_path, ("s3",))


def test_what_is_fetched_has_a_limit(store: Any) -> None:
    store.pipe("/a", b"12345")
    assert fetch("memory://a", 5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        fetch("memory://a", 4)
    with pytest.raises(OSError, match="not allowed in a URL"):
        fetch("simplecache::memory://a", 5)
    with pytest.raises(DataError, match="picture cannot be read"):
        read_image("memory://b")
    with pytest.raises(UsageError, match="nosuch://a"):
        fetch("nosuch://a", 5)


def test_what_does_not_arrive_in_time_is_given_up(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store.pipe("/a", b"12345")
    never = threading.Event()
    monkeypatch.setattr(type(store), "open", lambda *_, **__: never.wait(20))
    started = time.monotonic()
    with pytest.raises(DataError, match=r"picture cannot be read: it did not arrive within 0\.1 s"):
        read_image("memory://a", 0.1)
    assert time.monotonic() - started < 10
    never.set()


def test_the_review_waits_only_seconds_for_a_server_that_never_answers(
    posts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(review_module, "FETCHING", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and says nothing
        manifest = moved(posts, f"ftp://127.0.0.1:{silent.getsockname()[1]}/")
        dataset = load_dataset(manifest, DataSettings(remote=("ftp",)))
        review = Review([Row("post 1", None, "neutral", 0.5, {"neutral": 0.5}, {})], dataset)
        started = time.monotonic()
        with pytest.raises(DataError, match=r"did not arrive within 0\.2 s"):
            review.picture(0)
        assert time.monotonic() - started < 10


def test_a_dead_proxy_is_said_at_once_for_every_image(
    posts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []

    def refuse(address: tuple[str, int], timeout: float) -> None:
        asked.append(address)
        raise ConnectionRefusedError("Connection refused")

    monkeypatch.setattr("socket.create_connection", refuse)
    monkeypatch.setattr(network, "getproxies", lambda: {"https": "http://me:secret@proxy.invalid:3128"})
    monkeypatch.setattr(network, "proxy_bypass", lambda host: False)
    network._asked.cache_clear()
    with pytest.raises(DataError, match=r"the proxy proxy\.invalid \(.*cannot be reached") as caught:
        run(moved(posts, "https://host.invalid/"), tmp_path, ("https",))
    assert "secret" not in str(caught.value)
    assert set(asked) == {("proxy.invalid", 3128)}
    assert len(asked) <= 16  # once, or once per thread that came first


def test_images_at_urls_come_through_the_proxy(monkeypatch: pytest.MonkeyPatch, store: Any) -> None:
    given: list[Any] = []

    def url_to_fs(url: str, **options: Any) -> tuple[Any, str]:
        given.append(options)
        return store, "/a"

    store.pipe("/a", b"12345")
    monkeypatch.setattr("fsspec.core.url_to_fs", url_to_fs)
    monkeypatch.setattr("mmsent.system.files.dead_proxy", lambda proxy: "")
    monkeypatch.setattr(network, "getproxies", lambda: {"https": "proxy.invalid:3128"})
    monkeypatch.setattr(network, "proxy_bypass", lambda host: host == "near.invalid")
    for url in ("https://far.invalid/a", "https://near.invalid/a", "http://far.invalid/a"):
        assert fetch(url, 5) == b"12345"
    assert given == [{"proxy": "http://proxy.invalid:3128"}, {}, {}]


def test_a_prepared_copy_keeps_urls(posts: Path, tmp_path: Path) -> None:
    manifest = moved(posts, "memory://bucket/")
    done = prepare(load_dataset(manifest, DataSettings(remote=("memory",))), tmp_path / "out")
    assert done.skipped == ()
    rows = [json.loads(line) for line in (tmp_path / "out" / manifest.name).read_text(encoding="utf-8").splitlines()]
    assert [row["image"] for row in rows] == [f"memory://bucket/pictures/{i + 1}.png" for i in range(16)]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["extract", "--data", "s3://bucket/posts.jsonl"], "a data set or its manifest"),
        (["extract", "--cache", "s3://bucket/cache", "--encoder", "offline"], "a cache"),
        (["fit", "--cache", "gs://bucket/cache"], "a cache"),
    ],
)
def test_lists_and_caches_lie_on_a_disk(
    posts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, arguments: list[str], what: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if "--data" not in arguments:
        arguments = [*arguments, "--data", str(posts)]
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert f"{what} must be on a disk of this machine, not at a URL" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["posts"]


def test_paths_are_no_urls(tmp_path: Path) -> None:
    assert [protocol(p) for p in ("C:/data", "/data", "a/b:/c", "s3://b", "S3:/b")] == [None, None, None, "s3", "s3"]
    require_local(tmp_path, "a cache")
    with pytest.raises(CacheError, match="no cache"):
        Cache.open(tmp_path / "none.h5")
