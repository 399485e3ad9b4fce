"""Files of published folds that say no folds: each is refused with what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmsent.data.protocols import read_protocol
from mmsent.errors import DataError

PARTED = "id,fold,part\n1,1,train\n2,1,val\n3,1,test\n1,2,train\n2,2,test\n"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "id,fold\n1,1\n2,1\n", "a.csv has one fold; at least 2 are needed"),
        ("a.csv", f"{PARTED}3,2,holdout\n", "'holdout' is no part of a fold; parts are train, val, test"),
        ("a.csv", f"{PARTED}1,2,test\n", "'1' is in train and in test of fold 2"),
        ("a.csv", f"{PARTED}1,2,train\n", "ids stand twice in train of fold 2"),
        ("a.csv", "id,fold,part\n1,1,train\n2,1,test\n1,2,train\n2,2,dev\n", "fold 2 has no test rows"),
        ("a.csv", "id,fold\n1,1\n1,2\n", "'1' is in two folds; a column 'part' must say train, val or test"),
        ("a.csv", "name,fold\n1,1\n", "no column 'id' with the ids; it has 'name', 'fold'"),
        (
            "a.csv",
            "id,run\n1,1\n",
            "no column 'fold'; it has 'id', 'run'; name the one with the folds by --fold-column",
        ),
        ("a.json", "[1, 2", "a.json cannot be read: Expecting"),
        ("a.json", '{"1": [1, 2], "2": [3]}', "fold '1' is no object such as"),
        ("a.json", '{"1": {"train": 1}, "2": {}}', "fold '1' is no object such as"),
    ],
)
def test_files_that_say_no_folds(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as caught:
        read_protocol(tmp_path / name)
    assert said in str(caught.value)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file .*; a table with columns id and fold says the folds"):
        read_protocol(tmp_path)
