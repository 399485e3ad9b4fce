"""A table of predictions says how it was voted, and replay compares it with a vote of the same kind."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import pytest

from mmsent.data.lists import ListForm
from mmsent.errors import DataError, UsageError
from mmsent.evaluation.replay import replay
from mmsent.evaluation.replay_votes import read_predictions, replay_vote, votes_of, way_of
from mmsent.inference.vote import parse_way, vote_split, voting_way, write_vote
from tests.evaluation.test_replay import cache_in, call, here, made, runs_in  # noqa: F401

LABELS = ("negative", "neutral", "positive")


@pytest.mark.parametrize(
    ("tie", "soft", "labels", "way"),
    [
        (None, False, LABELS, "majority, else neutral"),
        (None, False, ("a", "b"), "majority, else soft"),
        ("soft", False, LABELS, "majority, else soft"),
        ("positive", False, LABELS, "majority, else positive"),
        (None, True, LABELS, "soft"),
        ("positive", True, LABELS, "soft"),
    ],
)
def test_ways_in_words(tie: str | None, soft: bool, labels: Sequence[str], way: str) -> None:
    assert voting_way(tie, labels, soft=soft) == way
    back = parse_way(way)
    assert voting_way(back[0], labels, soft=back[1]) == way


def test_no_way() -> None:
    with pytest.raises(ValueError, match="'by lot' is not a known way of voting"):
        parse_way("by lot")
    with pytest.raises(UsageError, match="--tie 'maybe'"):
        voting_way("maybe", LABELS, soft=False)


def write(path: Path, header: list[str], *rows: list[str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def test_the_way_of_a_table(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    assert way_of(write(table, ["id", "vote", "agreeing", "r"], ["1", "soft", "2", "x"])) == (None, True)
    assert way_of(write(table, ["id", "agreeing", "vote"], ["1", "2", "x"])) is None  # a run called vote
    assert way_of(write(table, ["id", "vote", "agreeing", "r"])) is None
    for header in (["id", "vote", "agreeing", "r"], ["id", "vote"]):
        with pytest.raises(DataError, match="does not say how it was voted"):
            way_of(write(table, header, ["1", "?", "2", "x"]))


def test_like_is_compared_with_like(
    here: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(here)
    monkeypatch.setattr(
        "mmsent.evaluation.replay.fit", lambda cache, out, settings, *a, **k: _same(here, settings[0].fusion)
    )
    names = [run.name for run in runs_in(here)]
    assert call("vote", "--data", "posts", "--soft") == 0
    rows = list(csv.DictReader(Path("predictions.csv").read_text(encoding="utf-8").splitlines()))
    assert {row["vote"] for row in rows} == {"soft"}
    assert votes_of(Path("predictions.csv"), runs_in(here))
    # Turn every label into one that a majority would not give, as a soft vote may: only the way tells them apart.
    assert call("vote", "--data", "posts", "--tie", "positive", "--out", "tied.txt") == 0
    capsys.readouterr()
    for table in ("predictions.csv", "tied.csv"):
        assert call("replay", *names, "--predictions", table) == 0
        assert f"{table}: 12 of its 12 labels are the same" in capsys.readouterr().out
    assert call("replay", *names, "--tie", "positive", "--predictions", "tied.csv") == 0
    capsys.readouterr()
    # Options that contradict the table: refused where it was named, left out of account where it was found.
    assert call("replay", *names, "--soft", "--predictions", "tied.csv") == 1
    message = "tied.csv was voted by majority, else positive, not by soft; leave --tie and --soft out"
    assert message in " ".join(capsys.readouterr().err.split())
    assert call("replay", *names, "--tie", "positive") == 0
    shown = capsys.readouterr()
    assert "predictions.csv is ignored: predictions.csv was voted by soft" in " ".join(shown.err.split())
    assert "its 12 labels" not in shown.out
    # A table that does not say it, of an older mmsent, is compared as the options say.
    header = [name for name in rows[0] if name != "vote"]
    write(Path("predictions.csv"), header, *([row[name] for name in header] for row in rows))
    assert call("replay", *names, "--soft") == 0
    assert "predictions.csv: 12 of its 12 labels are the same" in capsys.readouterr().out


def _same(folder: Path, fusion: str) -> list[object]:
    """The run itself, in place of one fitted again."""
    return [next(run for run in runs_in(folder) if run.fusion == fusion)]


def test_votes_are_compared(here: Path, tmp_path: Path) -> None:  # noqa: F811
    cache, runs = cache_in(here), runs_in(here)
    done = [replay(run, cache, tmp_path / "again") for run in runs]
    _, table = write_vote(vote_split(runs, cache, "test"), tmp_path / "predictions.txt", ListForm())
    assert votes_of(table, runs)
    assert not votes_of(table, runs[:2])
    assert not votes_of(tmp_path / "none.csv", runs)
    assert not votes_of(runs[0].path / "validation.csv", runs)
    found = replay_vote(done, [cache], table)
    assert found.ok
    assert (found.split, found.rows, found.same, found.table_same) == ("test", 12, 12, 12)
    lines = table.read_text().splitlines()
    first = lines[1].split(",")
    first[1] = "neutral" if first[1] != "neutral" else "positive"
    table.write_text("\n".join([lines[0], ",".join(first), *lines[2:]]) + "\n")
    found = replay_vote(done, [cache], table)
    assert found.table_same == 11
    assert not found.ok
    table.write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(DataError, match="does not list the posts of the test split"):
        replay_vote(done, [cache], table)
    with pytest.raises(DataError, match="is not a table of predictions"):
        read_predictions(tmp_path / "none.csv")
