"""Distances to the training rows, by hand and from caches."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from mmsent.data.dataset import load_dataset
from mmsent.errors import CacheError
from mmsent.features.cache import Cache
from mmsent.inference import distances as module
from mmsent.inference.distances import TrainingRows
from tests.helpers.fake_cache import fake_cache
from tests.helpers.made import make_guid, make_manifest

A, B = [1.0, 0.0], [0.0, 1.0]
BOTH, NO_TEXT, NOTHING = [False, False], [False, True], [True, True]


def rows(*halves: list[list[float]]) -> tuple[np.ndarray, np.ndarray]:
    """Image and text features of posts, (image, text) each."""
    image, text = zip(*halves, strict=True)
    return np.array(image, np.float32), np.array(text, np.float32)


def test_by_hand() -> None:
    known = TrainingRows(*rows([A, A], [A, B], [B, B]), np.zeros((3, 2), bool))
    assert known.own().tolist() == [0.5, 0.5, 0.5]
    image, text = rows([[3.0, 0.0], [0.0, 2.0]], [[-1.0, 0.0], [-1.0, 0.0]], [[3.0, 4.0], A], [A, A], [A, A])
    missing = np.array([BOTH, BOTH, BOTH, NO_TEXT, NOTHING])
    found = known.distances(image, text, missing)
    assert found[:4] == pytest.approx([0.0, 1.0, 0.2, 0.0])
    assert np.isnan(found[4])


def cached(source: Path, folder: Path, splits: list[str]) -> Cache:
    return fake_cache(load_dataset(source, strict=False), folder, splits, views=2)


def test_of_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = cached(make_guid(tmp_path / "posts", n_train=40, n_test=12, size=40), tmp_path / "cache", ["train", "test"])
    train = cache.load("train")
    known = TrainingRows.of(cache)
    assert known.distances(train.image[:, 0], train.text, known.missing) == pytest.approx(np.zeros(40), abs=1e-6)
    assert known.own().min() > 1e-3
    monkeypatch.setattr(module, "MOST", 10)
    few, again = TrainingRows.of(cache), TrainingRows.of(cache)
    assert (few.image.shape, few.text.shape, few.missing.shape) == ((10, 48), (10, 32), (10, 2))
    assert np.array_equal(few.image, again.image)


def test_half_posts_count_with_their_half_and_unlabelled_ones_do_not(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path / "posts", n_train=12, n_test=3, size=40)
    with manifest.open(encoding="utf-8", newline="") as file:
        posts = list(csv.DictReader(file))
    posts[1]["image"] = ""

    def write(kept: list[dict[str, str]]) -> None:
        with manifest.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(posts[0]))
            writer.writeheader()
            writer.writerows(kept)

    write(posts)
    cache = cached(manifest, tmp_path / "cache", ["train"])
    known = TrainingRows.of(cache)
    assert known.missing.sum(axis=0).tolist() == [1, 0]
    assert len(known.missing) == 12
    assert np.isfinite(known.own()).all()
    write([post | {"label": ""} for post in posts[:1]] + posts[1:2])
    with pytest.raises(CacheError, match="no labelled training posts to compare with"):
        TrainingRows.of(cached(manifest, tmp_path / "other", ["train"]))
