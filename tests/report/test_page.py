"""The script of a page that opens from disk: the modules of the server's pages in one."""

from __future__ import annotations

import re

from mmsent.report.page import MODULES, WEB, page_script

NAMES = re.compile(r"^(?:async )?(?:const|let|function) (?:(\w+)|[{\[]([^}\]]*)[}\]])", re.MULTILINE)


def test_the_modules_share_no_name() -> None:
    script = page_script()
    found = [name for one, several in NAMES.findall(script) for name in [one, *re.findall(r"\w+", several)] if name]
    assert {"t", "cardOf", "startGallery", "embedded"} <= set(found)
    assert [name for name in found if found.count(name) > 1] == []
    assert not re.search(r"^(import|export)\b", script, re.MULTILINE)


def test_every_module_stands_after_those_it_imports() -> None:
    assert sorted(MODULES) == sorted(path.stem for path in WEB.glob("*.js"))
    for i, name in enumerate(MODULES):
        wanted = re.findall(r'from "\./(\w+)\.js"', (WEB / f"{name}.js").read_text(encoding="utf-8"))
        assert set(wanted) <= set(MODULES[:i]), name


def test_pages_say_the_same_in_both_languages() -> None:
    def said(name: str) -> dict[str, str]:
        return dict(re.findall(r'(\w+): "((?:[^"\\]|\\.)*)"', (WEB / f"{name}.js").read_text(encoding="utf-8")))

    english, chinese = said("english"), said("chinese")
    assert len(english) > 200
    assert english.keys() == chinese.keys()
    for key, words in chinese.items():
        assert set(re.findall(r"\{\w+\}", words)) == set(re.findall(r"\{\w+\}", english[key])), key
