"""One manifest per split in a folder: the files' names are the splits."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from mmsent.config import FitSettings, SplitSettings
from mmsent.data.dataset import load_dataset
from mmsent.data.prepare import prepare
from mmsent.data.readers.choosing import choose
from mmsent.errors import DataError, UsageError
from mmsent.training.fit import fit
from tests.helpers.made import make_manifest
from tests.helpers.reading import Commands


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """`posts/`: 20 posts to train on, 10 to validate on and 4 to test, with images in `pictures/`."""
    path = make_manifest(tmp_path / "posts", "csv", 30, 4, size=16)
    rows = list(csv.DictReader(path.open(encoding="utf-8")))
    path.unlink()
    for name, some in (("train", rows[:20]), ("dev", rows[20:30]), ("test", rows[30:])):
        with (path.parent / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(some)
    return path.parent


def test_the_files_names_are_the_splits(parts: Path, commands: Commands, tmp_path: Path) -> None:
    cache, facts = commands.extract(parts)
    commands.label(parts, cache)
    assert cache.rows == {"train": 30, "test": 4}
    assert cache.validation == tuple(f"post {k}" for k in range(21, 31))
    assert cache.definition == "posts: 30 training posts, read by split-files"
    assert facts["quarantined"] == []
    columns = "columns: id=id, image=image, text=text, label=label; none for split; not read: lang"
    assert facts["read"]["told"] == [
        "read by split-files: a folder with train.csv, val.csv and test.csv, or the like",
        f"dev.csv: 10 posts; {columns}",
        f"test.csv: 4 posts; {columns}",
        f"train.csv: 20 posts; {columns}",
        "splits: 'dev' is train (10 rows), 'test' is test (4 rows), 'train' is train (20 rows)",
    ]
    settings = FitSettings(epochs=2, hidden=8, common_width=16, heads=4)
    (run,) = fit(cache, tmp_path / "runs", [settings], SplitSettings(val_size=0.5))
    assert set(run.validation_ids()) == set(cache.validation)
    [found] = [one for one in commands.check(parts)["findings"] if one["kind"] == "validation rows"]
    assert found["message"].startswith("10 training rows are the data set's own validation rows")
    again, facts = commands.extract(parts)
    assert (again.path, facts["encoded"]) == (cache.path, {"train": 0, "test": 0})


def test_a_column_says_more_than_a_files_name(parts: Path) -> None:
    listed = parts / "train.csv"
    head, *lines = listed.read_text(encoding="utf-8").splitlines()
    said = [f"{line},{'test' if k == 3 else ''}" for k, line in enumerate(lines)]
    listed.write_text("\n".join([f"{head},split", *said]) + "\n", encoding="utf-8")
    data = load_dataset(parts)
    assert [post.id for post in data.of("test")] == ["post 31", "post 32", "post 33", "post 34", "post 4"]
    assert len(data.of("train")) == 29


def test_columns_of_a_file_may_be_called_otherwise(parts: Path) -> None:
    listed = parts / "dev.csv"
    listed.write_text(listed.read_text(encoding="utf-8").replace("id,image", "ID,Image", 1), encoding="utf-8")
    assert len(load_dataset(parts).validation) == 10


def test_an_id_in_two_files_is_told(parts: Path, commands: Commands) -> None:
    with (parts / "dev.csv").open("a", encoding="utf-8") as file:
        file.write("post 1,pictures/1.png,again,positive,en\n")
    kinds = {one["kind"]: one["severity"] for one in commands.check(parts, status=1)["findings"]}
    assert kinds["duplicate id"] == "error"


def test_what_is_no_such_folder(parts: Path, tmp_path: Path) -> None:
    assert choose(parts)[0].name == "split-files"
    assert choose(parts / "train.csv")[0].name == "manifest"
    with pytest.raises(UsageError, match="was read by split-files; the other commands take it as it is"):
        prepare(load_dataset(parts), tmp_path / "copy")
    (parts / "more.csv").write_text("id,image\n1,a.png\n")
    with pytest.raises(DataError, match=r"found 4 manifests.*split-files \(a folder with train.csv, val.csv"):
        load_dataset(parts)
