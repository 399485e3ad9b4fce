"""A report in another language: every sentence has its translation, with the same values in it."""

from __future__ import annotations

import ast
import re
import string
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import mmsent.report
from mmsent.data.encodings import decide_encoding
from mmsent.report import figure_set, language
from mmsent.report.figures import training
from mmsent.report.language import catalogue, listed, retold, say, speaking
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


def findings() -> Iterator[str]:
    """Messages of the check of posts and kinds of findings, where they stand as such; 7 for each value in them."""
    said = {"finding_of", "Finding", "Problem", "Decoding"}
    files = ["check", "check_duplicates", "dataset", "lists", "manifests"]
    files += [f"readers/{name}" for name in ("guid", "base", "rows", "folder", "excel", "hf_parquet", "webdataset")]
    for name in files:
        for node in ast.walk(ast.parse((ROOM.parent / "data" / f"{name}.py").read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in said:
                yield from filter(None, map(written, [node.args[1], node.args[-1]]))
            elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in {"message", "crop", "why"}:
                both = [node.value.body, node.value.orelse] if isinstance(node.value, ast.IfExp) else [node.value]
                yield from filter(None, map(written, both))


def decided() -> Iterator[str]:
    """Why texts are read in an encoding, for texts of several kinds."""
    chinese, latin = "今天天气很好".encode("gb18030"), "café crème".encode("cp1252")
    kinds = [
        [b"plain"],
        [chinese],
        ["今天".encode(), "été".encode(), "très bien".encode(), latin],
        [b"\x81\xff", latin],
    ]
    for what in ("texts", "lines"):
        for texts in kinds:
            yield decide_encoding(texts, what=what).why


def written(node: ast.expr) -> str | None:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        quoted = ["'7'" if getattr(v, "conversion", -1) == ord("r") else "7" for v in node.values]
        pairs = zip(node.values, quoted, strict=True)
        return "".join(str(v.value) if isinstance(v, ast.Constant) else shown for v, shown in pairs)
    return None


def test_findings_are_told_in_chinese() -> None:
    every = [*findings(), *decided(), "groups that share one picture; 12 rows in all", "similar text in both splits"]
    every += ["groups of different texts that have the same words; 9 rows in all", "error", "warning", "note"]
    assert len(every) > 50
    with speaking("zh"):
        english = [one for one in every if re.search("[a-z]{4}", one) and not WIDE.search(retold(one))]
        assert len(set(map(retold, decided()))) > 4
        named = "in both splits|have rows in both train and test|with two labels|have different labels"
        assert [one for one in english if not re.fullmatch(f"7 ({named})|posts with 7", one)] == []
        assert retold("no file 1.jpg; 3.1% of the rows cannot be used") == "没有文件 1.jpg；3.1% 的行不可用"
        assert retold("what nobody translated; it is used") == "what nobody translated；仍然使用"
    assert retold("no text") == "no text"
    for english_, other in tomllib.loads((ROOM / "zh-findings.toml").read_text(encoding="utf-8")).items():
        assert set(fields(other)) == set(fields(english_)), english_


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
    told = re.sub(r"<(script|style|pre|section id=.commands).*?</(?:script|style|pre)>", "", page, flags=re.DOTALL)
    words = "the|of|by|to|is|are|and|in|training|cosine|side|threads?|commit|ids|not"
    assert [one for one in re.findall(r">([^<>]+)<", told) if re.search(rf"\b(?:{words})\b", one)] == []
    capsys.readouterr()
    assert run("report", *arguments, "--lang", "fr") == 2
    assert "--lang 'fr': choose en or zh" in capsys.readouterr().err
