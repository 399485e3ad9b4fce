"""Images that rows name otherwise than they are called: found, and in which way."""

from __future__ import annotations

import csv
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from mmsent.config import DataSettings
from mmsent.data.dataset import load_dataset
from mmsent.data.readers.files import ImageFiles, missing_images
from tests.helpers.made import make_manifest
from tests.helpers.reading import Commands

NFC, NFD = (unicodedata.normalize(form, "Café é.png") for form in ("NFC", "NFD"))


def files(folder: Path, **settings: Any) -> ImageFiles:
    return ImageFiles(folder, DataSettings(**settings))


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize(
    ("written", "way"),
    [
        ("data/1.png", None),
        (" data/1.png ", None),
        ("FOLDER/data/1.png", None),
        ("data\\1.png", "with backslashes as separators"),
        ("data/%31.png", "with percent-encoding undone"),
        ("data\\%31.png", "with percent-encoding undone"),
        ("file://FOLDER/data/%31.png", "from a file:// URL"),
        ("data/1.PNG", "in another case or Unicode form"),
        ("DATA\\1.PNG", "in another case or Unicode form"),
        ("data/1", "by the name without its ending"),
        ("Data/1", "by the name without its ending"),
        ("/data/upload/3/1a2b3c4d-1.png", "by the name alone"),
        ("/data/upload/3/1.png", "by the name alone"),
        ("/data/upload/3/1a2b3c4d-1.PNG", "by the name alone"),
        ("/data/local-files/?d=data/1.png", None),
        ("/data/local-files/?d=elsewhere%2F1.png", "by the name alone"),
    ],
)
def test_an_image_is_found_however_its_path_is_written(tmp_path: Path, written: str, way: str | None) -> None:
    put(tmp_path, "data/1.png", "data/1.txt", "data/11.png")
    found = files(tmp_path)
    assert found.find(written.replace("FOLDER", str(tmp_path))) == tmp_path / "data" / "1.png"
    assert found.told() == ([f"images: 1 {way}"] if way else [])


@pytest.mark.parametrize(("there", "written"), [(NFC, NFD), (NFD, NFC), (NFD.upper(), NFC)])
def test_names_in_the_other_form_of_unicode(tmp_path: Path, there: str, written: str) -> None:
    put(tmp_path, there)
    assert files(tmp_path).find(written).exists()


def test_a_path_as_it_is_written_comes_first(tmp_path: Path) -> None:
    put(tmp_path, "a%20b.png", "a b.png", "c\\d.png", "c/d.png", "e.png", "E.png", "f", "f.png")
    for name in ("a%20b.png", "c\\d.png", "e.png", "E.png", "f"):
        assert files(tmp_path).find(name).name == name


@pytest.mark.parametrize("written", ["data/2.png", "C:\\x\\1.png", "/no/1.png", "data/1.jpg", "1", "", ".."])
def test_where_there_is_no_image_the_path_that_was_tried_stays(tmp_path: Path, written: str) -> None:
    put(tmp_path, "data/1.png")
    found = files(tmp_path)
    assert found.find(written) == tmp_path / written
    assert found.told() == ["images: 1 not found"]


@pytest.mark.parametrize("written", ["A.png", "data/b"])
def test_of_several_that_may_be_meant_none_is_taken(tmp_path: Path, written: str) -> None:
    put(tmp_path, "a.PNG", "a.png", "data/b.png", "data/b.jpg")
    if len(list(tmp_path.iterdir())) < 3:
        pytest.skip("a file system that does not tell cases apart")
    found = files(tmp_path)
    assert not found.find(written).exists()
    assert found.told() == ["images: 1 not found, as several files have the name"]


def test_images_in_another_folder_by_a_loose_path_or_name(tmp_path: Path) -> None:
    put(tmp_path / "other", "a/1.jpg", "b/2.HEIC")
    found = files(tmp_path / "posts", images=str(tmp_path / "other"))
    assert [found.find(name).name for name in ("A/1", "c:\\x\\2.heic", "x/1")] == ["1.jpg", "2.HEIC", "1.jpg"]
    assert found.told() == ["images: 1 by the name without its ending, 2 by the name alone"]


def test_check_and_extract_say_where_most_images_are_not(tmp_path: Path, commands: Commands) -> None:
    path = make_manifest(tmp_path / "made", "csv", 20, 4, size=16)
    rows = list(csv.DictReader(path.open(encoding="utf-8")))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(row | {"image": f"C:\\photos\\{row['image']}"} for row in rows)
    [found] = [one for one in commands.check(path, status=1)["findings"] if one["kind"] == "missing picture"]
    first = (
        f"there is no made/C:\\photos\\{rows[0]['image']}, and made holds 1 folders (pictures/), 1 .csv ({path.name})"
    )
    assert first in found["message"]
    said = commands.run(1, "extract", "--data", path)
    assert "most images are not where the rows say: there is no made/C:" in said
    assert "--images DIR looks in another folder too" in said
    assert commands.extract(path, "--images", "made/pictures")[1]["quarantined"] == []


def test_an_empty_column_of_images_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,image,text\n1,,a\n2,,b\n", encoding="utf-8")
    found = load_dataset(path, strict=False)
    said = "most rows name no image; --columns image=NAME says which column does"
    assert missing_images(found.posts, path) == said
