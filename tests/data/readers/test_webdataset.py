"""WebDataset's tar shards: members that belong together by name, read in order."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from pathlib import Path

import pytest

from mmsent.config import DataSettings
from mmsent.data.dataset import load_dataset
from mmsent.data.images import read_image
from mmsent.data.readers.choosing import choose
from mmsent.errors import DataError
from tests.helpers.fake import fake_encoders
from tests.helpers.made import LABELS, make_manifest
from tests.helpers.reading import Commands

Sample = dict[str, bytes]


def samples(tmp_path: Path) -> list[Sample]:
    """24 labelled posts: the bytes of each by the ending."""
    made = make_manifest(tmp_path / "made", "csv", 24, 0, size=32)
    return [
        {
            "jpg": (made.parent / row["image"]).read_bytes(),
            "txt": row["text"].encode(),
            "cls": str(LABELS.index(row["label"])).encode(),
        }
        for row in csv.DictReader(made.open(encoding="utf-8"))
    ]


def write(path: Path, posts: list[Sample], start: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as shard:
        for number, post in enumerate(posts, start):
            for ending, raw in post.items():
                member = tarfile.TarInfo(f"part/{number:06d}.{ending}")
                member.size = len(raw)
                shard.addfile(member, io.BytesIO(raw))
    return path


MAP = ("--label-map", ",".join(f"{i}={label}" for i, label in enumerate(LABELS)))


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    posts = samples(tmp_path)
    posts[3]["meta.npy"] = b"x"
    for name, start, end in (("train-000000", 0, 9), ("train-000001", 9, 18), ("test-000000", 18, 24)):
        write(tmp_path / "shards" / f"{name}.tar", posts[start:end], start)
    return tmp_path / "shards"


def test_shards_are_encoded(shards: Path, commands: Commands) -> None:
    cache, facts = commands.extract(shards, *MAP)
    commands.label(shards, cache)
    assert cache.rows == {"train": 18, "test": 6}
    assert cache.index("train").ids[9] == "part/000009"
    assert facts["quarantined"] == []
    told = facts["read"]["told"]
    assert told[:5] == [
        "read by webdataset: WebDataset's .tar shards",
        "24 posts in 3 shards",
        "columns: text is .txt, or text in .json",
        "columns: label is .cls, or label in .json",
        "not read: 1 .meta.npy",
    ]
    assert told[-1] == "splits: 'test' is test (6 rows), 'train' is train (18 rows)"
    assert commands.extract(shards)[1]["encoded"] == {"train": 0, "test": 0}


def test_shards_and_a_manifest_give_the_same_numbers_also_after_a_stop(
    tmp_path: Path, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    posts = samples(tmp_path)
    for start in range(0, 24, 6):
        write(tmp_path / "posts" / f"train-{start // 6:06d}.tar", posts[start : start + 6], start)
    with monkeypatch.context() as patch:
        patch.setattr("mmsent.features.extract.open_encoders", lambda settings: fake_encoders(fail_after=8))
        words = ("extract", "--data", tmp_path / "posts", "--cache", commands.folder, "--views", "1", *MAP)
        commands.run(130, *words)
    cache, facts = commands.extract(tmp_path / "posts", *MAP)
    assert facts["encoded"] == {"train": 20}  # four posts, with two views each, were kept
    rows = [["id", "image", "text", "label"]]
    for number, post in enumerate(posts):
        (tmp_path / "same" / "part").mkdir(parents=True, exist_ok=True)
        (tmp_path / "same" / "part" / f"{number}.jpg").write_bytes(post["jpg"])
        label = LABELS[int(post["cls"])]
        rows.append([f"part/{number:06d}", f"part/{number}.jpg", post["txt"].decode(), label])
    with (tmp_path / "same" / "rows.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    other, _ = commands.extract(tmp_path / "same" / "rows.csv")
    assert other.path != cache.path
    assert cache.index("train").ids == other.index("train").ids
    assert cache.index("train").labels.tolist() == other.index("train").labels.tolist()
    for one, same in zip(cache.embeddings("train", range(24)), other.embeddings("train", range(24)), strict=True):
        assert one.tobytes() == same.tobytes()


def test_members_belong_to_their_post(shards: Path, tmp_path: Path) -> None:
    posts = {post["txt"].decode(): post for post in samples(tmp_path / "again")}
    how = DataSettings.model_validate({"label_map": MAP[1]})
    dataset = load_dataset(shards, how, with_test_labels=True)
    for post in dataset.posts:
        own = posts[dataset.text_of(post)]
        assert read_image(post.image) == own["jpg"]
        assert post.label == LABELS[int(own["cls"])]


def test_one_shard_with_json(tmp_path: Path, commands: Commands) -> None:
    posts = [
        {
            "jpg": post["jpg"],
            "json": json.dumps({"caption": post["txt"].decode(), "mood": LABELS[int(post["cls"])]}).encode(),
        }
        for post in samples(tmp_path)
    ]
    path = write(tmp_path / "posts.tar", posts)
    cache, facts = commands.extract(path, "--columns", "text=caption,label=mood")
    assert cache.rows == {"train": 24}
    assert facts["quarantined"] == []


def test_the_library_of_the_form_reads_the_same(shards: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    path = shards / "train-000000.tar"
    read = {one["__key__"]: one["txt"].decode() for one in webdataset.WebDataset(str(path), shardshuffle=False)}
    how = DataSettings.model_validate({"label_map": MAP[1]})
    assert read == {post.id: post.text for post in load_dataset(path, how).posts}


def test_shards_that_cannot_be_read(shards: Path, tmp_path: Path) -> None:
    posts = samples(tmp_path / "again")[:6]
    posts[2]["txt"] = b"caf\xe9"
    posts[3]["json"] = b"[1]"
    write(shards / "test-000000.tar", posts, 18)
    how = DataSettings.model_validate({"label_map": MAP[1]})
    with pytest.raises(
        DataError, match=r"test-000000.tar part/000020: its .txt is not UTF-8.*its .json is no JSON object"
    ):
        load_dataset(shards, how)
    write(shards / "test-000000.tar", samples(tmp_path / "more"), 18)
    whole = (shards / "train-000001.tar").read_bytes()
    (shards / "train-000001.tar").write_bytes(whole[: len(whole) // 2 // 512 * 512 - 100])
    with pytest.raises(DataError, match=r"train-000001.tar: not readable as a tar file"):
        load_dataset(shards, how)
    (shards / "test-000000.tar").write_bytes(b"no tar")
    with pytest.raises(
        DataError, match=r"is not a data set: .*it holds 3 .tar \(test-000000.tar\); other readers: .*webdataset"
    ):
        load_dataset(shards)


def test_a_missing_half_and_a_shard_that_is_gone(tmp_path: Path) -> None:
    posts = samples(tmp_path)
    del posts[5]["jpg"], posts[6]["txt"]
    path = write(tmp_path / "all.tar", posts)
    data = load_dataset(path, DataSettings.model_validate({"label_map": MAP[1]}))
    assert (data.posts[5].image, data.posts[6].text, choose(path)[1]) == (None, None, path)
    path.unlink()
    with pytest.raises(DataError, match=r"picture cannot be read from .*all.tar: No such file"):
        read_image(data.posts[0].image)
