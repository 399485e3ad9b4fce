"""The language of a report: English stands in the code, other languages in a file of sentences by the English ones."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

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
    return catalogue(_LANGUAGE.get()).get(english, english).format(**values)


def listed(parts: list[str]) -> str:
    """Parts in a row, as in "a, b and c"."""
    if len(parts) < 2:
        return "".join(parts)
    return say("{first} and {last}", first=say(", ").join(parts[:-1]), last=parts[-1])


@functools.cache
def catalogue(language: str) -> Mapping[str, str]:
    """What a language says for each English sentence."""
    if language == "en":
        return {}
    path = Path(__file__).parent / f"{language}.toml"
    found: dict[str, str] = tomllib.loads(path.read_text(encoding="utf-8"))
    return found
