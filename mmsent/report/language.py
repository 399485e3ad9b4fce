"""The language of a report: English stands in the code, other languages in a file of sentences by the English ones."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from mmsent.system.words import singular

LANGUAGES = ("en", "zh")
_LANGUAGE: ContextVar[str] = ContextVar("_LANGUAGE", default="en")


@contextmanager
def speaking(language: str) -> Iterator[None]:
    """Within it `say` says everything in this language, one of LANGUAGES."""
    token = _LANGUAGE.set(language)
    try:
        yield
    finally:
        _LANGUAGE.reset(token)


def language() -> str:
    """The language that is spoken, one of LANGUAGES."""
    return _LANGUAGE.get()


def say(english: str, /, **values: Any) -> str:
    """A sentence with its values, as str.format fills them in; in English where the language lacks it."""
    told = catalogue(_LANGUAGE.get()).get(english, english).format(**values)
    return singular(told) if _LANGUAGE.get() == "en" else told


def listed(parts: list[str]) -> str:
    """Parts in a row, as in "a, b and c"."""
    if len(parts) < 2:
        return "".join(parts)
    return say("{first} and {last}", first=say(", ").join(parts[:-1]), last=parts[-1])


def retold(english: str) -> str:
    """A finished sentence of the check of posts, or several that semicolons join; in English where the language lacks
    it."""
    whole = _retold(english)
    return whole if whole != english else say("; ").join(map(_retold, english.split("; ")))


def _retold(english: str) -> str:
    english = singular(english) if _LANGUAGE.get() == "en" else english
    for pattern, other in _patterns(_LANGUAGE.get()):
        if found := pattern.fullmatch(english):
            return other.format(**found.groupdict())
    return english


@functools.cache
def _patterns(language: str) -> list[tuple[re.Pattern[str], str]]:
    """What a language says for sentences of a pattern, those with most fixed words first."""
    if language == "en":
        return []
    given = tomllib.loads((Path(__file__).parent / f"{language}-findings.toml").read_text(encoding="utf-8"))
    longest = sorted(given.items(), key=lambda pair: -len(re.sub(r"\{\w+\}", "", pair[0])))
    return [(re.compile(re.sub(r"\\{(\w+)\\}", _field, re.escape(english))), other) for english, other in longest]


def _field(name: re.Match[str]) -> str:
    """What may stand for a word in braces: a number for those called n, total or share, else anything short of a
    semicolon."""
    values = r"[\d.,%]+" if name[1] in ("n", "total", "share") else "(?:(?!; ).)+"
    return f"(?P<{name[1]}>{values})"


@functools.cache
def catalogue(language: str) -> Mapping[str, str]:
    """What a language says for each English sentence."""
    if language == "en":
        return {}
    path = Path(__file__).parent / f"{language}.toml"
    found: dict[str, str] = tomllib.loads(path.read_text(encoding="utf-8"))
    return found
