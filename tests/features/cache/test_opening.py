"""What keeps a cache from being read, told apart from damage to it."""

from __future__ import annotations

import ast
import errno
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

import mmsent
from mmsent.errors import CacheError, CacheShutError
from mmsent.features.cache import Cache, find_damage
from mmsent.features.cache.finding import find_cache, survey
from tests.features.cache.test_writing import made_cache

ADVICE = "damaged|remove|delete|extract"  # none of which a cache deserves that is only shut


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return made_cache(tmp_path).path


def fails_alike(path: Path, said: str) -> None:
    """Opening, scanning and repairing say the same; so do a folder's search and its list."""
    for way in (Cache.open, Cache.salvage, find_damage, lambda path: find_cache(path.parent, data_name="posts")):
        with pytest.raises(CacheShutError, match=said) as caught:
            way(path)
        assert not re.search(ADVICE, str(caught.value).replace(str(path), ""))
    found, shut = survey(path.parent)
    assert found == []
    assert re.search(said, str(shut[path]))


def test_a_locked_cache_is_in_use(path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        fails_alike(path, r"is in use by another process, .*; close it there, or wait.*HDF5_USE_FILE_LOCKING=FALSE")
    assert Cache.open(path).rows == {"train": 6}


def test_a_cache_open_for_writing_in_a_notebook_is_in_use(path: Path) -> None:
    hold = "import h5py, sys; f = h5py.File(sys.argv[1], 'r+'); print('open', flush=True); sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", hold, str(path)], **pipes) as notebook:  # type: ignore[call-overload]
        assert notebook.stdout.readline() == b"open\n"
        with pytest.raises(CacheError, match="is in use by another process"):
            Cache.open(path)
        notebook.communicate(b"")


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EACCES, "cannot be read: Permission denied; its owner can allow it"),
        (errno.EMFILE, r"cannot be read: Too many open files; .*ulimit -n"),
        (errno.ESTALE, "cannot be read: Stale file handle; mount the network drive again"),
        (errno.EIO, "cannot be read: Input/output error; the disk or the network drive fails"),
        (errno.ENOLCK, "cannot be locked: its disk has no file locks; set HDF5_USE_FILE_LOCKING=FALSE"),
    ],
)
def test_rights_and_limits_are_no_damage(path: Path, number: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        lock = "unable to lock file, " if number == errno.ENOLCK else ""
        raise OSError(number, f"Unable to synchronously open file ({lock}errno = {number})")

    monkeypatch.setattr(h5py, "File", refuse)
    fails_alike(path, said)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_cache_of_others_is_named(path: Path) -> None:
    path.chmod(0)
    fails_alike(path, "cannot be read: Permission denied")


def test_too_many_open_files(path: Path) -> None:
    old = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, old[1]))
    try:
        with pytest.raises(CacheError, match="Too many open files"):
            Cache.open(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, old)


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA out of memory"), ValueError("a bug"), KeyError("train"), OSError(28, "No space left")]
)
def test_errors_of_others_inside_a_reader_stay_what_they_are(path: Path, error: Exception) -> None:
    def work() -> None:
        with Cache.open(path).reader("train") as read:
            read(0, 2)
            raise error

    with pytest.raises(type(error)) as caught:
        work()
    assert caught.value is error


def test_a_bug_while_reading_is_no_damage(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise KeyError("a bug")

    cache = Cache.open(path)
    monkeypatch.setattr("mmsent.features.cache.reading.index_crcs", broken)
    with pytest.raises(KeyError, match="a bug"):
        cache.index("train")


def test_what_hdf5_cannot_say_twice_is_no_damage(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def passing(*arguments: object) -> None:
        raise OSError("Can't synchronously read data")

    cache = Cache.open(path)
    monkeypatch.setattr("mmsent.features.cache.reading.index_crcs", passing)
    with pytest.raises(CacheError, match=r"could not be read .*but all its checksums hold; run the same again"):
        cache.index("train")


def test_a_network_drive_that_goes_away_during_a_scan_damages_no_row(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(dataset: object) -> None:
        raise OSError(errno.ESTALE, "file read failed, errno = 116")

    monkeypatch.setattr("mmsent.features.cache.damage.read_column", stale)
    with pytest.raises(CacheError, match="Stale file handle"):
        find_damage(path)


def test_no_message_tells_to_remove_a_cache() -> None:
    """Nor its journal: what is there can be renamed. In the rooms that know no cache, only of what is called one."""
    advice = re.compile(r"\b([Rr]emove|[Dd]elete|rm|unlink)\b")
    package = Path(mmsent.__file__).parent
    told, seen = [], 0
    for file in sorted(package.rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        skipped = {id(part.value) for part in ast.walk(tree) if isinstance(part, ast.Expr)}  # docstrings
        skipped |= {id(part) for one in ast.walk(tree) if isinstance(one, ast.JoinedStr) for part in one.values}
        near = file.relative_to(package).parts[0] in ("features", "cli", "api.py")
        for part in ast.walk(tree):
            if id(part) in skipped or not isinstance(part, ast.JoinedStr | ast.Constant):
                continue
            text = ast.unparse(part) if isinstance(part, ast.JoinedStr) else str(part.value)
            seen += "cache" in text
            if advice.search(text) and (near or re.search(r"cache|journal|\.h5", text)):
                told.append(f"{file.name}: {text}")
    assert seen > 100
    assert told == []
