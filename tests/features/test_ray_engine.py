"""Extraction on Ray: the units of work without a cluster, and (slow) clusters of two nodes that lose one."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import pickle
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest

import mmsent.features.extract
from mmsent.cli.main import main
from mmsent.config import EncoderSettings, ExtractSettings, ViewSettings, settings
from mmsent.data.dataset import Post, load_dataset
from mmsent.data.images import Pixels
from mmsent.encoders.base import Embeddings, Encoders
from mmsent.errors import DataError, EncoderError, MmsentError, UsageError
from mmsent.features import ray_engine as distributed
from mmsent.features import units
from mmsent.features.batches import TEXT_WINDOW, block_rows
from mmsent.features.cache import NO_HASH, Cache, Row, RowTable
from mmsent.features.cache.journal import Entry
from mmsent.features.engine import LocalEngine, Work
from mmsent.features.ray_cluster import Slots, find_slots
from mmsent.features.ray_engine import Pool, RayEngine
from mmsent.features.units import UNIT_BLOCKS, Unit, UnitResult, packed, reading_units, units_of, unpacked
from tests.helpers.fake import FakeImageEncoder, FakeTextEncoder
from tests.helpers.made import make_guid

ray = pytest.importorskip("ray")

Opener = Callable[[EncoderSettings], Encoders]


def flags(n: int, *at: int) -> Any:
    """(n,) True at some positions."""
    out = np.zeros(n, bool)
    out[list(at)] = True
    return out


def marked(log: str | None = None, seconds: float = 0.0, bomb: str | None = None, seed: int = 0) -> Opener:
    """Makes encoders whose embeddings carry a mark of their whole batch and of the place in it, as real ones do in the
    low bits. log: a file that gets a line a batch; seconds: what a batch takes; bomb: a file; who finds it dies."""

    def note(half: str, keys: list[str]) -> None:
        if bomb and os.path.exists(bomb):
            os.unlink(bomb)
            os._exit(1)
        time.sleep(seconds)
        if log:
            number = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(number, (json.dumps([os.getpid(), half, keys]) + "\n").encode())
            os.close(number)

    def mark(vectors: Embeddings, batch: bytes) -> Embeddings:
        whole = np.frombuffer(hashlib.sha256(batch).digest(), np.uint8).astype(np.float32)
        place = np.arange(len(vectors), dtype=np.float32)[:, None]
        return np.concatenate([vectors[:, :-33], np.tile(whole, (len(vectors), 1)), place], axis=1).astype(np.float32)

    class Image(FakeImageEncoder):
        def encode(self, pixels: Pixels) -> Embeddings:
            note("image", [hashlib.sha256(p.tobytes()).hexdigest() for p in pixels if p.any()])
            return mark(super().encode(pixels), pixels.tobytes())

    class Text(FakeTextEncoder):
        def encode(self, texts: list[str]) -> Embeddings:
            note("text", texts)
            vectors = super().encode(texts)
            return np.concatenate([vectors, mark(np.zeros((len(texts), 33), np.float32), "\0".join(texts).encode())], 1)

    def opened(_: EncoderSettings) -> Encoders:
        pair = Encoders(Image(seed), Text())
        pair.text.card = pair.text.card.model_copy(update={"width": 65})
        return pair

    return opened


def extracted(root: Path, out: Path, how: RayEngine | Encoders, views: int = 1, **options: Any) -> Any:
    dataset = load_dataset(root)
    engine = how if isinstance(how, RayEngine) else LocalEngine(how)
    return mmsent.features.extract.extract(
        dataset,
        dataset.splits,
        out,
        encoder=EncoderSettings(device="cpu"),
        views=ViewSettings(count=views),
        options=ExtractSettings(**options),
        engine=engine,
        show=False,
    )


def same_rows(a: Cache, b: Cache) -> None:
    """Every data set of two caches, bit for bit, and all that determines or describes the rows."""
    assert (a.fingerprint, a.labels, a.rows, a.data_name) == (b.fingerprint, b.labels, b.rows, b.data_name)
    assert a.provenance["content"] == b.provenance["content"]
    with h5py.File(a.path) as x, h5py.File(b.path) as y:
        assert set(x) == set(y)
        for split in x:
            assert set(x[split]) == set(y[split])
            for name in x[split]:
                assert x[split][name].dtype == y[split][name].dtype
                assert x[split][name][...].tobytes() == y[split][name][...].tobytes(), (split, name)


# --- without a cluster


class HereActor:
    """An actor in this process. Its `work.remote` gives a result to come: a function."""

    def __init__(self, made: Any) -> None:
        self.killed = False
        self.work = SimpleNamespace(remote=lambda unit: functools.partial(self.call, made.work, unit))

    def call(self, work: Callable[[str], UnitResult], unit: str) -> UnitResult:
        assert not self.killed
        return work(unit)


class HereRay:
    """What the engine uses of Ray, in this process: any result may be the next, as on a cluster. fail_after: results
    after which the engine is stopped."""

    exceptions, __version__ = ray.exceptions, ray.__version__

    def __init__(self, seed: int, fail_after: int | None = None) -> None:
        self.chance, self.fail_after, self.finished = random.Random(seed), fail_after, 0
        self.killed = 0

    def remote(self, **options: Any) -> Callable[[Any], Any]:
        assert options["max_concurrency"] == distributed.CALLS
        return lambda kind: SimpleNamespace(remote=lambda *given: HereActor(kind(*given)))

    def wait(self, waiting: list[Any]) -> tuple[list[Any], list[Any]]:
        return [self.chance.choice(waiting)], []

    def get(self, ready: Callable[[], UnitResult]) -> UnitResult:
        if self.finished == self.fail_after:
            raise KeyboardInterrupt
        self.finished += 1
        return pickle.loads(pickle.dumps(ready()))

    def kill(self, actor: HereActor) -> None:
        assert not actor.killed
        actor.killed = True
        self.killed += 1


class Alone(RayEngine):
    """Two actors in this process."""

    def __init__(self, opener: Opener, seed: int = 0, fail_after: int | None = None) -> None:
        super().__init__(opener=opener)
        self._ray = self.here = HereRay(seed, fail_after)
        self._threads, self._slots = 1, Slots(2, {"num_cpus": 1}, 2)

    def open(self, encoder: EncoderSettings) -> Encoders:
        self._encoder = encoder
        self._probe = {"environment": {"versions": {}, "machine": {}, "code": {}}}
        return self._opener(encoder)

    def _results(self, units: Iterable[Unit], pool: Pool) -> Iterator[UnitResult]:
        """Raises AssertionError if more units are taken than two actors hold."""

        def counted() -> Iterator[Unit]:
            for taken, unit in enumerate(units):
                assert taken < self.here.finished - before + 2 * (distributed.CALLS + distributed.QUEUED)
                yield unit

        before = self.here.finished
        assert iter(units) is units, "units of all posts at once take kilobytes per post"
        yield from super()._results(counted(), pool)


@pytest.fixture(scope="module")
def posts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_guid(tmp_path_factory.mktemp("posts") / "posts", n_train=90, n_test=31, size=20)
    (root / "data" / "5.jpg").write_bytes(b"no picture")
    (root / "data" / "7.txt").unlink()
    return root


@pytest.mark.parametrize("read_here", [0, 1000])
def test_units_in_any_order_make_the_same_cache(
    posts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_here: int
) -> None:
    monkeypatch.setattr(distributed, "READ_HERE", read_here)
    monkeypatch.setattr(units, "READ_ROWS", 40)
    local = extracted(posts, tmp_path / "local", marked()(EncoderSettings()), max_bad=0.1)
    there = extracted(posts, tmp_path / "ray", Alone(marked()), max_bad=0.1)
    same_rows(local.cache, there.cache)
    assert there.quarantined == local.quarantined
    assert len(there.quarantined) == 2
    assert there.encoded == local.encoded
    assert there.cache.provenance["made_by"][0]["engine"]["name"] == "ray"


@pytest.mark.parametrize("after", [0, 3, 9])
def test_either_engine_goes_on_where_the_other_was_stopped(posts: Path, tmp_path: Path, after: int) -> None:
    local = extracted(posts, tmp_path / "local", marked()(EncoderSettings()), max_bad=0.1)
    with pytest.raises(KeyboardInterrupt):
        extracted(posts, tmp_path / "ray", Alone(marked(), fail_after=after), max_bad=0.1)
    log = tmp_path / "log"
    there = extracted(posts, tmp_path / "ray", marked(str(log))(EncoderSettings()), max_bad=0.1)
    same_rows(local.cache, there.cache)
    encoded = [key for line in log.read_text().splitlines() for key in json.loads(line)[2]]
    assert len(encoded) < 119 * 3 or after == 0  # 119 good rows of 121: a text and two views each


def test_only_changed_rows_are_sent(tmp_path: Path) -> None:
    root = make_guid(tmp_path / "posts", n_train=90, n_test=31, size=20)
    engine = Alone(marked())
    extracted(root, tmp_path / "cache", engine)
    engine.here.finished = 0
    (root / "data" / "7.txt").write_text("another text")
    result = extracted(root, tmp_path / "cache", engine)
    assert (engine.here.finished, result.encoded) == (1, {"train": 1, "test": 0})


def test_too_many_bad_rows_stop_it(posts: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"more than --max-bad 0\.01"):
        extracted(posts, tmp_path, Alone(marked()))


def test_units_are_taken_as_actors_finish_them() -> None:
    """Of a list without end, too; each actor is let go once nothing is left for it."""
    posts = [Post(f"p{i}", "train", None, None, f"text {i}") for i in range(64)]
    pool = Pool(lambda: lambda unit: ({"start": unit.start}, b""), (), 2, {})
    held = 2 * (distributed.CALLS + distributed.QUEUED)
    taken = 0

    def units_up_to(n: int) -> Iterator[Unit]:
        nonlocal taken
        for taken in range(1, n + 1):
            yield Unit("train", "text", taken, posts[:1], [0])

    for n in (0, 1, 5, 200):
        engine, taken = Alone(marked()), 0
        most, found = 0, []
        for finished, (about, _) in enumerate(engine._results(units_up_to(n), pool)):
            most = max(most, taken - finished)
            found.append(about["start"])
        assert sorted(found) == list(range(1, n + 1))
        assert most == min(n, held)
        assert engine.here.killed == min(n, 2)


def test_units_are_whole_windows_and_blocks() -> None:
    n = 2 * TEXT_WINDOW + 5
    posts = [Post(f"p{i}", "train", "positive", Path(f"{i}.png"), f"text {i}") for i in range(n)]
    rows = RowTable.of(Row(p.id, 0, b"i" * 32, b"t" * 32) for p in posts)
    size = block_rows(16, 5)
    found = list(units_of([Work("train", posts, rows, flags(n, 0, n - 1), flags(n, *range(100, n)))], size))
    texts = [u for u in found if u.half == "text"]
    assert [(u.start, len(u.posts), list(u.needed)) for u in texts] == [
        (0, TEXT_WINDOW, [0]),
        (2 * TEXT_WINDOW, 5, [4]),
    ]
    images = [u for u in found if u.half == "image"]
    assert all(u.start % size == 0 and (len(u.posts) % size == 0 or u is images[-1]) for u in images)
    assert [u.start + i for u in images for i in u.needed] == list(range(100, n))


def test_a_unit_survives_its_journey() -> None:
    """Names that are no UTF-8, texts that are no Unicode; labels stay behind, and what is not needed."""
    odd = os.fsdecode(b"caf\xe9.png")
    posts = [
        Post("情感 😀", "test", "positive", Path(odd), "half a pair \ud800"),
        Post("b", "test", None, None, Path("texts/b.txt")),
        Post("c", "test", None, Path("c.png"), None),
    ]
    rows = RowTable.of(Row(p.id, -1, NO_HASH, NO_HASH) for p in posts)
    text, image = list(units_of([Work("test", posts, rows, flags(3, 0, 2), flags(3, 0, 1))], 8))
    (both,) = reading_units("test", posts)
    assert "positive" not in text.dumps() + image.dumps() + both.dumps()
    here = Path.cwd()
    back = [Unit.loads(unit.dumps()) for unit in (text, image, both)]
    assert [p.id for unit in back for p in unit.posts] == [p.id for p in posts] * 3
    assert (
        [p.text for p in back[0].posts]
        == [p.text for p in back[2].posts]
        == ["half a pair \ud800", here / "texts/b.txt", None]
    )
    assert [p.image for p in back[1].posts] == [here / odd, None, None]
    assert [p.image for p in back[2].posts] == [here / odd, None, here / "c.png"]
    assert [unit.needed for unit in back] == [[0, 2], [0, 1], []]


def test_entries_survive_their_journey() -> None:
    vectors = np.arange(12, dtype=np.float16).reshape(2, 6)
    given = [
        Entry("a", b"h" * 32, vectors, "", 3),
        Entry("b", NO_HASH, None, "no picture"),
        Entry("c", NO_HASH, vectors),
    ]
    about, data = packed(given)
    back = unpacked(json.loads(json.dumps(about)), data, "float16")
    for a, b in zip(given, back, strict=True):
        assert (a.id, a.hash, a.reason, a.tokens) == (b.id, b.hash, b.reason, b.tokens)
        assert (a.data is None and b.data is None) or np.array_equal(a.data, b.data)


class Blind(Alone):
    """One node does not see the pictures."""

    def _results(self, units: Iterable[Unit], pool: Pool) -> Iterator[UnitResult]:
        blind = (replace(u, posts=[replace(p, image=p.image and Path("/nowhere")) for p in u.posts]) for u in units)
        return super()._results(blind, pool)


@pytest.mark.parametrize("read_here", [0, 1000])
def test_a_node_that_does_not_see_the_files_is_named(
    posts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_here: int
) -> None:
    monkeypatch.setattr(distributed, "READ_HERE", read_here)
    with pytest.raises(DataError, match=r"does not see .*every node must see the data set at"):
        extracted(posts, tmp_path, Blind(marked()), max_bad=1.0)


@pytest.mark.parametrize(
    ("told", "message"), [("card", "another encoder than on the first"), ("code", "another mmsent")]
)
def test_nodes_must_be_alike(posts: Path, tmp_path: Path, told: str, message: str) -> None:
    class Odd(Alone):
        def _results(self, units: Iterable[Unit], pool: Pool) -> Iterator[UnitResult]:
            job, opener = json.loads(pool.arguments[0]), pool.arguments[1]
            if told == "code":
                job["code"] = "0" * 64
            else:
                opener = marked(seed=1)
            return super()._results(units, replace(pool, arguments=(json.dumps(job), opener)))

    with pytest.raises(EncoderError, match=message):
        extracted(posts, tmp_path, Odd(marked()), max_bad=0.1)


def test_without_ray(monkeypatch: pytest.MonkeyPatch, posts: Path, tmp_path: Path, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SystemExit) as stopped:
        main(["extract", "--data", str(posts), "--cache", str(tmp_path), "--encoder", "offline", "--engine", "ray"])
    assert stopped.value.code == 2
    assert "pip install 'mmsent[ray]'" in capsys.readouterr().err


def test_the_local_engine_loads_no_ray() -> None:
    code = "import sys, mmsent.features.extract, mmsent.cli; print('ray' in sys.modules, 'pyarrow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize(
    ("nodes", "threads", "device", "actors", "resources"),
    [
        ([(4, 0), (7, 0)], 2, "auto", 5, {"num_cpus": 2}),
        ([(4, 0), (1, 0)], 4, "cpu", 1, {"num_cpus": 4}),
        ([(16, 4), (32, 2)], 8, "auto", 6, {"num_gpus": 1, "num_cpus": 4}),
        ([(64, 1), (64, 0)], 8, "cuda", 1, {"num_gpus": 1, "num_cpus": 8}),
        ([(64, 1), (64, 0)], 8, "cpu", 16, {"num_cpus": 8}),
        ([(1, 2)], 1, "auto", 1, {"num_gpus": 1, "num_cpus": 1}),
    ],
)
def test_one_actor_a_gpu_or_a_cpu_slot(
    nodes: list[tuple[int, int]], threads: int, device: str, actors: int, resources: dict[str, int]
) -> None:
    alive = [{"Alive": True, "Resources": {"CPU": float(c)} | ({"GPU": float(g)} if g else {})} for c, g in nodes]
    found = find_slots([*alive, {"Alive": False, "Resources": {}}], device, threads, None)
    assert found == Slots(actors, resources, sum(c for c, _ in nodes))


def test_actors_that_do_not_fit() -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": 4.0}}]
    with pytest.raises(UsageError, match="--actors 3: the Ray cluster has room for 2"):
        find_slots(nodes, "auto", 2, 3)
    with pytest.raises(UsageError, match=r"has 5 CPUs for an actor \(the largest has 4\); OMP_NUM_THREADS=1"):
        find_slots(nodes, "auto", 5, 3)
    for device, message in (("cuda", "has no GPU"), ("cuda:1", "gives each actor its own GPU")):
        with pytest.raises(UsageError, match=message):
            find_slots(nodes, device, 5, 3)


def test_requests_that_make_no_sense(posts: Path, tmp_path: Path, capsys: Any) -> None:
    for option, value in (("--actors", "2"), ("--address", "auto")):
        with pytest.raises(SystemExit) as stopped:
            main(["extract", "--data", str(posts), "--cache", str(tmp_path), option, value])
        assert stopped.value.code == 2
        assert "--address and --actors go with --engine ray" in capsys.readouterr().err
    with pytest.raises(UsageError, match="engine"):
        settings(ExtractSettings, engine="spark")
    with pytest.raises(UsageError, match="on a node of the cluster"):
        RayEngine("ray://host:10001")


# --- clusters of two nodes


def wait_for(what: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes of one CPU each, small; the second is `cluster.other`. Actors compute with one thread."""
    import torch
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    small = {"num_cpus": 1, "object_store_memory": 100 << 20}
    made = Cluster(initialize_head=True, head_node_args=small | {"include_dashboard": False})
    made.other = made.add_node(**small)
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not find the tests' own modules
    try:
        yield made
    finally:
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
        ray.shutdown()
        made.shutdown()
        torch.set_num_threads(threads)


