"""The guid layout with a list of validation posts."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmsent.config import FitSettings, SplitSettings
from mmsent.data.corrections import correctable, corrected_list
from mmsent.data.dataset import load_dataset
from mmsent.data.prepare import prepare
from mmsent.errors import DataError
from mmsent.training.fit import fit
from tests.helpers.made import make_guid
from tests.helpers.reading import Commands


@pytest.fixture(params=["val.txt", "dev.txt"])
def parted(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """20 posts to train on, 10 to validate on in a list of their own, 4 to test."""
    root = make_guid(tmp_path / "posts", 30, 4, size=16)
    head, *lines = (root / "train.txt").read_text().splitlines()
    (root / "train.txt").write_text("\n".join([head, *lines[:20]]) + "\n")
    (root / request.param).write_text("\n".join([head, *lines[20:]]) + "\n")
    return root


def test_a_validation_list_validates(parted: Path, commands: Commands, tmp_path: Path) -> None:
    cache, facts = commands.extract(parted)
    commands.label(parted, cache)
    assert cache.rows == {"train": 30, "test": 4}
    own = tuple(str(k) for k in range(21, 31))
    assert cache.validation == own
    assert facts["quarantined"] == []
    settings = FitSettings(epochs=2, hidden=8, common_width=16, heads=4)
    (run,) = fit(cache, tmp_path / "runs", [settings], SplitSettings(val_size=0.5))
    assert set(run.validation_ids()) == set(own)
    assert run.info["rows"] == {"train": 20, "val": 10}
    [found] = [one for one in commands.check(parted)["findings"] if one["kind"] == "validation rows"]
    assert found["message"].startswith("10 training rows are the data set's own validation rows")
    # without the list they train: the cache follows, and nothing is encoded again
    [listed] = [path for path in parted.iterdir() if path.name in ("val.txt", "dev.txt")]
    with (parted / "train.txt").open("a") as file:
        file.write("\n".join(listed.read_text().splitlines()[1:]) + "\n")
    listed.unlink()
    again, facts = commands.extract(parted)
    assert (again.validation, facts["encoded"]) == ((), {"train": 0, "test": 0})


def test_a_copy_keeps_the_validation_list(parted: Path, tmp_path: Path) -> None:
    source = load_dataset(parted)
    prepare(source, tmp_path / "copy", held_out=["2", "7"])
    copy = load_dataset(tmp_path / "copy")
    assert copy.validation == source.validation
    assert len(copy.of("train")) == 28
    assert [post.label for post in copy.of("train")][-10:] == [post.label for post in source.of("train")][-10:]


def test_labels_of_validation_posts_are_corrected_in_their_own_list(parted: Path) -> None:
    data = load_dataset(parted)
    assert correctable(data) == {str(k) for k in range(1, 21)}
    assert b"\n3,neutral\n" in corrected_list(data, {"3": "neutral"})[2]
    with pytest.raises(DataError, match="post '25' validates and stands in a list of its own; correct it there"):
        corrected_list(data, {"25": "neutral"})


def test_an_id_in_both_lists_is_told(parted: Path, commands: Commands) -> None:
    with (parted / "train.txt").open("a") as file:
        file.write("25,positive\n")
    kinds = {one["kind"]: one["severity"] for one in commands.check(parted, status=1)["findings"]}
    assert kinds["duplicate id"] == "error"
