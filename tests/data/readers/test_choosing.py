"""Which reader reads a data set, and what is said where none does."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmsent.config import READER_NAMES, DataSettings
from mmsent.data.dataset import load_dataset
from mmsent.data.readers.choosing import READERS, choose
from mmsent.errors import DataError, UsageError
from tests.helpers.made import make_guid, make_manifest


def test_the_help_names_every_reader() -> None:
    assert tuple(READERS) == READER_NAMES
    assert all(reader.name == name and reader.form for name, reader in READERS.items())


def test_the_first_reader_that_recognises_it_reads(tmp_path: Path) -> None:
    root = make_guid(tmp_path / "guid", 4, 2, size=8)
    path = make_manifest(tmp_path / "made", "csv", 4, 2, size=8)
    assert choose(root)[0].name == "guid"
    assert choose(path) == (READERS["manifest"], path)
    assert choose(path.parent) == (READERS["manifest"], path)
    path.rename(root / path.name)
    assert choose(root)[0].name == "guid"
    assert choose(root, DataSettings(reader="manifest")) == (READERS["manifest"], root / path.name)


def test_a_reader_that_does_not_fit_or_exist(tmp_path: Path) -> None:
    path = make_manifest(tmp_path / "made", "csv", 4, 2, size=8)
    with pytest.raises(DataError, match=r"is not what --reader guid reads: a folder with train.txt and data/; it hold"):
        load_dataset(path.parent, DataSettings(reader="guid"))
    with pytest.raises(
        DataError, match=rf"--reader folder reads: .*; {path.name} lists its posts, which is read without"
    ):
        load_dataset(path.parent, DataSettings(reader="folder"))
    with pytest.raises(UsageError, match=r"--reader 'manifets'; did you mean 'manifest'\?; readers are guid, "):
        load_dataset(path, DataSettings(reader="manifets"))


def test_an_unknown_folder_is_told_what_it_holds(tmp_path: Path) -> None:
    for name in ("a.pdf", "b.pdf", "c", "d/x", "e/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(DataError) as caught:
        load_dataset(tmp_path)
    assert "it holds 2 folders (d/, e/), 2 .pdf (a.pdf), 1 no ending" in str(caught.value)
    assert str(caught.value).endswith("the smallest manifest is a CSV of id,image,text,label")


def test_packed_shards_are_told(tmp_path: Path) -> None:
    (tmp_path / "train-0.tar.gz").write_bytes(b"x")
    with pytest.raises(DataError, match=r"holds 1 \.gz .*, and shards are read once they are unpacked \(gunzip\)"):
        choose(tmp_path)