def batches(log: Path) -> list[tuple[int, str, list[str]]]:
    """(process, half, keys) of each batch that was encoded so far."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [tuple(json.loads(line)) for line in lines]


@pytest.mark.slow
def test_a_node_is_killed_while_1000_posts_are_extracted(cluster: Any, tmp_path: Path) -> None:
    root = make_guid(tmp_path / "posts", n_train=900, n_test=100, size=20)
    local = extracted(root, tmp_path / "local", marked()(EncoderSettings()))
    log = tmp_path / "log"
    killed: list[int] = []

    def kill() -> None:
        # Both nodes are at work, and a good part is done.
        wait_for(lambda: len({p for p, half, _ in batches(log) if half == "image"}) == 2 and len(batches(log)) > 80)
        killed.append(len(batches(log)))
        cluster.remove_node(cluster.other, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    with RayEngine(opener=marked(str(log), seconds=0.1)) as engine:
        there = extracted(root, tmp_path / "ray", engine)
    killer.join()
    same_rows(local.cache, there.cache)
    assert there.encoded == {"train": 900, "test": 100}
    whole = sum(1 for _ in batches(log))
    assert killed
    assert killed[0] < whole, "the node was killed after the end"
    keys = [key for _, half, batch in batches(log) if half == "image" for key in batch]
    assert len(set(keys)) == 2000  # two views each
    # Lost: what the actor had in hand or in its queue, and results on their way.
    unit = UNIT_BLOCKS * FakeImageEncoder.batch_size
    assert len(keys) - 2000 <= 2 * (distributed.CALLS + distributed.QUEUED) * unit


@pytest.mark.slow
def test_a_worker_dies(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the cluster has read all files, too."""
    monkeypatch.setattr(distributed, "READ_HERE", 0)
    root = make_guid(tmp_path / "posts", n_train=120, n_test=20, size=20)
    local = extracted(root, tmp_path / "local", marked()(EncoderSettings()))
    bomb = tmp_path / "bomb"
    bomb.touch()
    with RayEngine(actors=2, opener=marked(bomb=str(bomb), seconds=0.02)) as engine:
        there = extracted(root, tmp_path / "ray", engine)
    assert not bomb.exists()
    same_rows(local.cache, there.cache)


