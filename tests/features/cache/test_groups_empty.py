"""An empty text or a blank image is nothing that two posts share: they are no duplicates, exact or near."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmsent.config import Group, SplitSettings
from mmsent.data.check import check_dataset
from mmsent.data.dataset import load_dataset
from mmsent.features.cache import Cache
from mmsent.features.cache.groups import find_duplicates, row_groups
from mmsent.inference.near_duplicates import compared, labelled_rows, twin_shares
from tests.helpers.fake import fake_encoders
from tests.helpers.fake_cache import fake_cache
from tests.helpers.made import make_guid

NEAR = SplitSettings(group=Group.near, near_image=0.99999, near_text=0.99)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """60 posts: 18 empty texts and 6 without a letter; 8 blank images, of which 5 are one file."""
    root = make_guid(tmp_path / "posts", 60, 0)
    for i in range(1, 25):
        (root / "data" / f"{i}.txt").write_text("" if i <= 18 else ("…" if i <= 22 else "!! 😀"), encoding="utf-8")
    for i in range(31, 39):
        Image.new("RGB", (40 + max(0, i - 35), 40), (250, 250, 250)).save(root / "data" / f"{i}.jpg")
    return root


def extracted(root: Path, folder: Path, fail_after: int | None = None) -> Cache:
    return fake_cache(load_dataset(root), folder, ["train"], encoders=fake_encoders(fail_after=fail_after))


def test_they_group_nothing(root: Path, tmp_path: Path) -> None:
    cache = extracted(root, tmp_path / "cache")
    features = cache.load("train")
    empty = features.index.empty
    assert np.flatnonzero(empty[:, 1]).tolist() == list(range(24))
    assert np.flatnonzero(empty[:, 0]).tolist() == list(range(30, 38))
    rows = np.arange(60)
    alone = rows.tolist()
    for split in (SplitSettings(group=Group.exact), NEAR):
        groups = row_groups(features.index, rows, split, features)
        assert groups is not None
        assert groups.tolist() == alone
    columns = cache.columns("train")
    assert row_groups(columns, rows, SplitSettings(group=Group.exact)).tolist() == alone  # type: ignore[union-attr]
    assert [g.groups for g in find_duplicates(cache, 0.99999, 0.99).found] == [0] * 6
    image, text = compared(features)
    assert not image[30:38].any()
    assert not text[:24].any()
    known = labelled_rows(features, rows, 0.99999, 0.99)
    assert not twin_shares(known, image[30:38], text[30:38] * 0, 3).any()


def test_equal_halves_that_say_something_still_do(root: Path, tmp_path: Path) -> None:
    for i in (25, 26, 27):
        (root / "data" / f"{i}.txt").write_text("ok", encoding="utf-8")
    index = extracted(root, tmp_path / "cache").index("train")
    groups = row_groups(index, np.arange(60), SplitSettings(group=Group.exact))
    assert groups is not None
    assert (np.bincount(groups) > 1).sum() == 1
    assert len(set(groups[24:27])) == 1


def test_what_an_interrupted_extraction_found_is_kept(root: Path, tmp_path: Path) -> None:
    whole = extracted(root, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        extracted(root, tmp_path / "cache", fail_after=48)
    cache = extracted(root, tmp_path / "cache")
    assert cache.provenance["empty"] == whole.provenance["empty"]
    assert len(cache.provenance["empty"]["image"]) == 4  # one file five times, three others
    (root / "data" / "40.txt").write_text("another text", encoding="utf-8")
    assert extracted(root, tmp_path / "cache").provenance["empty"] == whole.provenance["empty"]


def test_older_caches_know_of_empty_texts_alone(root: Path, tmp_path: Path) -> None:
    cache = extracted(root, tmp_path / "cache")
    old = replace(cache, provenance={k: v for k, v in cache.provenance.items() if k != "empty"})
    assert old.index("train").empty.sum(axis=0).tolist() == [0, 18]


def test_check_lists_them_as_no_duplicates(root: Path) -> None:
    kinds = {finding.kind for finding in check_dataset(load_dataset(root)).findings}
    assert {"empty text", "bare text", "blank picture"} <= kinds
    assert not {
        kind for kind in kinds if kind.startswith(("identical", "similar", "text in", "picture in", "text with"))
    }
