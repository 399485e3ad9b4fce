from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from mmsent.data.dataset import load_dataset
from mmsent.features.cache import Cache
from mmsent.features.changes import changed_posts
from tests.features.test_extract import repaint, run
from tests.helpers.made import make_guid, make_manifest

LATER = "2040-01-01T00:00:00+00:00"  # every file is older
EARLIER = 10**9  # in seconds, before any extraction


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_guid(tmp_path / "posts")


@pytest.fixture
def cache(root: Path, tmp_path: Path) -> Cache:
    return run(root, tmp_path / "cache").cache


def test_nothing_changed(root: Path, cache: Cache) -> None:
    assert changed_posts(cache, load_dataset(root), "train").ids == []


def test_an_image_and_a_text(root: Path, cache: Cache) -> None:
    repaint(root, "3")
    (root / "data" / "5.txt").write_text("another text")
    assert sorted(changed_posts(cache, load_dataset(root), "train").ids) == ["3", "5"]


def test_files_that_were_only_touched_have_not_changed(root: Path, cache: Cache) -> None:
    for file in (root / "data").iterdir():
        os.utime(file, (4 * 10**9, 4 * 10**9))
    found = changed_posts(cache, load_dataset(root), "train")
    assert (found.ids, found.compared) == ([], 40)


@pytest.mark.parametrize("name", ["3.jpg", "3.txt"])
def test_an_edit_that_keeps_the_time_of_the_data(root: Path, cache: Cache, name: str) -> None:
    """As after `cp -p` or an archive; the file system's own time tells."""
    repaint(root, "3") if name.endswith("jpg") else (root / "data" / name).write_text("another text")
    os.utime(root / "data" / name, (EARLIER, EARLIER))
    assert changed_posts(cache, load_dataset(root), "train").ids == ["3"]


def test_older_files_are_not_read(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmsent.features.extract.now", lambda: LATER)
    cache = run(root, tmp_path / "cache").cache
    monkeypatch.setattr("mmsent.features.changes.read_image", None)
    assert changed_posts(cache, load_dataset(root), "train").compared == 0


def test_a_file_that_is_gone_has_not_changed(root: Path, cache: Cache) -> None:
    (root / "data" / "3.jpg").unlink()
    assert changed_posts(cache, load_dataset(root), "train").ids == []


def test_a_copy_is_compared_by_its_content(root: Path, cache: Cache, tmp_path: Path) -> None:
    copy = shutil.copytree(root, tmp_path / "copy" / "posts")
    found = changed_posts(cache, load_dataset(copy), "train")
    assert (found.ids, found.compared, found.elsewhere) == ([], 40, True)
    repaint(copy, "3")
    assert changed_posts(cache, load_dataset(copy), "train").ids == ["3"]


def test_the_texts_of_a_manifest(tmp_path: Path) -> None:
    path = make_manifest(tmp_path / "set")
    cache = run(path, tmp_path / "cache").cache
    assert changed_posts(cache, load_dataset(path), "train").ids == []
    first = load_dataset(path).of("train")[0]
    assert isinstance(first.text, str)
    path.write_text(path.read_text(encoding="utf-8").replace(first.text, f"no {first.text}", 1), encoding="utf-8")
    assert changed_posts(cache, load_dataset(path), "train").ids == [first.id]


def test_a_cache_of_an_older_mmsent_says_when_it_was_written(root: Path, cache: Cache) -> None:
    del cache.provenance["read"]
    repaint(root, "3")
    assert changed_posts(cache, load_dataset(root), "train").ids == ["3"]
    cache.provenance["written"] = LATER
    assert changed_posts(cache, load_dataset(root), "train").ids == []
