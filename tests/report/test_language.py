"""A report in another language: every sentence has its translation, with the same values in it."""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

import mmsent.report
from mmsent.report import figure_set, language
from mmsent.report.figures import training
from mmsent.report.language import catalogue, listed, say, speaking
from tests.helpers.small import run

ROOM = Path(mmsent.report.__file__).parent
WIDE = re.compile("[\u4e00-\u9fff]")


def sentences() -> Iterator[str]:
    """All that the room says by a literal."""
    for path in ROOM.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            said = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "say"
            if said and isinstance(node.args[0], ast.Constant):
                yield str(node.args[0].value)
    yield from re.findall(r'say\("([^"]+)"', (ROOM / "page.html").read_text(encoding="utf-8"))
    yield from (title for _, title, _ in figure_set.FIGURES + figure_set.SWEEP_FIGURES)
    yield from (title for _, title in training.METRICS)


def fields(text: str) -> list[str]:
    return sorted(name for _, name, _, _ in string.Formatter().parse(text) if name is not None)


def test_every_sentence_is_translated() -> None:
    known = catalogue("zh")
    assert [one for one in sentences() if one not in known] == []


def test_translations_hold_the_same_values() -> None:
    for english, other in catalogue("zh").items():
        assert fields(english) == fields(other), english


def test_the_language_ends_with_its_block() -> None:
    assert say("{n} classes", n=3) == "3 classes"
    with speaking("zh"):
        assert say("{n} classes", n=3) == "3 个类别"
        assert listed(["a", "b", "c"]) == "a、b和c"
        assert say("what nobody translated, {n}", n=1) == "what nobody translated, 1"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed(["a"]) == "a"


def test_a_page_in_chinese(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Besides names of runs, settings and labels, no sentence of the page is English."""
    missing: list[str] = []
    known = catalogue("zh")

    class Noted(dict):  # type: ignore[type-arg]
        def get(self, english: str, otherwise: str = "") -> str:
            if english not in known:
                missing.append(english)
            return known.get(english, otherwise)

    monkeypatch.setattr(language, "catalogue", lambda name: Noted(known) if name == "zh" else {})
    kept = {"labels", "loss", "confusion"}
    monkeypatch.setattr(figure_set, "FIGURES", tuple(p for p in figure_set.FIGURES if p[0] in kept))
    arguments = ["--cache", str(small / "cache"), "--runs", str(small / "runs"), "--out", str(tmp_path)]
    assert run("report", *arguments, "--data", str(small / "posts" / "posts.jsonl"), "--lang", "zh") == 0
    assert missing == []
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert '<html lang="zh-CN">' in page
    for part in re.findall(r"<(?:h2|h3|li|figcaption|caption)[^>]*>(.*?)</", page, re.DOTALL):
        plain = re.sub("<[^>]+>", "", part)
        assert WIDE.search(plain) or len(plain.split()) < 4, plain
    capsys.readouterr()
    assert run("report", *arguments, "--lang", "fr") == 2
    assert "--lang 'fr': choose en or zh" in capsys.readouterr().err
