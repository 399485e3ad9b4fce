"""Decoded texts: what is one, its content hash, and the optional cleaning."""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Sequence

from mmsent.config import Clean
from mmsent.errors import DataError, UsageError

MAX_BYTES = 16 << 20  # of a text file
NUL_HINT = (
    "holds NUL characters, which texts do not have; if it is UTF-16 without a byte order mark, "
    "pass --text-encoding utf-16-le or utf-16-be"
)


def text_hash(text: str) -> bytes:
    """The content hash of a decoded and cleaned text: its SHA-256, 32 bytes."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


EMPTY_TEXT = text_hash("")


def says_nothing(text: str) -> bool:
    """Whether a text holds no letter and no digit, so that two posts with the same one are no duplicates."""
    return not any(c.isalnum() for c in text)


def encodable(text: str) -> bool:
    """Whether a string consists of characters only; JSON and some codecs can produce half a surrogate pair."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def require_text(text: str) -> str:
    """The text as it is. Raises DataError if it holds half a surrogate pair or a NUL."""
    if not encodable(text):
        raise DataError("text holds half a surrogate pair, which is not a character")
    if "\0" in text:
        raise DataError(f"text {NUL_HINT}")
    return text


_LINK = re.compile(r"(?:https?://|www\.)\S+", re.IGNORECASE)
_MENTION = re.compile(r"(?<!\w)@\w+")
_RETWEET = re.compile(r"^\s*RT\b\s*:?\s*")
_HASHTAG = re.compile(r"#(\w+)")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z])|_")
_SPACE = re.compile(r"\s+")
_ENDLESS = re.compile(r"&#[0-9]{1000,};?")  # Python refuses to parse such numbers, and no such character exists


def _emoji_names(text: str) -> str:
    try:
        import emoji
    except ImportError as error:
        raise UsageError("--clean emoji needs the emoji package: pip install 'mmsent[emoji]'") from error
    return str(emoji.replace_emoji(text, lambda _, data: f" {data['en'].strip(':').replace('_', ' ')} "))


def clean_text(text: str, steps: Sequence[Clean]) -> str:
    """Apply cleaning steps in their fixed order, until nothing changes: a cleaned text stays as it is. Without steps
    the text is returned as it is.

    links and mentions are removed, a leading RT is removed, `#goodMood` becomes `good Mood`, emoji become their names.
    """
    if not steps:
        return text
    while (cleaned := _cleaned_once(text, steps)) != text:  # every change takes away a sign, so this ends
        text = cleaned
    return cleaned


def _cleaned_once(text: str, steps: Sequence[Clean]) -> str:
    text = html.unescape(_ENDLESS.sub("\ufffd", text))
    if Clean.links in steps:
        text = _LINK.sub(" ", text)
    if Clean.mentions in steps:
        text = _MENTION.sub(" ", text)
    if Clean.retweet in steps:
        text = _RETWEET.sub("", text)
    if Clean.hashtags in steps:
        text = _HASHTAG.sub(lambda m: " ".join(_CAMEL.split(m[1])), text)
    if Clean.emoji in steps:
        text = _emoji_names(text)
    return _SPACE.sub(" ", text).strip()
