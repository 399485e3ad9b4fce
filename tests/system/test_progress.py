from __future__ import annotations

import sys

import pytest

from mmsent.system import progress


def test_without_a_terminal_it_says_a_line_per_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr("mmsent.system.progress.time.monotonic", lambda: now)
    with progress.bar(400, "encoding", "post", initial=40) as shown:
        for _ in range(18):  # three minutes
            now += 10.0
            shown.update(5)
            shown.set_postfix_str("of a bar alone")
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines() == [
        "encoding: 70 of 400 posts, about 11 min left",
        "encoding: 100 of 400 posts, about 10 min left",
        "encoding: 130 of 400 posts, about 9 min left",
    ]
    with progress.bar(400, "encoding", "post", show=False) as shown:
        now += 1000.0
        shown.update(400)
    assert capsys.readouterr().err == ""


def test_on_a_terminal_it_is_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress.bar(4, "encoding", "post") as shown:
        shown.update(4)
    assert "encoding: " in capsys.readouterr().err
