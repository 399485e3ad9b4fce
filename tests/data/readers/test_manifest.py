"""A manifest whose columns, labels and images are called otherwise: said, suggested, mapped and remembered."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from mmsent.config import DataSettings
from mmsent.data.dataset import load_dataset
from mmsent.data.prepare import prepare
from mmsent.errors import DataError
from tests.helpers.made import make_manifest
from tests.helpers.reading import Commands

NAMES = {"id": "tweet_id", "image": "img_path", "text": "tweet_text", "label": "sentiment"}
COLUMNS = ("--columns", "id=tweet_id,image=img_path,text=tweet_text,label=sentiment")
LABELS = ("--label-map", "very positive=positive")


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Twenty labelled posts and four others, with other column names, `very positive`, and images elsewhere."""
    made = make_manifest(tmp_path / "made", "csv", 20, 4, size=16)
    rows = list(csv.DictReader(made.open(encoding="utf-8")))
    shutil.move(made.parent / "pictures", tmp_path / "elsewhere")
    path = tmp_path / "foreign" / "posts.csv"
    path.parent.mkdir()
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*NAMES.values(), "lang"])
        for row in rows:
            row["label"] = row["label"].replace("positive", "very positive")
            row["image"] = Path(row["image"]).name
            writer.writerow([row[name] for name in NAMES] + ["en"])
    return path


def test_a_foreign_manifest_is_encoded_and_its_mapping_remembered(foreign: Path, commands: Commands) -> None:
    cache, facts = commands.extract(foreign, *COLUMNS, *LABELS, "--images", "elsewhere")
    commands.label(foreign, cache)
    assert cache.rows == {"train": 20, "test": 4}
    assert facts["quarantined"] == []
    assert facts["read"] == {
        "by": "manifest",
        "told": [
            "read by manifest: one file ending in csv, tsv, jsonl, parquet, json",
            "columns: id=tweet_id, image=img_path, text=tweet_text, label=sentiment; none for split; not read: lang",
            "labels: 'very positive' is 'positive' (10 rows)",
            "splits: with a label is train (20 rows), without a label is test (4 rows)",
            f"images: 24 below {foreign.parent.parent / 'elsewhere'}",
        ],
    }
    kept = cache.data_settings
    assert (kept.text_column, kept.label_map) == ("tweet_text", {"very positive": "positive"})
    assert kept.images == str(foreign.parent.parent / "elsewhere")
    assert load_dataset(foreign, kept).told == tuple(facts["read"]["told"])
    again, facts = commands.extract(foreign)  # the mapping is the cache's
    assert (again.path, facts["encoded"]) == (cache.path, {"train": 0, "test": 0})


def test_what_was_read_is_said_by_check(foreign: Path, commands: Commands) -> None:
    report = commands.check(foreign, *COLUMNS, *LABELS, "--images", "elsewhere")
    assert report["layout"] == "manifest"
    assert "labels: 'very positive' is 'positive' (10 rows)" in report["told"]
    words = ("check", "--data", foreign, "--no-tokens", *COLUMNS, *LABELS, "--images", "elsewhere")
    assert "\nread by manifest: one file ending in" in commands.run(0, *words)


def test_columns_that_are_not_there_are_suggested(foreign: Path, commands: Commands) -> None:
    said = commands.run(1, "extract", "--data", foreign)
    assert "no column 'id'; did you mean 'tweet_id'?" in said
    assert f"add {' '.join(COLUMNS)}" in said
    report = commands.check(foreign, "--columns", "id=tweet_id,image=img_path,label=sentiment", *LABELS, status=1)
    [found] = [one for one in report["findings"] if one["kind"] == "column not found"]
    assert found["message"] == "no column 'text'; did you mean 'tweet_text'? add --columns text=tweet_text"
    most = ("--columns", "id=tweet_id,image=img_path,label=sentiment", *LABELS, "--images", "elsewhere")
    said = commands.run(1, "extract", "--data", foreign, *most)
    assert "no column 'text'; did you mean 'tweet_text'? add --columns text=tweet_text. 20 of 20 train rows" in said


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ("id,Tweets,img", "did you mean 'img'?"),
        ("id,picture,x", "did you mean 'picture'?"),
        ("id,caption,x", "add --columns text=caption"),
        ("id,the text,x", "add --columns 'text=the text'"),
        ("id,txet,x", "neither a column 'image' nor 'text'; did you mean 'txet'?"),
        ("id,a,b", "neither a column 'image' nor 'text'; it has 'id', 'a', 'b'; name them, as in --columns image="),
    ],
)
def test_suggestions(tmp_path: Path, head: str, said: str) -> None:
    (tmp_path / "a.csv").write_text(f"{head}\n1,2,3\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load_dataset(tmp_path / "a.csv")
    assert said in str(caught.value)


def test_a_name_that_no_row_says_is_told(tmp_path: Path) -> None:
    path = make_manifest(tmp_path, "csv", 4, 0, size=8)
    told = load_dataset(path, DataSettings(label_map={"great": "positive"})).told
    assert "--label-map has 'great', which no row says" in told


def test_images_by_name_alone_only_where_one_file_has_it(foreign: Path, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    first, second, *_ = sorted(folder.iterdir())
    for name in ("a", "b"):
        (folder / name).mkdir()
    shutil.copy(second, folder / "a")
    second.rename(folder / "b" / second.name)
    first.rename(folder / "a" / first.name)
    columns = "id=tweet_id,image=img_path,text=tweet_text,label=sentiment"
    how = DataSettings.model_validate({"columns": columns, "label_map": LABELS[1], "images": str(folder)})
    dataset = load_dataset(foreign, how)
    assert f"22 below {folder}" in dataset.told[-1]
    assert "1 by the name alone" in dataset.told[-1]
    assert "1 not found, as several files have the name" in dataset.told[-1]
    assert sum(post.has_image for post in dataset.posts) == 23


def test_a_copy_holds_images_that_lie_elsewhere(foreign: Path, tmp_path: Path) -> None:
    how = DataSettings.model_validate(
        {"columns": COLUMNS[1], "label_map": LABELS[1], "images": str(tmp_path / "elsewhere")}
    )
    result = prepare(load_dataset(foreign, how), tmp_path / "copy")
    assert (result.pictures, result.skipped) == (24, ())
    again = DataSettings.model_validate({"columns": COLUMNS[1], "label_map": LABELS[1]})
    assert all(post.has_image for post in load_dataset(result.path, again).posts)
