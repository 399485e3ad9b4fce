"""Memotion 7k as it is published, from its labels.csv."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from mmsent.config import DataSettings
from mmsent.data.dataset import load_dataset
from mmsent.data.readers.choosing import choose
from mmsent.errors import DataError
from tests.helpers.made import make_picture
from tests.helpers.reading import Commands

HEAD = ["", "image_name", "text_ocr", "text_corrected", "humour", "sarcasm", "offensive", "motivational"]
SENTIMENTS = ["very_positive", "positive", "neutral", "negative", "very_negative"]


@pytest.fixture
def memes(tmp_path: Path) -> Path:
    """Twenty memes, four of each sentiment; the text of the second one was never corrected."""
    root, rng = tmp_path / "memotion_dataset_7k", np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    (root / "reference.csv").write_text("a,b\n1,2\n")
    with (root / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*HEAD, "overall_sentiment"])
        for i in range(20):
            make_picture("neutral", 32, rng).save(root / "images" / f"image_{i}.jpg")
            text = "" if i == 1 else f"WHEN YOU, AGAIN, {i}"
            asked = ["funny", "general", "not_offensive", "not_motivational"]
            writer.writerow([i, f"image_{i}.jpg", f"WHEN YOU {i}", text, *asked, SENTIMENTS[i % 5]])
    return root


def test_memes_are_encoded_in_three_classes(memes: Path, commands: Commands) -> None:
    cache, facts = commands.extract(memes)
    commands.label(memes, cache)
    assert (cache.data_name, cache.rows) == ("memotion_dataset_7k", {"train": 20})
    assert facts["quarantined"] == []
    told = facts["read"]["told"]
    assert told[:3] == [
        "read by memotion: Memotion's folder with labels.csv and images/",
        "columns: id=image_name, image=image_name, text=text_corrected, label=overall_sentiment; none for split; "
        "not read: one without a name, text_ocr, humour, sarcasm, offensive, motivational",
        "text is text_ocr where text_corrected is empty (1 rows)",
    ]
    assert told[3:] == [
        "labels: 'very_positive' is 'positive' (4 rows), 'very_negative' is 'negative' (4 rows)",
        "splits: with a label is train (20 rows)",
        "images: 20 by the path",
    ]
    assert load_dataset(memes, cache.data_settings).told == tuple(told)
    assert choose(memes / "labels.csv") == choose(memes)
    assert commands.extract(memes)[1]["encoded"] == {"train": 0}


def test_other_labels_and_columns(memes: Path) -> None:
    five = load_dataset(memes, DataSettings(labels=tuple(SENTIMENTS)))
    assert {post.label for post in five.posts} == set(SENTIMENTS)
    how = DataSettings(labels=("funny", "not_funny"), label_column="humour", text_column="text_ocr")
    data = load_dataset(memes, how)
    assert (data.posts[1].label, data.posts[1].text, data.settings.label_column) == ("funny", "WHEN YOU 1", "humour")


def test_a_list_of_another_kind(memes: Path) -> None:
    path = memes / "labels.csv"
    path.write_text(path.read_text(encoding="utf-8").replace("overall_sentiment", "mood"), encoding="utf-8")
    with pytest.raises(
        DataError, match=r"is not what --reader memotion reads: Memotion's folder with labels.csv and im"
    ):
        load_dataset(memes, DataSettings(reader="memotion"))
    assert choose(path)[0].name == "manifest"
