"""Hateful Memes as it is published: one JSONL file per split."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mmsent.config import DataSettings
from mmsent.data.dataset import load_dataset
from mmsent.data.readers.choosing import choose
from mmsent.errors import DataError
from tests.helpers.made import make_picture
from tests.helpers.reading import Commands


def put(path: Path, numbers: range, labels: bool = True) -> None:
    rows = [
        {"id": 42950 + i, "img": f"img/{42950 + i}.png"}
        | ({"label": i % 2} if labels else {})
        | {"text": f"a meme {i}"}
        for i in numbers
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def memes(tmp_path: Path) -> Path:
    """16 training posts, 5 and 7 to validate on, of which 3 are the same, and 3 test posts without labels."""
    root, rng = tmp_path / "hateful_memes", np.random.default_rng(0)
    (root / "img").mkdir(parents=True)
    for i in range(28):
        make_picture("neutral", 32, rng).save(root / "img" / f"{42950 + i}.png")
    put(root / "train.jsonl", range(16))
    put(root / "dev_seen.jsonl", range(16, 21))
    put(root / "dev_unseen.jsonl", range(18, 25))
    put(root / "test_seen.jsonl", range(25, 28), labels=False)
    return root


def test_the_published_files_are_encoded(memes: Path, commands: Commands) -> None:
    cache, facts = commands.extract(memes)
    commands.label(memes, cache)
    assert (cache.data_name, cache.rows) == ("hateful_memes", {"train": 25, "test": 3})
    assert cache.labels == ("not hateful", "hateful")
    assert len(cache.provenance["validation"]) == 9
    assert facts["quarantined"] == []
    assert facts["read"]["told"] == [
        "read by hateful-memes: Hateful Memes' folder with train.jsonl, dev.jsonl and img/",
        "columns: id=id, image=img, text=text, label=label; none for split",
        "train.jsonl: 16 posts",
        "dev_seen.jsonl: 5 posts",
        "dev_unseen.jsonl: 4 posts",
        "test_seen.jsonl: 3 posts",
        "labels: '0' is 'not hateful' (13 rows), '1' is 'hateful' (12 rows)",
        "splits: 'train' is train (16 rows), 'dev' is train (9 rows), 'test' is test (3 rows)",
    ]
    [found] = [one for one in commands.check(memes)["findings"] if one["kind"] == "left out"]
    assert found["message"] == "3 rows stand in another file too and are read from there"
    again, facts = commands.extract(memes)
    assert (again.path, facts["encoded"]) == (cache.path, {"train": 0, "test": 0})
    assert load_dataset(memes, cache.data_settings).settings == cache.data_settings


def test_one_file_and_labels_of_ones_own(memes: Path) -> None:
    assert choose(memes / "train.jsonl")[0].name == "hateful-memes"
    data = load_dataset(memes / "train.jsonl", DataSettings(labels=("0", "1")))
    assert [post.label for post in data.posts[:3]] == ["0", "1", "0"]


def test_files_of_another_kind(memes: Path) -> None:
    (memes / "train.jsonl").write_text('{"id": 1, "img": "a.png", "text": "a", "lang": "en"}\n')
    assert choose(memes)[0].name == "split-files"
    assert choose(memes / "train.jsonl")[0].name == "manifest"
    put(memes / "train.jsonl", range(2))
    (memes / "dev_seen.jsonl").write_text("no\n")
    with pytest.raises(DataError, match=r"dev_seen.jsonl:1: not a JSON object"):
        load_dataset(memes)
