"""A bare folder: images, texts beside them or in a folder of their own, and no list."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mmsent.config import DataSettings
from mmsent.data.corrections import correctable, corrected_list
from mmsent.data.dataset import Dataset, load_dataset
from mmsent.errors import DataError
from mmsent.serve.review import Review, unlabelled_rows
from tests.helpers.made import make_picture
from tests.helpers.small import run

TEXTS = ["What a day!", 'She said "no", =1+1\nand left', "今天真开心 😀"]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """1.jpg and 1.txt to 3, an image without a text, a text without an image, and what is neither."""
    folder = tmp_path / "memes"
    folder.mkdir()
    for i, text in enumerate(TEXTS, 1):
        make_picture("positive", 16, np.random.default_rng(i)).save(folder / f"{i}.jpg")
        (folder / f"{i}.txt").write_text(text, encoding="utf-8")
    shutil.copy(folder / "1.jpg", folder / "4.jpg")
    (folder / "readme.txt").write_text("From my telephone")
    (folder / "Thumbs.db").write_bytes(b"x")
    return folder


@pytest.fixture
def apart(pairs: Path) -> Path:
    """The same in images/ and texts/."""
    home = pairs.parent / "apart"
    for name, ending in (("images", ".jpg"), ("texts", ".txt")):
        (home / name).mkdir(parents=True)
        for path in pairs.glob(f"*{ending}"):
            shutil.copy(path, home / name)
    return home


def texts(dataset: Dataset) -> dict[str, str | None]:
    return {post.id: dataset.text_of(post) if post.text else None for post in dataset.posts}


def test_pairs_in_one_folder(pairs: Path) -> None:
    dataset = load_dataset(pairs)
    assert dataset.layout == "folder"
    assert texts(dataset) == {f"{i}.jpg": text for i, text in enumerate(TEXTS, 1)} | {"4.jpg": None}
    assert {(post.split, post.label, post.has_image) for post in dataset.posts} == {("test", None, True)}
    assert [p.message for p in dataset.problems if p.kind == "unlisted"] == [
        "1 texts have no image beside them and were left out"
    ]
    with pytest.raises(DataError, match="label its posts with mmsent serve --no-heads"):
        dataset.of("train")


def test_images_and_texts_apart(apart: Path) -> None:
    dataset = load_dataset(apart)
    assert texts(dataset) == {f"{i}.jpg": text for i, text in enumerate(TEXTS, 1)} | {
        "4.jpg": None,
        "readme.txt": "From my telephone",  # a post without an image
    }


def test_images_alone(pairs: Path) -> None:
    for path in pairs.glob("*.txt"):
        path.unlink()
    dataset = load_dataset(pairs)
    assert texts(dataset) == dict.fromkeys(["1.jpg", "2.jpg", "3.jpg", "4.jpg"])


def test_the_first_list_of_a_folder_is_read_from_it(pairs: Path, apart: Path) -> None:
    for folder in (pairs, apart):
        dataset = load_dataset(folder, DataSettings(labels=("up", "down")))
        assert correctable(dataset) == set(dataset.posts.ids)
        name, _, written = corrected_list(dataset, {"2.jpg": "down", "4.jpg": "up"})
        (folder / name).write_bytes(written)
        again = load_dataset(folder, DataSettings(labels=("up", "down")))
        assert again.layout == "manifest"
        assert texts(again) == texts(dataset)
        assert {p.id: p.label for p in again.posts if p.label} == {"2.jpg": "down", "4.jpg": "up"}
        assert [p.image for p in again.posts] == [p.image for p in dataset.posts]


def test_from_a_folder_to_the_first_page(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", "--data", str(pairs), "--json") == 0
    assert json.loads(capsys.readouterr().out)["layout"] == "folder"
    dataset = load_dataset(pairs, strict=False)
    review = Review(unlabelled_rows(dataset), dataset)
    page = review.page()
    assert [row["id"] for row in page["rows"]] == ["1.jpg", "2.jpg", "3.jpg", "4.jpg"]
    assert {(row["picture"], row["correctable"], row["label"]) for row in page["rows"]} == {(True, True, None)}
    assert page["fresh"]
    assert review.texts([0, 3]) == [TEXTS[0], ""]
    assert review.corrected({"1.jpg": "positive"})[0] == "posts.csv"


def test_what_is_no_bare_folder(pairs: Path) -> None:
    (pairs / "a.csv").write_text("id,text\n1,a\n")
    (pairs / "b.csv").write_text("id,text\n1,a\n")
    with pytest.raises(DataError, match="found 2 manifests"):
        load_dataset(pairs)
    for name in ("a.csv", "b.csv"):
        (pairs / name).unlink()
    (pairs.parent / "train.txt").write_text("guid,tag\n1,positive\n")  # the list of these posts
    with pytest.raises(DataError, match="is not a data set"):
        load_dataset(pairs)


def test_what_is_left_out_is_said(apart: Path) -> None:
    shutil.copy(apart / "images" / "1.jpg", apart / "cover.jpg")
    (apart / "images" / "more").mkdir()
    shutil.copy(apart / "images" / "1.jpg", apart / "images" / "more" / "5.JPG")
    (apart / "images" / "1.txt").write_text("another text of the same image")
    assert [(p.where, p.message) for p in load_dataset(apart).problems if p.kind == "unlisted"] == [
        ("texts/1.txt", "1 texts have the name of another one, of images/, and were left out"),
        ("cover.jpg", "2 images are in other folders than apart/images/ and were left out"),
    ]


def test_folders_of_other_case_and_without_files(apart: Path) -> None:
    wanted = texts(load_dataset(apart))
    (apart / "images").rename(apart / "Pictures")
    (apart / "texts").rename(apart / "TEXT")
    (apart / "images").mkdir()
    assert texts(load_dataset(apart)) == wanted


def test_hidden_files_are_none_and_links_to_nowhere_are_told(pairs: Path) -> None:
    wanted = texts(load_dataset(pairs))
    for name in ("._1.jpg", "._1.txt", "._posts.csv"):  # of macOS
        (pairs / name).write_bytes(b"\0\5\26\7")
    (pairs / ".checkpoints").mkdir()
    shutil.copy(pairs / "1.jpg", pairs / ".checkpoints")
    assert texts(load_dataset(pairs)) == wanted
    (pairs / "5.jpg").symlink_to(pairs / "gone.jpg")
    assert "5.jpg" in load_dataset(pairs).posts.ids
