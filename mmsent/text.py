"""Text: one strict decoding decision per data set, and the optional cleaning.

Sniffing short texts one by one gets hundreds of them wrong, so the encoding is decided for the data set as a
whole: the first of an ordered list that decodes every text without an error. A byte order mark outranks the list,
file by file, because it names its own encoding.
"""

from __future__ import annotations

import codecs
import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mmsent.config import TEXT_ENCODINGS, Clean
from mmsent.errors import DataError, UsageError

_BOMS = (  # UTF-32 first: its little-endian mark begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True)
class Decoding:
    """What was decided for a data set and why. `encoding` is Python's codec name."""

    encoding: str
    why: str
    with_bom: int = 0

    def decode(self, raw: bytes) -> str:
        """Decode strictly (a byte order mark wins) and strip the ends. Raises UnicodeDecodeError (a ValueError)."""
        return raw.decode(bom_encoding(raw) or self.encoding).strip()


def bom_encoding(raw: bytes) -> str | None:
    """The codec that a leading byte order mark names, or None."""
    return next((name for mark, name in _BOMS if raw.startswith(mark)), None)


def known_encoding(name: str) -> str:
    """Python's canonical name of a text codec. Raises UsageError if there is none."""
    try:
        info = codecs.lookup(name)
        "".encode(info.name)  # refuses byte-to-byte codecs such as hex
    except (LookupError, TypeError, ValueError) as error:
        raise UsageError(f"unknown text encoding {name!r}; try utf-8, gb18030 or cp1252") from error
    return info.name


def _undecodable(texts: Sequence[bytes], encoding: str) -> int:
    bad = 0
    for raw in texts:
        try:
            raw.decode(encoding)
        except UnicodeError:
            bad += 1
    return bad


def decide_encoding(
    texts: Iterable[bytes], encodings: Sequence[str] = TEXT_ENCODINGS, override: str | None = None
) -> Decoding:
    """Choose one encoding for all texts of a data set.

    texts: the raw bytes of every text. override: use this codec and do not choose; texts that it cannot decode are
    then quarantined one by one. Where nothing on the list decodes every text, charset-normalizer is asked about all
    texts together; where that fails too, the codec with the fewest failures is taken and the texts it cannot decode
    are quarantined. Raises UsageError on an unknown codec, DataError if the list is empty.
    """
    raws = list(texts)
    plain = [raw for raw in raws if bom_encoding(raw) is None]
    marked = len(raws) - len(plain)
    if override is not None:
        return Decoding(known_encoding(override), "given by --text-encoding", marked)
    if not encodings:
        raise DataError("no text encodings to try; give --text-encoding")
    failures: dict[str, int] = {}
    for name in encodings:
        codec = known_encoding(name)
        failures[codec] = _undecodable(plain, codec)
        if not failures[codec]:
            before = ", ".join(f"{n} fails on {bad}" for n, bad in failures.items() if bad)
            return Decoding(codec, f"decodes all {len(raws)} texts" + (f"; {before}" if before else ""), marked)
    from charset_normalizer import from_bytes

    best = from_bytes(b"\n".join(plain)).best()
    if best is not None and not _undecodable(plain, best.encoding):
        return Decoding(known_encoding(best.encoding), "found by charset-normalizer; no listed encoding fits", marked)
    codec = min(failures, key=lambda name: failures[name])
    why = f"no encoding decodes every text; {codec} fails least, on {failures[codec]} of {len(raws)}"
    return Decoding(codec, why, marked)


_LINK = re.compile(r"(?:https?://|www\.)\S+", re.IGNORECASE)
_MENTION = re.compile(r"(?<!\w)@\w+")
_RETWEET = re.compile(r"^\s*RT\b\s*:?\s*")
_HASHTAG = re.compile(r"#(\w+)")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z])|_")
_SPACE = re.compile(r"\s+")


def _emoji_names(text: str) -> str:
    try:
        import emoji
    except ImportError as error:
        raise UsageError("--clean emoji needs the emoji package: pip install 'mmsent[emoji]'") from error
    return str(emoji.replace_emoji(text, lambda _, data: f" {data['en'].strip(':').replace('_', ' ')} "))


def clean_text(text: str, steps: Sequence[Clean]) -> str:
    """Apply cleaning steps in their fixed order; with no steps the text is returned as it is.

    links and mentions are removed, a leading RT is removed, `#goodMood` becomes `good Mood`, emoji become their names.
    """
    if not steps:
        return text
    text = html.unescape(text)
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
