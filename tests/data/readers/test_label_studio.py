"""Exports of Label Studio: tasks as JSON and JSON-MIN, and images as uploads and storages name them."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmsent.config import DataSettings
from mmsent.data.dataset import load_dataset
from mmsent.data.readers.choosing import choose
from mmsent.errors import DataError
from tests.helpers.made import make_manifest
from tests.helpers.reading import Commands


def answer(label: str, **more: Any) -> dict[str, Any]:
    choice = {"from_name": "sentiment", "to_name": "text", "type": "choices", "value": {"choices": [label]}}
    return {"id": 7, "completed_by": 1, "was_cancelled": False, "result": [choice]} | more


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, str]]:
    """24 posts, of which the last 4 have no label; their images are in export/media."""
    made = make_manifest(tmp_path / "made", "csv", 20, 4, size=32)
    (tmp_path / "export").mkdir()
    shutil.move(made.parent / "pictures", tmp_path / "export" / "media")
    return list(csv.DictReader(made.open(encoding="utf-8")))


def put(folder: Path, tasks: list[dict[str, Any]]) -> Path:
    """The export, as one file."""
    path = folder / "export" / "project-3-at-2024-05-01.json"
    path.write_text(json.dumps(tasks), encoding="utf-8")
    return path


def tasks_of(rows: list[dict[str, str]], image: Callable[[str], str]) -> list[dict[str, Any]]:
    return [
        {
            "id": number,
            "annotations": [answer(row["label"].capitalize())] if row["label"] else [],
            "file_upload": "1a2b3c4d-posts.json",
            "predictions": [],
            "data": {"image": image(Path(row["image"]).name), "text": row["text"], "lang": "en"},
        }
        for number, row in enumerate(rows, 1)
    ]


@pytest.mark.parametrize(
    ("image", "way"),
    [
        ("/data/upload/3/1a2b3c4d-{}", "24 by the name alone"),
        ("/data/local-files/?d=media/{}", "24 by the path"),
        ("/data/local-files/?d=photos%2F2024%2F{}", "24 by the name alone"),
        ("https://studio.example.org/data/upload/3/1a2b3c4d-{}", "24 by the name alone"),
        ("media/{}", "24 by the path"),
    ],
)
def test_an_export_is_encoded(
    tmp_path: Path, rows: list[dict[str, str]], commands: Commands, image: str, way: str
) -> None:
    path = put(tmp_path, tasks_of(rows, image.format))
    cache, facts = commands.extract(path)
    commands.label(path, cache)
    assert cache.rows == {"train": 20, "test": 4}
    assert facts["quarantined"] == []
    told = facts["read"]["told"]
    assert told[:2] == [
        "read by label-studio: a JSON export of Label Studio",
        "columns: id=id, image=image, text=text, label=sentiment; none for split; not read: lang",
    ]
    assert "'Positive' is 'positive' (10 rows)" in told[2]
    assert told[3:] == ["splits: with a label is train (20 rows), without a label is test (4 rows)", f"images: {way}"]
    assert choose(path.parent) == choose(path)


def test_the_library_of_the_form_reads_the_same(tmp_path: Path, rows: list[dict[str, str]]) -> None:
    converter = pytest.importorskip("label_studio_converter")
    path = put(tmp_path, tasks_of(rows, "media/{}".format))
    config = """<View><Text name="text" value="$text"/><Image name="image" value="$image"/>
        <Choices name="sentiment" toName="text"><Choice value="Positive"/><Choice value="Neutral"/>
        <Choice value="Negative"/></Choices></View>"""
    reader = converter.Converter(config, str(tmp_path), download_resources=False)
    reader.convert(str(path), str(tmp_path / "theirs"), "CSV", is_dir=False)
    with next((tmp_path / "theirs").glob("*.csv")).open(encoding="utf-8", newline="") as file:
        theirs = {row["text"]: row["sentiment"].lower() for row in csv.DictReader(file) if row["sentiment"]}
    assert theirs == {str(post.text): post.label for post in load_dataset(path).posts if post.label}
    assert len(theirs) == 20


def test_the_small_form(tmp_path: Path, rows: list[dict[str, str]], commands: Commands) -> None:
    tasks = [
        {"image": f"/data/upload/1/0a0a0a0a-{Path(row['image']).name}", "text": row["text"], "id": number}
        | {"sentiment": row["label"].capitalize(), "annotator": 1, "annotation_id": number, "lead_time": 1.5}
        for number, row in enumerate(rows[:20], 1)
    ]
    cache, facts = commands.extract(put(tmp_path, tasks), "--columns", "label=sentiment")
    assert cache.rows == {"train": 20}
    assert facts["read"]["by"] == "label-studio"


def test_images_in_another_folder(tmp_path: Path, rows: list[dict[str, str]], commands: Commands) -> None:
    path = put(tmp_path, tasks_of(rows, "/data/upload/3/1a2b3c4d-{}".format))
    shutil.move(path.parent / "media", tmp_path / "elsewhere")
    assert commands.extract(path, "--images", "elsewhere")[1]["quarantined"] == []
    report = commands.check(path, status=1)
    assert "images: 24 not found" in report["told"]


def test_annotators_decide_by_majority(tmp_path: Path, rows: list[dict[str, str]]) -> None:
    tasks = tasks_of(rows, "media/{}".format)
    tasks[0]["annotations"] = [answer("Positive"), answer("Negative"), answer("Positive")]
    tasks[1]["annotations"] = [answer("Positive"), answer("Negative")]
    tasks[2]["annotations"] = [answer("Positive", was_cancelled=True), answer("Neutral")]
    tasks[3]["annotations"][0]["result"][0]["value"]["choices"] = ["Positive", "Neutral"]
    tasks[4]["annotations"][0]["result"].append({"from_name": "note", "type": "textarea", "value": {"text": ["hm"]}})
    dataset = load_dataset(put(tmp_path, tasks))
    labels = {post.id: post.label for post in dataset.posts}
    assert (labels["1"], labels["3"]) == ("positive", "neutral")
    assert {str(number) for number in range(1, 25)} - labels.keys() == {"2", "4"}
    left = [problem.message for problem in dataset.problems if problem.kind == "left out"]
    assert left == [
        "1 tasks were left out: annotators disagree",
        "1 tasks were left out: several choices in one answer",
    ]


def test_exports_that_cannot_be_read(tmp_path: Path, rows: list[dict[str, str]]) -> None:
    tasks = tasks_of(rows, "media/{}".format)
    tasks[5]["annotations"] = [{"result": [{"type": "choices"}]}]
    with pytest.raises(DataError, match=r"json task 6: not a task as Label Studio exports it: KeyError\('from_name'\)"):
        load_dataset(put(tmp_path, tasks))
    tasks = tasks_of(rows, "media/{}".format)
    tasks[0]["annotations"][0]["result"].append({**answer("x")["result"][0], "from_name": "sarcasm"})
    path = put(tmp_path, tasks)
    with pytest.raises(DataError, match=r"the labels may be sentiment or sarcasm; add --columns label=sentiment"):
        load_dataset(path)
    assert len(load_dataset(path, DataSettings(label_column="sentiment")).of("train")) == 20
    tasks = [task | {"data": {"picture": "a.jpg", "tweet": "a"}} for task in tasks_of(rows, str)]
    with pytest.raises(DataError, match=r"did you mean 'picture'\? add --columns image=picture,text=tweet"):
        load_dataset(put(tmp_path, tasks))
