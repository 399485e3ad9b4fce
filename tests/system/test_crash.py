"""Killed, stopped, out of space, read-only, robbed of its input: what was finished stays, and the next run goes on to
the same bytes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from mmsent.cli import main as main_module
from mmsent.cli.main import main
from mmsent.config import FitSettings, Fusion, SplitSettings, ViewSettings
from mmsent.data.dataset import load_dataset
from mmsent.data.images import Pixels
from mmsent.encoders.base import Embeddings, Encoders
from mmsent.errors import CacheError, DataError, EncoderError, RunError
from mmsent.features.batches import load_views
from mmsent.features.cache import Cache
from mmsent.features.cache import journal as journal_module
from mmsent.features.cache.journal import Entry, Journal
from mmsent.system.files import write_together
from mmsent.training.fit import fit
from mmsent.training.runs import list_runs
from tests.features.test_extract import counted, repaint, run, stored
from tests.helpers.fake import FakeImageEncoder, FakeTextEncoder, fake_encoders
from tests.helpers.made import make_guid
from tests.helpers.stub_extract import BATCH, key

QUICK: dict[str, Any] = {"epochs": 2, "hidden": 16, "common_width": 16, "heads": 4}
SPLITS = ("train", "test")


# --- killed again and again


class Extraction:
    """`mmsent extract` in a process of its own, with the stub's encoders."""

    def __init__(self, root: Path, out: Path, log: Path, seconds: float) -> None:
        self.log = log
        arguments = ["extract", "--data", str(root), "--cache", str(out), "--encoder", "offline", "--views", "1"]
        command = [sys.executable, "-m", "tests.helpers.stub_extract", str(log), str(seconds), *arguments]
        self.process = subprocess.Popen(
            command, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, stderr=subprocess.PIPE, text=True
        )

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + 120
        while not self.log.exists() or not self.log.stat().st_size:
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.002)

    def batches(self) -> list[tuple[str, list[str]]]:
        """What was handed to the encoders; the last line may be in the making."""
        lines = self.log.read_text(encoding="utf-8").split("\n")[:-1]
        return [(half, keys) for half, keys in map(json.loads, lines) if half != "ready"]


def committed(out: Path) -> set[tuple[str, str, str]]:
    """(split, half, id) of everything that an interrupted run has left for the next one."""
    found = set()
    for path in out.glob("*.journal"):
        with contextlib.closing(sqlite3.connect(path)) as db:
            if db.execute("SELECT 1 FROM sqlite_master WHERE name='rows'").fetchone():  # else hardly begun
                found |= set(db.execute("SELECT split, half, id FROM rows"))
    for path in out.glob("*.h5"):
        cache = Cache.open(path)  # a file of that name is whole
        found |= {
            (split, half, i) for split in cache.rows for i in cache.index(split).ids for half in ("image", "text")
        }
    return found


def names(root: Path) -> dict[str, tuple[str, str, str]]:
    """What the stub logs -> (split, half, id)."""
    dataset, how = load_dataset(root), fake_encoders().image.card.preprocess
    found = {}
    for post in dataset.posts:
        found[dataset.text_of(post)] = (str(post.split), "text", post.id)
        _, views, reason, _ = load_views(post, how, ViewSettings(count=1))
        assert views is not None, reason
        found.update((key(view), (str(post.split), "image", post.id)) for view in views)
    return found


def kill_again_and_again(folder: Path, kills: int, how: signal.Signals, seed: int) -> None:
    """Stop extractions at random moments until `kills` were hit; check after each one, and whenever one got through."""
    rng = np.random.default_rng(seed)
    root = make_guid(folder / "posts", n_train=60, n_test=16, size=24)
    known = names(root)
    seconds = 0.02
    whole = Extraction(root, folder / "whole", folder / "whole.log", seconds)
    whole.wait_until_ready()
    started = time.monotonic()
    assert whole.process.wait() == 0
    took = time.monotonic() - started
    expected = stored(next((folder / "whole").glob("*.h5")))
    assert {known[k] for _, keys in whole.batches() for k in keys} == set(known.values())
    done = rounds = finished = 0
    out = folder / "out-0"
    before: set[tuple[str, str, str]] = set()
    while done < kills or out.exists():
        rounds += 1
        going = Extraction(root, out, folder / f"{rounds}.log", seconds)
        going.wait_until_ready()
        if done < kills:
            with contextlib.suppress(subprocess.TimeoutExpired):
                going.process.wait(rng.uniform(0, took))
            if going.process.poll() is None:
                going.process.send_signal(how)
        _, said = going.process.communicate()
        batches = going.batches()
        encoded = {known[k] for _, keys in batches for k in keys}
        assert not encoded & before, "rows that had been committed were encoded again"
        status = going.process.returncode
        if status == 0:
            path = next(out.glob("*.h5"))
            assert stored(path) == expected
            assert sorted(p.suffix for p in out.iterdir()) == [".h5", ".lock"]
            shutil.rmtree(out)
            finished += 1
            out, before = folder / f"out-{finished}", set()
            continue
        done += 1
        if how == signal.SIGKILL:
            assert status == -how
        else:
            assert status == 128 + how, said
            assert re.search("interrupted; what was encoded is kept, run the same command again to go on", said)
            assert "Traceback" not in said
            assert not list(out.glob("*.tmp"))
        before = committed(out)
        # In flight: the batch in the encoder, and at most the one before it, encoded and not yet committed.
        lost = [batch for batch in batches if not {known[k] for k in batch[1]} <= before]
        assert len(lost) <= 2
        assert lost == batches[len(batches) - len(lost) :]
    assert finished > 0


