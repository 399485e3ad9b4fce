"""Where commands may write: nowhere in a data set."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmsent.cli.main import main
from mmsent.data.dataset import belongs_to, load_dataset
from tests.helpers.made import make_guid, make_manifest


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command says that is refused before it does anything."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("command", ["vote", "predict --text x", "explain 1", "report", "audit", "export", "prepare"])
def test_no_command_writes_into_the_posts_of_a_data_set(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_guid(tmp_path / "posts", 4, 2, size=8)
    monkeypatch.chdir(tmp_path)
    for target in ("posts/data", "posts/data/1.txt", "posts/train.txt"):
        error = refused(capsys, *command.split(), "--out", target)
        assert f"--out {target} would replace" in error
        assert "a file of the data set" in error


def test_minus_is_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--out -: mmsent vote writes no file to standard output" in refused(capsys, "vote", "--out", "-")
    assert "--manifest -: the ending" in refused(capsys, "predict", "--manifest", "-")


def test_files_of_a_guid_data_set(tmp_path: Path) -> None:
    root = make_guid(tmp_path / "posts", 4, 2, size=8)
    (tmp_path / "link.txt").symlink_to(root / "train.txt")
    for name in ("train.txt", "test_without_label.txt", "data/1.txt", "data/1.jpg", "data/new.txt"):
        assert belongs_to(root / name) == root
    assert belongs_to(tmp_path / "link.txt") == root
    for free in (root / "predictions.txt", tmp_path / "train.txt", tmp_path / "data" / "1.txt"):
        assert belongs_to(free) is None


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_files_of_a_manifest(tmp_path: Path, ending: str) -> None:
    path = make_manifest(tmp_path, ending, 4, 2, size=8)
    assert belongs_to(path) == path
    data = load_dataset(path)
    assert belongs_to(tmp_path / "pictures" / "1.png") is None  # not to be told without its manifest
    assert belongs_to(tmp_path / "pictures" / "1.png", data) == path
    (tmp_path / "predictions.csv").write_text("id,predicted,confidence\n1,neutral,0.5\n")
    for free in (tmp_path / "predictions.csv", tmp_path / "new.csv", tmp_path / "pictures" / "other.png"):
        assert belongs_to(free, data) is None
