"""Records of Argilla: responses, suggestions, and images beside the file or in it."""

from __future__ import annotations

import base64
import csv
import json
from pathlib import Path
from typing import Any

import pytest

from mmsent.config import DataSettings
from mmsent.data.dataset import load_dataset
from mmsent.data.images import read_image
from mmsent.data.readers.choosing import choose
from mmsent.errors import DataError
from tests.helpers.made import make_manifest
from tests.helpers.reading import Commands


def said(*values: Any) -> list[dict[str, Any]]:
    return [{"value": value, "user_id": f"user {k}"} for k, value in enumerate(values)]


@pytest.fixture
def records(tmp_path: Path) -> list[dict[str, Any]]:
    """24 posts, of which the last 4 have no label; their images lie beside the records."""
    made = make_manifest(tmp_path / "export", "csv", 20, 4, size=32)
    rows = list(csv.DictReader(made.open(encoding="utf-8")))
    made.unlink()
    return [
        {
            "id": f"p{number}",
            "fields": {"text": row["text"], "image": row["image"]},
            "metadata": {"lang": "en"},
            "suggestions": {},
            "responses": {"sentiment": said(row["label"])} if row["label"] else {},
            "vectors": {},
            "_server_id": None,
        }
        for number, row in enumerate(rows, 1)
    ]


def put(folder: Path, records: list[dict[str, Any]]) -> Path:
    """The folder, as to_disk leaves it."""
    (folder / "export" / ".argilla").mkdir(exist_ok=True)
    (folder / "export" / ".argilla" / "settings.json").write_text("{}", encoding="utf-8")
    (folder / "export" / "records.json").write_text(json.dumps(records), encoding="utf-8")
    return folder / "export"


def test_an_export_is_encoded(tmp_path: Path, records: list[dict[str, Any]], commands: Commands) -> None:
    path = put(tmp_path, records)
    cache, facts = commands.extract(path)
    commands.label(path, cache)
    assert cache.rows == {"train": 20, "test": 4}
    assert facts["quarantined"] == []
    assert facts["read"]["told"][:2] == [
        "read by argilla: records of Argilla, as to_disk writes them",
        "columns: id=id, image=image, text=text, label=sentiment; none for split; not read: lang",
    ]
    assert choose(path) == choose(path / "records.json")


def test_responses_decide_then_suggestions(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    records[0]["responses"]["sentiment"] = said("positive", "negative", "positive")
    records[1]["responses"]["sentiment"] = said("positive", "negative")
    records[2]["responses"]["sentiment"] = said(["positive", "neutral"])
    guess = {"sentiment": {"value": "Neutral", "score": 0.9, "agent": "a model"}}
    records[3]["suggestions"] = {"sentiment": {"value": "positive", "score": None, "agent": None}}
    records[3]["responses"] = {"sentiment": said("negative")}
    records[4] |= {"suggestions": guess, "responses": {}}
    records[5]["suggestions"] = {"sarcasm": {"value": "no", "score": None, "agent": None}}
    dataset = load_dataset(put(tmp_path, records), DataSettings(label_column="sentiment"))
    labels = {post.id: post.label for post in dataset.posts}
    assert [labels.get(f"p{k}") for k in range(1, 6)] == ["positive", None, None, "negative", "neutral"]
    assert {"p2", "p3"}.isdisjoint(labels)
    assert [(p.kind, p.where, p.message) for p in dataset.problems] == [
        ("left out", "records.json", "1 tasks were left out: annotators disagree"),
        ("left out", "records.json", "1 tasks were left out: several choices in one answer"),
        (
            "suggested labels",
            "records.json record 5",
            "1 records have no response; what is suggested for them is taken for an answer",
        ),
    ]


def test_images_in_the_file(tmp_path: Path, records: list[dict[str, Any]], commands: Commands) -> None:
    raws = [(tmp_path / "export" / one["fields"]["image"]).read_bytes() for one in records]
    for one, raw in zip(records, raws, strict=True):
        one["fields"] = {
            "image": f"data:image/png;base64,{base64.b64encode(raw).decode()}",
            "text": one["fields"]["text"],
        }
    path = put(tmp_path, records)
    assert [read_image(post.image) for post in load_dataset(path).posts] == raws
    assert commands.extract(path)[1]["quarantined"] == []


def test_what_is_no_record_of_argilla(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    records[5]["responses"] = {"sentiment": [{"user_id": "a"}]}
    with pytest.raises(DataError, match=r"record 6: not a record as Argilla writes it: KeyError\('value'\)"):
        load_dataset(put(tmp_path, records))
    for one in records:
        one["responses"] = {"sentiment": said("positive"), "sarcasm": said("yes")}
    with pytest.raises(DataError, match="the labels may be sentiment or sarcasm; add --columns label=sentiment"):
        load_dataset(put(tmp_path, records))