@pytest.mark.slow
def test_thirty_kills_change_nothing(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path, 30, signal.SIGKILL, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_stopped_and_continued(tmp_path: Path, how: signal.Signals) -> None:
    kill_again_and_again(tmp_path, 1, how, seed=2)


def test_the_batches_of_the_stub_are_several() -> None:
    assert BATCH < 16


def test_what_a_killed_run_left_half_written_is_cleared(tmp_path: Path) -> None:
    root, out = make_guid(tmp_path / "posts"), tmp_path / "cache"
    path = run(root, out).cache.path
    left = path.with_name(path.name + ".tmp")
    left.write_bytes(path.read_bytes()[:1000])
    assert run(root, out).encoded == {"train": 0}
    assert not left.exists()


# --- the journal


def test_a_journal_damaged_on_the_disk_is_never_poured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite has no checksums: a flipped byte in a blob would come back as a number."""
    monkeypatch.setattr(journal_module, "COMMIT_SECONDS", 0.0)
    root, out = make_guid(tmp_path / "posts"), tmp_path / "cache"
    with pytest.raises(KeyboardInterrupt):
        run(root, out, encoders=fake_encoders(fail_after=24))
    (journal,) = out.glob("*.journal")
    with contextlib.closing(sqlite3.connect(journal)) as db:
        data = bytearray(db.execute("SELECT data FROM rows WHERE half='image' AND id='5'").fetchone()[0])
        data[9] ^= 4
        db.execute("UPDATE rows SET data=? WHERE half='image' AND id='5'", (bytes(data),))
        db.execute("UPDATE rows SET tokens=99 WHERE half='text' AND id='6'")
        db.commit()
    with pytest.raises(CacheError, match=r"1 rows were damaged on the disk \(train image of 5\); they are dropped"):
        run(root, out)
    encoders = fake_encoders()
    result = run(root, out, encoders=encoders)
    assert counted(encoders)[0] == 8  # one block, in which the row has its place
    assert stored(result.cache.path) == stored(run(root, tmp_path / "whole").cache.path)


def test_a_journal_of_an_older_mmsent_goes_on(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "j")) as db:
        db.executescript(
            "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);"
            "CREATE TABLE rows (split TEXT NOT NULL, half TEXT NOT NULL, id TEXT NOT NULL, hash BLOB NOT NULL, "
            "reason TEXT NOT NULL, tokens INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (split, half, id)) "
            "WITHOUT ROWID;"
        )
        values = ("train", "text", "a", bytes(32), "", 3, np.ones(2, np.float32).tobytes())
        db.execute("INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?, ?)", values)
        db.commit()
    journal = Journal(tmp_path / "j", {})
    journal.put("train", "text", [Entry("b", bytes(32), np.zeros(2, np.float32))])
    assert {known[0] for known in journal.known("train", "text")} == {"a", "b"}
    assert journal.vectors("train", "text", ["a"], "float32")["a"].tolist() == [1, 1]
    journal.close()


# --- no space


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Any]:
    """A small file system: a function (kB) -> its folder, which resizes it. Needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        pytest.skip("mounting a tmpfs needs root on Linux; the tests with a limit on file sizes run anywhere")
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True)
    if made.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {made.stderr.decode().strip()}")

    def resized(kilobytes: int, mode: str = "rw") -> Path:
        subprocess.run(["mount", "-o", f"remount,{mode},size={kilobytes}k", str(folder)], check=True)
        return folder

    yield resized
    subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def file_limit(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes: the disk that is full, as any user can have it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_during_extraction(disk: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk grows by little and little: every attempt says what is missing, and none costs what the last one did."""
    monkeypatch.setattr(journal_module, "COMMIT_SECONDS", 0.0)
    root = make_guid(tmp_path / "posts", n_train=200, size=24)
    expected = stored(run(root, tmp_path / "whole", views=4).cache.path)
    said: list[str] = []
    seen = 0
    for size in range(32, 2000, 48):
        out = disk(size) / "cache"
        encoders = fake_encoders()
        try:
            result = run(root, out, views=4, encoders=encoders)
        except CacheError as error:
            said.append(str(error))
            assert {p.suffix for p in out.iterdir()} <= {".journal", ".lock", ".h5.journal-journal"}
        else:
            break
        finally:
            seen += counted(encoders)[1]
    assert stored(result.cache.path) == expected
    assert sorted(p.suffix for p in out.iterdir()) == [".h5", ".lock"]
    journalled = [text for text in said if ".journal: " in text]
    poured = [text for text in said if ".h5: No space left on device; encoded rows are kept in" in text]
    assert journalled
    assert poured
    assert len(journalled) + len(poured) == len(said)
    assert all("full" in text for text in journalled)
    assert seen < 2 * 200  # texts: what was committed was not encoded again


def test_a_limit_on_files_during_extraction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "COMMIT_SECONDS", 0.0)
    root, out = make_guid(tmp_path / "posts", n_train=200, size=24), tmp_path / "cache"
    whole = run(root, tmp_path / "whole", views=4).cache.path
    for kilobytes in (16, 64, 128):
        with file_limit(1024 * kilobytes), pytest.raises(CacheError, match=r"cannot write .*\.journal: .*kept"):
            run(root, out, views=4)
    with monkeypatch.context() as patch:

        def stop(*_: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr("mmsent.features.extract.pour", stop)
        with pytest.raises(KeyboardInterrupt):
            run(root, out, views=4)
    with (
        file_limit(whole.stat().st_size // 2),
        pytest.raises(CacheError, match=r"cannot write .*\.h5: File too large; encoded rows are kept in"),
    ):
        run(root, out, views=4)
    assert {p.suffix for p in out.iterdir()} == {".journal", ".lock"}
    assert stored(run(root, out, views=4).cache.path) == stored(whole)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    folder = tmp_path_factory.mktemp("fit")
    root = make_guid(folder / "posts", n_train=60, size=24)
    return run(root, folder / "cache", SPLITS, views=1).cache


WANTED = [FitSettings(fusion=fusion, **QUICK) for fusion in (Fusion.concat, Fusion.image, Fusion.text)]


def heads(runs: Path) -> dict[str, bytes]:
    return {run.fusion.value: (run.path / "head.safetensors").read_bytes() for run in list_runs(runs)}


def test_a_full_disk_during_fit(disk: Any, features: Cache, tmp_path: Path) -> None:
    fit(features, tmp_path / "whole", WANTED, SplitSettings())
    expected = heads(tmp_path / "whole")
    said: list[str] = []
    for size in range(8, 400, 24):
        runs = disk(size) / "runs"
        left = [one for one in WANTED if one.fusion not in {run.fusion for run in list_runs(runs)}]
        try:
            fit(features, runs, left, SplitSettings())
        except RunError as error:
            said.append(str(error))
            assert not list(runs.glob(".*"))
            assert {k: expected[k] for k in heads(runs)} == heads(runs)
        else:
            break
    assert len(said) > 1
    assert all(re.search(r"cannot write (a run|runs) in .*No space left", text) for text in said)
    assert heads(runs) == expected


def test_a_limit_on_files_during_fit(features: Cache, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with file_limit(4096), pytest.raises(RunError, match=r"cannot write a run in .*"):
        fit(features, runs, WANTED[:1], SplitSettings())
    assert list(runs.iterdir()) == []
    fit(features, runs, WANTED[:1], SplitSettings())
    assert list(heads(runs)) == ["concat"]


def test_files_that_belong_together_are_all_there_or_none(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    write_together({one: b"1", two: b"2"})
    with file_limit(4096), pytest.raises(DataError, match=r"cannot write .*two: File too large"):
        write_together({one: b"3", two: bytes(10000)})
    assert (one.read_bytes(), two.read_bytes()) == (b"1", b"2")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "two"]


# --- read-only


def test_a_read_only_disk(disk: Any, tmp_path: Path) -> None:
    root = make_guid(tmp_path / "posts", n_train=60, size=24)
    folder = disk(4000)
    cache = run(root, folder / "cache").cache
    repaint(root, "3")
    disk(4000, "ro")
    with pytest.raises(
        CacheError, match=r"cannot write in .*Read-only file system; choose another folder with --cache"
    ):
        run(root, folder / "cache")
    assert len(cache.load("train").index) == 60
    with pytest.raises(
        RunError, match=r"cannot write runs in .*Read-only file system; choose another folder with --runs"
    ):
        fit(cache, folder / "runs", WANTED, SplitSettings())
    disk(4000, "rw")
    assert run(root, folder / "cache").encoded == {"train": 1}


def test_a_folder_that_is_a_file(features: Cache, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match=r"cannot write in .*; choose another folder with --cache"):
        run(Path(features.provenance["data"]), tmp_path / "file" / "cache")
    with pytest.raises(RunError, match=r"cannot write runs in .*; choose another folder with --runs"):
        fit(features, tmp_path / "file" / "runs", WANTED, SplitSettings())


# --- input that vanishes


def test_a_picture_that_vanishes_meanwhile(tmp_path: Path) -> None:
    root, out = make_guid(tmp_path / "posts"), tmp_path / "cache"
    expected = stored(run(root, tmp_path / "whole").cache.path)
    held = (root / "data" / "30.jpg").read_bytes()

    class Thief(FakeTextEncoder):
        def encode(self, texts: list[str]) -> Embeddings:
            (root / "data" / "30.jpg").unlink(missing_ok=True)
            return super().encode(texts)

    with pytest.raises(CacheError, match=r"row 30 of train was not encoded; run extract again: finished rows are kept"):
        run(root, out, encoders=Encoders(FakeImageEncoder(), Thief()), max_bad=0.1)
    assert not list(out.glob("*.h5"))
    (root / "data" / "30.jpg").write_bytes(held)
    assert run(root, out).encoded == {"train": 1}
    assert stored(next(out.glob("*.h5"))) == expected


def test_a_data_set_that_vanishes_meanwhile(tmp_path: Path) -> None:
    """As when a disk is unmounted: an error, and once it is back, only what is missing."""
    root, out = make_guid(tmp_path / "posts"), tmp_path / "cache"
    expected = stored(run(root, tmp_path / "whole").cache.path)

    class Unmounts(FakeImageEncoder):
        def encode(self, pixels: Pixels) -> Embeddings:
            if root.exists():
                root.rename(tmp_path / "elsewhere")
            return super().encode(pixels)

    with pytest.raises(DataError, match=r"rows are bad .*no file .*what was encoded is kept"):
        run(root, out, encoders=Encoders(Unmounts(), FakeTextEncoder()), workers=1)
    (tmp_path / "elsewhere").rename(root)
    encoders = fake_encoders()
    result = run(root, out, encoders=encoders)
    assert 0 < counted(encoders)[0] <= 40
    assert counted(encoders)[1] == 0
    assert stored(result.cache.path) == expected


# --- two at once


def test_the_second_extraction_waits_if_told_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = make_guid(tmp_path / "posts"), tmp_path / "cache"
    path = run(root, out).cache.path
    repaint(root, "1")
    held, go = threading.Event(), threading.Event()

    def other() -> None:
        with FileLock(path.with_name(path.name + ".lock")):
            held.set()
            go.wait(60)
            time.sleep(0.4)

    thread = threading.Thread(target=other)
    thread.start()
    held.wait(60)
    with pytest.raises(CacheError, match=r"another extraction is writing .*; try again later, or pass --wait"):
        run(root, out)
    go.set()
    started = time.monotonic()
    assert run(root, out, wait=True).encoded == {"train": 1}
    assert time.monotonic() - started > 0.3
    thread.join()
    assert "waiting for it" in capsys.readouterr().err


# --- commands that are stopped


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return int(stop.value.code or 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_fit_keeps_runs_and_says_how_to_go_on(
    features: Cache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
) -> None:
    """By an interruption that does not say which signal made it, as libraries raise it."""
    from mmsent.training import fit as fit_module

    options = ["--cache", str(features.path), "--epochs", "2", "--val-size", "10"]
    assert command("fit", *options, "--runs", str(tmp_path / "whole"), "--fusion", "concat,image,text") == 0
    train, calls = fit_module.train_head, iter([False, True])

    def stopped(*values: Any) -> Any:
        if next(calls):
            raise KeyboardInterrupt
        return train(*values)

    capsys.readouterr()
    runs = ["--runs", str(tmp_path / "runs")]
    with monkeypatch.context() as patch:
        patch.setattr(fit_module, "train_head", stopped)
        patch.setattr(main_module, "_stopped_by", [number])
        assert command("fit", *options, *runs, "--fusion", "concat,image,text") == 128 + number
    said = capsys.readouterr().err
    (kept,) = list_runs(tmp_path / "runs")
    assert f"interrupted; {kept.name} is kept; go on with the same options and --fusion image --fusion text" in said
    assert command("fit", *options, *runs, "--fusion", "image", "--fusion", "text") == 0
    assert heads(tmp_path / "runs") == heads(tmp_path / "whole")


def test_run_folders_in_the_making_are_never_runs_and_go_when_they_are_old(features: Cache, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    (whole,) = fit(features, runs, WANTED[:1], SplitSettings())
    old, new = runs / ".building.old.x", runs / ".building.new.x"
    shutil.copytree(whole.path, old)
    shutil.copytree(whole.path, new)
    hours = time.time() - 7200
    os.utime(old, (hours, hours))
    assert [run.name for run in list_runs(runs)] == [whole.name]
    fit(features, runs, WANTED[1:2], SplitSettings())
    assert not old.exists()
    assert new.exists()


@pytest.mark.slow
def test_a_fit_that_is_killed_leaves_whole_runs(features: Cache, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    options = ["--cache", str(features.path), "--epochs", "2", "--val-size", "10", "--fusion"]
    start = [sys.executable, "-c", "from mmsent.cli.main import main; main()", "fit", *options]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    began = time.monotonic()
    subprocess.run([*start, "all", "--runs", str(tmp_path / "whole")], env=environment, check=True, capture_output=True)
    took = time.monotonic() - began
    runs = tmp_path / "runs"
    for how in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT):
        left = [f for f in Fusion if f.value not in heads(runs)]
        if not left:
            break
        going = subprocess.Popen(
            [*start, ",".join(left), "--runs", str(runs)], env=environment, stderr=subprocess.PIPE, text=True
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            going.wait(rng.uniform(0.4, 1.0) * took)
        if going.poll() is None:
            going.send_signal(how)
        said = going.communicate()[1]
        assert going.returncode in (0, -signal.SIGKILL, 130, 143), said
        assert "Traceback" not in said
        for run_ in list_runs(runs):
            run_.head()
    left = [f for f in Fusion if f.value not in heads(runs)]
    if left:
        subprocess.run([*start, ",".join(left), "--runs", str(runs)], env=environment, check=True, capture_output=True)
    assert heads(runs) == heads(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["html", "md"])
def test_a_stopped_report_leaves_the_earlier_one(
    small: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    form: str,
) -> None:
    from mmsent.report import figure_set

    def none_here(_: Any) -> Any:
        raise EncoderError("none here")

    monkeypatch.setattr("mmsent.encoders.factory.open_encoders", none_here)
    shown = {"labels", "loss", "confusion"}
    monkeypatch.setattr(figure_set, "FIGURES", tuple(p for p in figure_set.FIGURES if p[0] in shown))
    out = tmp_path / "report"
    arguments = ["--data", str(small / "posts" / "posts.jsonl"), "--cache", str(small / "cache"), "--format", form]
    arguments += ["--runs", str(small / "runs"), "--out", str(out)]
    assert command("report", *arguments) == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert len(before) == 7
    save, left = figure_set.save, [1]

    def stopped(*values: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return save(*values)

    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(figure_set, "save", stopped)
        assert command("report", *arguments, "--skip", "labels") == 130
    assert "interrupted; no report was written, an earlier one stays" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    if form == "html":
        return
    with file_limit(20_000):
        assert command("report", *arguments) == 1
    assert re.search("cannot write .*: File too large", capsys.readouterr().err)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert command("report", *arguments, "--skip", "labels") == 0
    figures = {path.name for path in before if path.parent.name == "figures"}
    assert {path.name for path in (out / "figures").iterdir()} == {name for name in figures if "labels" not in name}


SWALLOWED = """
import signal, sys, time, weakref
from mmsent.cli import main as main_module

class Thing:
    pass

def callback(_):
    signal.raise_signal(getattr(signal, sys.argv[1]))
    for _ in range(1000):
        pass

def app(*_, **__):
    thing = Thing()
    kept = weakref.ref(thing, callback)
    del thing
    print("still here", flush=True)
    time.sleep(30)
    print("went on as if nothing had been")

main_module.program = lambda given: app
main_module.main()
"""


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_that_comes_where_python_lets_nothing_through(name: str, status: int) -> None:
    """What a weak reference's callback raises is dropped; the signal must not be dropped with it."""
    done = subprocess.run([sys.executable, "-c", SWALLOWED, name], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (status, "still here\n", "")
