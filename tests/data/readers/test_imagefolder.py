"""ImageFolder: a folder per label, texts beside the images or in metadata files."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from mmsent.config import DataSettings
from mmsent.data.dataset import load_dataset
from mmsent.data.readers.choosing import choose
from mmsent.errors import DataError
from tests.helpers.made import make_manifest
from tests.helpers.reading import Commands


def made_rows(tmp_path: Path) -> tuple[Path, list[dict[str, str]]]:
    """24 posts, all labelled: the folder of their images, and their rows."""
    made = make_manifest(tmp_path / "made", "csv", 24, 0, size=32)
    return made.parent, list(csv.DictReader(made.open(encoding="utf-8")))


@pytest.fixture
def per_label(tmp_path: Path) -> Path:
    """Every third post is in test/, the others in train/."""
    source, rows = made_rows(tmp_path)
    for i, row in enumerate(rows):
        folder = tmp_path / "posts" / ("train" if i % 3 else "test") / row["label"]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / row["image"], folder)
        (folder / Path(row["image"]).with_suffix(".txt").name).write_bytes(row["text"].encode("utf-8-sig"))
    return tmp_path / "posts"


@pytest.fixture(params=["csv", "jsonl"])
def with_metadata(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """One folder of images and a metadata file, as `push_to_hub` of a folder wants it."""
    source, rows = made_rows(tmp_path)
    out = tmp_path / "posts"
    shutil.copytree(source / "pictures", out)
    named = [{"file_name": Path(row["image"]).name, "text": row["text"], "label": row["label"]} for row in rows]
    path = out / f"metadata.{request.param}"
    if request.param == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in named), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(named[0]))
            writer.writeheader()
            writer.writerows(named)
    return out


def test_a_folder_per_label_is_encoded(per_label: Path, commands: Commands) -> None:
    (per_label / "train" / "positive" / "notes.pdf").touch()
    cache, facts = commands.extract(per_label)
    commands.label(per_label, cache)
    assert cache.rows == {"train": 16, "test": 8}
    assert facts["quarantined"] == []
    assert facts["read"]["by"] == "imagefolder"
    assert facts["read"]["told"][1:] == [
        "a text is the .txt file beside its image",
        "a label is the name of its image's folder",
        "not read: 1 .pdf",
        "splits: 'test' is test (8 rows), 'train' is train (16 rows)",
    ]
    dataset = load_dataset(per_label, with_test_labels=True)
    assert dataset.decoding.why == "decodes all 24 texts"  # one decision, as in the guid layout
    assert {post.id.split("/")[1] == post.label for post in dataset.posts} == {True}
    assert all("…" in dataset.text_of(post) for post in dataset.posts)
    assert commands.extract(per_label)[1]["encoded"] == {"train": 0, "test": 0}


def test_metadata_is_encoded(with_metadata: Path, commands: Commands) -> None:
    cache, facts = commands.extract(with_metadata)
    assert cache.rows == {"train": 24}
    assert facts["read"]["by"] == "imagefolder"
    name = next(with_metadata.glob("metadata.*")).name
    assert facts["read"]["told"][1] == f"posts are the rows of {name}"
    report = commands.check(with_metadata)
    assert [one["kind"] for one in report["findings"] if one["severity"] != "note"] == []


def test_metadata_decides_and_what_it_lacks_is_counted(with_metadata: Path, commands: Commands) -> None:
    path = next(with_metadata.glob("metadata.*"))
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:-2]), encoding="utf-8")
    report = commands.check(with_metadata)
    [found] = [one for one in report["findings"] if one["kind"] == "unlisted"]
    assert found["message"] == "2 images are in no metadata file and were left out"


def test_metadata_of_each_split_and_of_another_name(with_metadata: Path, tmp_path: Path) -> None:
    for name in ("train", "validation"):
        shutil.copytree(with_metadata, tmp_path / "both" / name)
    dataset = load_dataset(tmp_path / "both")
    assert len(dataset.of("train")) == 48
    assert len(dataset.validation) == 24
    assert all(post.has_image and post.label for post in dataset.posts)
    path = next((tmp_path / "both" / "train").glob("metadata.*"))
    path.write_text(path.read_text(encoding="utf-8").replace("text", "caption"), encoding="utf-8")
    dataset = load_dataset(tmp_path / "both", DataSettings(reader="imagefolder"), strict=False)
    assert "add --columns text=caption" in " ".join(problem.message for problem in dataset.problems)


def test_the_library_of_the_form_reads_the_same(with_metadata: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.load_dataset("imagefolder", data_dir=str(with_metadata), split="train", cache_dir=str(tmp_path))
    assert sorted(rows["text"]) == sorted(str(post.text) for post in load_dataset(with_metadata).posts)


def test_what_is_no_image_folder(tmp_path: Path, per_label: Path) -> None:
    shutil.move(per_label / "train" / "positive", tmp_path / "one" / "data")
    with pytest.raises(DataError, match=r"is not a data set: .*it holds 1 folders \(data/\).*imagefolder"):
        load_dataset(tmp_path / "one")
    shutil.copytree(per_label / "train", tmp_path / "two")
    assert choose(tmp_path / "two")[0].name == "imagefolder"
    (tmp_path / "two" / "posts.csv").write_text("id,text\n1,a\n")
    assert choose(tmp_path / "two")[0].name == "manifest"  # a table beside folders is the data set


def test_labels_that_are_not_known(per_label: Path) -> None:
    (per_label / "train" / "positive").rename(per_label / "train" / "happy")
    with pytest.raises(DataError, match=r"label 'happy' is not one of negative, neutral, positive"):
        load_dataset(per_label)
    how = DataSettings(label_map={"happy": "positive"})
    assert any("'happy' is 'positive'" in one for one in load_dataset(per_label, how).told)


def test_hidden_folders_are_no_labels(per_label: Path) -> None:
    wanted = list(load_dataset(per_label).posts.ids)
    image = next(p for p in (per_label / "train" / "positive").iterdir() if p.suffix != ".txt")
    for name in ("train/.ipynb_checkpoints", "__MACOSX/train/positive", "lost+found"):
        (per_label / name).mkdir(parents=True)
        shutil.copy(image, per_label / name)
    (image.parent / f"._{image.name}").write_bytes(b"\0\5\26\7")
    assert list(load_dataset(per_label).posts.ids) == wanted


def test_folders_that_are_links_are_read(per_label: Path, tmp_path: Path) -> None:
    wanted = list(load_dataset(per_label).posts.ids)
    (per_label / "train" / "positive").rename(tmp_path / "elsewhere")
    (per_label / "train" / "positive").symlink_to(tmp_path / "elsewhere")
    (per_label / "train" / "negative" / "back").symlink_to(per_label)  # without end
    dataset = load_dataset(per_label)
    assert list(dataset.posts.ids) == wanted
    (told,) = (p for p in dataset.problems if p.kind == "link to outside")
    n = sum(name.startswith("train/positive/") for name in wanted)
    assert told.message == f"{2 * n} files are links that lead out of the data set; their targets are read"
