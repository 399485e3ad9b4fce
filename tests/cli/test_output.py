"""What commands print: tables and sentences that fit the terminal."""

from __future__ import annotations

import os

import pytest

from mmsent.cli import output
from mmsent.cli.output import SCORES, Layout, echo, echo_table, wrapped
from mmsent.system.tables import columns

TABLE = [
    ["run", "head", "rows", "accuracy", "F1 weighted", "F1 macro", "NLL", "ECE", "F1 bad", "F1 good"],
    ["a", "concat", "40", "0.800", "0.725 [0.538, 0.903]", "0.583", "0.763", "0.190", "0.750", "0.000"],
    ["b", "image", "40", "0.750", "0.801 [0.601, 0.920]", "0.512", "0.600", "0.190", "0.700", "0.100"],
]


def at(monkeypatch: pytest.MonkeyPatch, width: int | None) -> None:
    """As if standard output were a terminal that wide; None: a pipe."""
    monkeypatch.setattr(output, "terminal_width", lambda: width)


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120])
def test_a_table_fits_the_terminal(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at(monkeypatch, width)
    echo_table(TABLE, SCORES)
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert len(lines) == len(TABLE)
    assert max(map(len, lines)) <= width
    assert "F1 weighted" in lines[0]
    gone = [title for title in TABLE[0] if title not in lines[0]]
    assert ("F1 bad" in gone) == ("F1 good" in gone)
    assert ("rows" in gone) == bool(gone)
    named = shown.err.removeprefix("columns left out: ").removesuffix("; --wide shows all\n")
    assert sorted(named.split(", ")) == sorted(gone or [""])


@pytest.mark.parametrize(("width", "wide"), [(40, True), (None, False)])
def test_wide_and_a_pipe_get_all_columns(
    width: int | None, wide: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at(monkeypatch, width)
    echo_table(TABLE, SCORES, wide=wide)
    shown = capsys.readouterr()
    assert all(title in shown.out for title in TABLE[0])
    assert shown.err == ""


def test_the_best_of_a_column_has_a_star(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    at(monkeypatch, None)
    echo_table(TABLE, SCORES)
    _, first, second = capsys.readouterr().out.splitlines()
    assert " ".join(first.split()) == "a concat 40 *0.800 0.725 [0.538, 0.903] *0.583 0.763 0.190 0.750 0.000"
    assert " ".join(second.split()) == "b image 40 0.750 *0.801 [0.601, 0.920] 0.512 *0.600 0.190 0.700 0.100"


def test_equal_values_and_single_rows_have_no_star(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at(monkeypatch, None)
    echo_table([["head", "F1"], ["a", "0.5"], ["b", "0.5"], ["c", ""]], Layout(left=["head"], best={"F1": "max"}))
    echo_table([["head", "F1"], ["a", "0.5"]], Layout(left=["head"], best={"F1": "max"}))
    assert "*" not in capsys.readouterr().out


def test_sentences_wrap_between_words_and_keep_their_indent() -> None:
    text = "a short line\n  an indented line that is too long for it\n/a/path/without/any/blank/that/is/too/long"
    assert wrapped(text, 24).splitlines() == [
        "a short line",
        "  an indented line that",
        "  is too long for it",
        "/a/path/without/any/blank/that/is/too/long",
    ]
    assert wrapped(text, None) == text


def test_raw_lines_stay_whole(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    at(monkeypatch, 20)
    echo("mmsent predict --text 'What a day!' --image post.jpg", raw=True)
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_the_last_column_of_a_plain_table_wraps() -> None:
    shown = columns([["note", "3", "one two three four five six"], ["error", "12", "short"]], right=(1,), width=34)
    assert shown.splitlines() == [
        "note    3  one two three four five",
        "           six",
        "error  12  short",
    ]
    assert columns([["a", "b c d e f g h i j k l m n o p q r s t u v w x y z"]]).count("\n") == 0


@pytest.mark.parametrize("width", ["80", "120"])
def test_help_fits_the_terminal(
    width: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mmsent.cli.app import cache_commands, commands
    from mmsent.cli.main import main

    monkeypatch.setenv("COLUMNS", width)
    for command in [(), *((name,) for name in commands()), *(("cache", name) for name in cache_commands())]:
        with pytest.raises(SystemExit):
            main([*command, "--help"])
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= int(width), command
        assert not any("…" in line for line in lines), command
    assert os.environ["COLUMNS"] == width
