"""MVSA as it is published: one annotator or three, a label for the text and one for the image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmsent.config import DataSettings
from mmsent.data.dataset import load_dataset
from mmsent.data.readers.choosing import choose
from mmsent.data.readers.mvsa import CONTRARY, NO_MAJORITY, NOT_THE_SAME, merged
from mmsent.errors import DataError
from tests.helpers.made import make_picture
from tests.helpers.reading import Commands

# Label of the text, of the image, and the one label of both; 20 posts, of which 4 are contrary.
SINGLE = [
    *[("positive", "positive", "positive")] * 5,
    *[("negative", "negative", "negative")] * 3,
    *[("neutral", "positive", "positive")] * 3,
    *[("negative", "neutral", "negative")] * 3,
    *[("neutral", "neutral", "neutral")] * 2,
    *[("positive", "negative", None)] * 3,
    ("negative", "positive", None),
]


def folder(path: Path, lines: list[str], head: str = "ID\ttext,image") -> Path:
    """The published folder, with Windows line ends as it has them, and texts that are not UTF-8."""
    rng = np.random.default_rng(0)
    (path / "data").mkdir(parents=True)
    for guid in range(1, len(lines) + 1):
        make_picture("neutral", 32, rng).save(path / "data" / f"{guid}.jpg")
        (path / "data" / f"{guid}.txt").write_bytes(f"RT caf\xe9 number {guid} it\x92s here".encode("latin-1"))
    rows = [head, *(f"{guid}\t{line}" for guid, line in enumerate(lines, 1))]
    (path / "labelResultAll.txt").write_bytes("\r\n".join([*rows, ""]).encode())
    return path


@pytest.fixture
def single(tmp_path: Path) -> Path:
    return folder(tmp_path / "MVSA_Single", [f"{text},{image}" for text, image, _ in SINGLE])


def test_one_annotator(single: Path, commands: Commands) -> None:
    cache, facts = commands.extract(single)
    commands.label(single, cache)
    assert cache.rows == {"train": 16}
    assert cache.data_name == "MVSA_Single"
    assert facts["quarantined"] == []
    assert facts["read"] == {
        "by": "mvsa",
        "told": [
            "read by mvsa: MVSA's folder with labelResultAll.txt and data/",
            "16 posts, 10 of them with the same label for text and image",
            f"left out: 4 posts, {CONTRARY}",
            "splits: with a label is train (16 rows)",
        ],
    }
    labels = {post.id: post.label for post in load_dataset(single).posts}
    assert labels == {str(guid): label for guid, (_, _, label) in enumerate(SINGLE, 1) if label}
    dataset = load_dataset(single)
    assert dataset.decoding.encoding != "utf-8"
    assert "number 1 " in dataset.text_of(dataset.posts[0])
    assert choose(single / "labelResultAll.txt") == choose(single)
    [found] = [one for one in commands.check(single)["findings"] if one["kind"] == "left out"]
    assert (found["severity"], found["message"]) == ("warning", f"4 posts were left out: {CONTRARY}")


def test_only_posts_with_the_same_label_twice(single: Path, commands: Commands) -> None:
    cache, facts = commands.extract(single, "--reader", "mvsa-same")
    assert cache.rows == {"train": 10}
    assert facts["read"]["told"][2] == f"left out: 10 posts, {NOT_THE_SAME}"
    assert cache.data_settings.reader == "mvsa-same"
    assert len(load_dataset(single, cache.data_settings).posts) == 10


def test_three_annotators(tmp_path: Path) -> None:
    lines = [
        "positive,positive\tpositive,neutral\tnegative,positive",  # two agree on each
        "positive,positive\tneutral,neutral\tnegative,neutral",  # none agree on the text
        "positive,negative\tpositive,negative\tpositive,negative",
        "Neutral,negative\tneutral,negative\tpositive,positive",
    ]
    data = load_dataset(folder(tmp_path / "MVSA", lines, "ID\ttext,image\ttext,image\ttext,image"))
    assert [(post.id, post.label) for post in data.posts] == [("1", "positive"), ("4", "negative")]
    assert [one for one in data.told if one.startswith("left out")] == [
        f"left out: 1 posts, {NO_MAJORITY}",
        f"left out: 1 posts, {CONTRARY}",
    ]


def test_the_header_says_which_label_is_the_texts(tmp_path: Path) -> None:
    data = load_dataset(folder(tmp_path / "MVSA", ["neutral,positive"] * 2, "ID\timage,text"))
    assert [post.label for post in data.posts] == ["positive", "positive"]
    assert merged(["neutral"], ["positive"]) == merged(["positive"], ["neutral"]) == ("positive", "one is neutral")


def test_lines_that_cannot_be_read(single: Path) -> None:
    path = single / "labelResultAll.txt"
    path.write_text(path.read_text().replace("1\tpositive,positive", "1\tpositive", 1))
    with pytest.raises(DataError, match=r"labelResultAll.txt:2: expected an id and 'text,image' labels"):
        load_dataset(single)
    (single / "data").rename(single / "files")
    with pytest.raises(DataError, match=r"no folder .*data"):
        load_dataset(single)
    with pytest.raises(DataError, match=r"is not what --reader mvsa reads: MVSA's folder with labelResultAll.txt"):
        load_dataset(single / "files", DataSettings(reader="mvsa"))