@pytest.mark.slow
def test_real_encoders_give_the_same_bits(cluster: Any, tmp_path: Path) -> None:
    """With the same number of threads, on both nodes."""
    root = make_guid(tmp_path / "posts", n_train=70, n_test=10, size=64)
    pair = EncoderSettings(encoder="offline", device="cpu", runtime="torch")
    dataset = load_dataset(root)
    common: dict[str, Any] = {
        "encoder": pair,
        "views": ViewSettings(count=1),
        "options": ExtractSettings(),
        "show": False,
    }
    local = mmsent.features.extract.extract(dataset, dataset.splits, tmp_path / "local", **common)
    with RayEngine() as engine:
        there = mmsent.features.extract.extract(dataset, dataset.splits, tmp_path / "ray", engine=engine, **common)
    same_rows(local.cache, there.cache)
    (made,) = there.cache.provenance["made_by"]
    assert made["machine"]["threads"] == local.cache.provenance["made_by"][0]["machine"]["threads"] == 1
    assert made["engine"]["actors"] == 2


@pytest.mark.slow
def test_what_the_cluster_cannot_do(cluster: Any, tmp_path: Path) -> None:
    root = make_guid(tmp_path / "posts", n_train=10, n_test=2, size=20)

    def no_weights(_: EncoderSettings) -> Encoders:
        raise EncoderError("no weights here")

    def broken(_: EncoderSettings) -> Encoders:
        pair = marked()(EncoderSettings())

        class Broken(FakeImageEncoder):
            def encode(self, pixels: Pixels) -> Embeddings:
                raise ZeroDivisionError("in the encoder")

        return Encoders(Broken(), pair.text)

    with pytest.raises(UsageError, match=r"--actors 3: the Ray cluster has room for 2"), RayEngine(actors=3) as engine:
        extracted(root, tmp_path / "ray", engine)
    with pytest.raises(EncoderError, match=r"no weights here \(on "), RayEngine(opener=no_weights) as engine:
        extracted(root, tmp_path / "ray", engine)
    with (
        pytest.raises(MmsentError, match=r"a worker on .* failed with ZeroDivisionError: in the encoder"),
        RayEngine(opener=broken) as engine,
    ):
        extracted(root, tmp_path / "ray", engine)
    with pytest.raises(UsageError, match="no GPU"), RayEngine() as engine:
        engine.open(EncoderSettings(device="cuda"))


