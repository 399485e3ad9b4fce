"""Parquet files with the images inside, in shards, with numbers for labels, as Hugging Face writes them."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest

pyarrow = pytest.importorskip("pyarrow")

from pyarrow import parquet  # noqa: E402

from mmsent.config import DataSettings  # noqa: E402
from mmsent.data.containers import file_of, read_inside  # noqa: E402
from mmsent.data.dataset import load_dataset  # noqa: E402
from mmsent.data.images import read_image  # noqa: E402
from mmsent.data.readers.choosing import choose  # noqa: E402
from mmsent.errors import DataError  # noqa: E402
from tests.helpers.made import LABELS, make_manifest  # noqa: E402
from tests.helpers.reading import Commands  # noqa: E402

FEATURES = {
    "image": {"_type": "Image"},
    "text": {"dtype": "string", "_type": "Value"},
    "label": {"names": list(LABELS), "_type": "ClassLabel"},
}


def posts(tmp_path: Path) -> list[dict[str, Any]]:
    """24 labelled posts with the bytes of their images."""
    made = make_manifest(tmp_path / "made", "csv", 24, 0, size=32)
    rows = list(csv.DictReader(made.open(encoding="utf-8")))
    return [
        {
            "image": {"bytes": (made.parent / row["image"]).read_bytes(), "path": Path(row["image"]).name},
            "text": row["text"],
            "label": LABELS.index(row["label"]),
        }
        for row in rows
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A shard in groups of five rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.Table.from_pylist(rows)
    about = {"huggingface": json.dumps({"info": {"features": FEATURES}})}
    parquet.write_table(table.replace_schema_metadata(about), path, row_group_size=5)
    return path


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    rows = posts(tmp_path)
    for name, part in (
        ("train-00000-of-00002", rows[:7]),
        ("train-00001-of-00002", rows[7:14]),
        ("validation-00000-of-00001", rows[14:19]),
        ("test-00000-of-00001", rows[19:]),
    ):
        write(tmp_path / "hub" / "data" / f"{name}.parquet", part)
    return tmp_path / "hub"


def test_shards_are_encoded(shards: Path, commands: Commands) -> None:
    cache, facts = commands.extract(shards)
    commands.label(shards, cache)
    assert cache.rows == {"train": 19, "test": 5}
    assert facts["quarantined"] == []
    assert facts["read"] == {
        "by": "hf-parquet",
        "told": [
            "read by hf-parquet: Parquet files with the images inside",
            "ids are the files' names and the rows' numbers",
            "columns: image=image, text=text, label=label; none for id, split",
            "images: inside 4 Parquet files",
            "splits: 'test' is test (5 rows), 'train' is train (14 rows), 'validation' is train (5 rows)",
        ],
    }
    assert cache.provenance["validation"] == [f"validation-00000-of-00001-{i}" for i in range(5)]
    assert commands.extract(shards)[1]["encoded"] == {"train": 0, "test": 0}
    assert choose(shards / "data")[0].name == "hf-parquet"


def test_images_and_labels_are_those_of_their_rows(shards: Path, tmp_path: Path) -> None:
    rows = posts(tmp_path / "again")
    dataset = load_dataset(shards, with_test_labels=True)
    by_text = {row["text"]: row for row in rows}
    assert len(by_text) == len(dataset.posts) == 24
    for post in dataset.posts:
        row = by_text[dataset.text_of(post)]
        assert read_image(post.image) == row["image"]["bytes"]
        assert post.label == LABELS[row["label"]]
        assert post.has_image


def test_the_library_of_the_form_reads_the_same(shards: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    files = {split: str(shards / "data" / f"{split}-*.parquet") for split in ("train", "validation", "test")}
    found = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "theirs"))
    theirs = [row for split in files for row in found[split]]
    ours = load_dataset(shards).posts
    assert sorted(row["text"] for row in theirs) == sorted(str(post.text) for post in ours)
    assert {row["image"].size for row in theirs} == {(32, 32)}
    names = found["train"].features["label"].names
    told = {row["text"]: names[row["label"]] for row in theirs}
    assert {str(post.text): post.label for post in ours if post.label}.items() <= told.items()


def test_one_file_and_other_columns(tmp_path: Path, commands: Commands) -> None:
    rows = [
        {"photo": row["image"]["bytes"], "caption": row["text"], "id": f"p{i}"} for i, row in enumerate(posts(tmp_path))
    ]
    path = write(tmp_path / "all.parquet", rows)
    with pytest.raises(DataError, match=r"images are in photo; add --columns image=photo"):
        load_dataset(path, DataSettings(image_column="picture"))
    cache, facts = commands.extract(path, "--columns", "text=caption")
    assert cache.rows == {"test": 24}
    assert facts["quarantined"] == []
    assert cache.index("test").ids[0] == "p0"


def test_new_images_in_an_old_file_are_noticed(shards: Path, tmp_path: Path) -> None:
    path = shards / "data" / "test-00000-of-00001.parquet"
    first = load_dataset(shards).of("test")[0]
    assert file_of(first.image) == path
    before = read_image(first.image)
    rows = posts(tmp_path / "again")[:5]
    write(path, rows)
    os.utime(path, (2e9, 2e9))
    assert read_image(first.image) == rows[0]["image"]["bytes"] != before


def test_files_that_do_not_fit(shards: Path, tmp_path: Path) -> None:
    write(shards / "data" / "train-00002-of-00002.parquet", [{"image": {"bytes": b"x"}, "title": "a"}])
    with pytest.raises(
        DataError, match=r"train-00002-of-00002.parquet has other columns than test-00000-of-00001.parquet"
    ):
        load_dataset(shards)
    (shards / "data" / "test-00000-of-00001.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(
        DataError, match=r"is not a data set: .*it holds 1 folders \(data/\).*hf-parquet \(Parquet files"
    ):
        load_dataset(shards)


def test_a_missing_image_is_the_problem_of_its_row(tmp_path: Path) -> None:
    rows = posts(tmp_path)
    rows[6]["image"] = {"bytes": None, "path": "gone.jpg"}
    dataset = load_dataset(write(tmp_path / "train.parquet", rows))
    with pytest.raises(DataError, match="no picture"):
        read_image(dataset.posts[6].image)
    assert read_image(dataset.posts[7].image) == rows[7]["image"]["bytes"]
    with pytest.raises(DataError, match="the limit is 10"):
        read_inside(str(dataset.posts[7].image), 10)
    with pytest.raises(DataError, match=r"picture cannot be read from .*gone.parquet"):
        read_image(f"inside://{tmp_path}/gone.parquet#0/0/image")


def test_a_manifest_cannot_name_an_image_inside_a_file(shards: Path, tmp_path: Path) -> None:
    image = load_dataset(shards).posts[0].image
    (tmp_path / "a.csv").write_text(f"id,image,text,label\n1,{image},a,positive\n", encoding="utf-8")
    with pytest.raises(DataError, match="is at a URL"):
        load_dataset(tmp_path / "a.csv")


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = pyarrow.table([[b"x"], ["a"], ["b"]], names=["image", "text", "text"])
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="column 'text' stands twice"):
        load_dataset(tmp_path / "a.parquet")
