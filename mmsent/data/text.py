"""Text: one strict decoding decision per data set, and the optional cleaning.

Guessing the encoding of short texts one by one gets hundreds of them wrong, so it is decided for the data set as a
whole: the first of an ordered list that decodes every text without an error. A byte order mark overrides the list for
its file, because it names the encoding.
"""

from __future__ import annotations

import codecs
import hashlib
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
MAX_BYTES = 16 << 20  # of a text file
NUL_HINT = (
    "holds NUL characters, which texts do not have; if it is UTF-16 without a byte order mark, "
    "pass --text-encoding utf-16-le or utf-16-be"
)
_STRAY = 10  # a data set is UTF-8 if at most one in ten of its texts beyond ASCII is invalid
_EVIDENCE = 64  # bytes beyond ASCII that charset-normalizer needs to distinguish encodings
_SAMPLE = 1 << 20  # bytes that it reads


@dataclass(frozen=True)
class Decoding:
    """The decision for a data set and its reason. encoding: Python's codec name."""

    encoding: str
    why: str
    with_bom: int = 0

    def decode(self, raw: bytes) -> str:
        """Decode strictly (a byte order mark wins) and strip the ends. Raises UnicodeDecodeError (a ValueError)."""
        return self.decode_whole(raw).strip()

    def decode_whole(self, raw: bytes) -> str:
        """The same, without stripping."""
        return raw.decode(bom_encoding(raw) or self.encoding)


def text_hash(text: str) -> bytes:
    """The content hash of a decoded and cleaned text: its SHA-256, 32 bytes."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


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


def bom_encoding(raw: bytes) -> str | None:
    """The codec of a leading byte order mark, or None."""
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

    texts: the raw bytes of every text. override: use this codec; texts that it cannot decode are
    quarantined one by one.

    The first of `encodings` that decodes every text is chosen, with two exceptions. Texts beyond ASCII are hardly ever
    valid UTF-8 by chance, so if nine tenths of them are, the data set is UTF-8 and the rest is quarantined; one broken
    text must not decide for all others. And if several other encodings decode every text, charset-normalizer chooses
    among them. If none does, it chooses without a list; if that fails too, the codec with the fewest failures is chosen
    and the texts that it cannot decode are quarantined. Raises UsageError on an unknown codec, DataError if the list is
    empty.
    """
    raws = list(texts)
    plain = [raw for raw in raws if bom_encoding(raw) is None]
    marked = len(raws) - len(plain)
    if override is not None:
        return Decoding(known_encoding(override), "given by --text-encoding", marked)
    if not encodings:
        raise DataError("no text encodings to try; set --text-encoding")
    beyond = [raw for raw in plain if not raw.isascii()]
    failures: dict[str, int] = {}
    for name in encodings:
        codec = known_encoding(name)
        failures[codec] = _undecodable(plain, codec)
        if codec == "utf-8" and 0 < failures[codec] * _STRAY <= len(beyond):
            valid = f"{len(beyond) - failures[codec]} of {len(beyond)} texts beyond ASCII are valid UTF-8"
            return Decoding(codec, f"{valid}, which does not happen by chance; the rest is quarantined", marked)
        if not failures[codec]:
            rest = [known_encoding(other) for other in encodings if known_encoding(other) not in failures]
            also = [other for other in rest if codec != "utf-8" and not _undecodable(plain, other)]
            chosen = _likeliest(beyond, [codec, *also]) if also else codec
            before = ", ".join(f"{n} fails on {bad}" for n, bad in failures.items() if bad)
            others = ", ".join(other for other in (codec, *also) if other != chosen)
            why = f"decodes all {len(raws)} texts" + (f", as would {others}" if others else "")
            return Decoding(chosen, why + (f"; {before}" if before else ""), marked)
    from charset_normalizer import from_bytes

    best = from_bytes(_sample(plain)).best()
    if best is not None and not _undecodable(plain, best.encoding):
        return Decoding(known_encoding(best.encoding), "found by charset-normalizer; no listed encoding fits", marked)
    codec = min(failures, key=lambda name: failures[name])
    why = f"no encoding decodes every text; {codec} fails least, on {failures[codec]} of {len(raws)}"
    return Decoding(codec, why, marked)


def _sample(texts: Sequence[bytes]) -> bytes:
    return b"\n".join(texts)[:_SAMPLE]


def _likeliest(texts: Sequence[bytes], codecs_: Sequence[str]) -> str:
    """The likeliest of several codecs that decode all texts; the first if there are too few bytes to decide."""
    sample = _sample(texts)
    if sum(byte > 127 for byte in sample) < _EVIDENCE:
        return codecs_[0]
    from charset_normalizer import from_bytes

    best = from_bytes(sample, cp_isolation=list(codecs_)).best()
    found = known_encoding(best.encoding) if best is not None else ""
    return found if found in codecs_ else codecs_[0]


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
    """Apply cleaning steps in their fixed order; without steps the text is returned as it is.

    links and mentions are removed, a leading RT is removed, `#goodMood` becomes `good Mood`, emoji become their names.
    """
    if not steps:
        return text
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