@pytest.mark.slow
def test_the_command_with_a_cluster_of_its_own(tmp_path: Path) -> None:
    """Stopped by SIGTERM on the way, and run again."""
    root = make_guid(tmp_path / "posts", n_train=300, n_test=20, size=64)
    where = [
        "--data",
        str(root),
        "--encoder",
        "offline",
        "--views",
        "0",
        "--json",
        "--device",
        "cpu",
        "--runtime",
        "torch",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def start(name: str, *more: str) -> subprocess.Popen[str]:
        code = "from mmsent.cli.main import main; main()"
        command = [sys.executable, "-c", code, "extract", *where, "--cache", str(tmp_path / name), *more]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    def journalled() -> int:
        for path in (tmp_path / "ray").glob("*.journal"):
            with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(sqlite3.connect(path)) as db:
                return int(db.execute("SELECT count(*) FROM rows WHERE half='image'").fetchone()[0])
        return 0

    ray = ["--engine", "ray", "--actors", "2"]
    first = start("ray", *ray)
    try:
        wait_for(lambda: journalled() > 0 or first.poll() is not None, 200)
    finally:  # else the cluster would go on beside the other tests
        first.terminate()
        _, said = first.communicate(timeout=60)
    assert first.returncode == 143, said
    assert "interrupted; what was encoded is kept" in said
    assert 0 < journalled() < 320
    done = []
    for name, more in (("ray", ray), ("local", [])):
        process = start(name, *more)
        out, said = process.communicate(timeout=300)
        assert (process.returncode, said) == (0, "")
        done.append(json.loads(out))
    same_rows(*(Cache.open(Path(told["cache"])) for told in done))
    assert done[1]["encoded"] == {"train": 300, "test": 20}
