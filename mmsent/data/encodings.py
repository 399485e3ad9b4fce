"""One strict decision per data set on how its texts are decoded.

Guessing the encoding of short texts one by one gets hundreds of them wrong, so it is decided for the data set as a
whole: the first of an ordered list that decodes every text without an error. Texts beyond ASCII are hardly ever valid
UTF-8 by chance; so where some are and others are not, two encodings are mixed: the valid ones are UTF-8, and one other
encoding is decided for the rest. A byte order mark overrides the decision for its file, because it names the encoding.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mmsent.config import TEXT_ENCODINGS
from mmsent.errors import DataError, UsageError

_BOMS = (  # UTF-32 first: its little-endian mark begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
UTF8 = "utf-8"
_EVIDENCE = 64  # bytes beyond ASCII that charset-normalizer needs to distinguish encodings
_SAMPLE = 1 << 20  # bytes that it reads
_SHARED, _AHEAD = 0.3, 2  # a codec fits if this share of its characters is in the UTF-8 texts, twice that of any other
_BEYOND = re.compile(rb"[\x80-\xff]")
_STRAY = 10  # a codec may fail on one in ten of the texts that are not UTF-8, where no other is better
_PRIOR = 0.2, 5  # share of two-byte characters that are valid UTF-8 by chance, and how many characters that counts as


@dataclass(frozen=True)
class Decoding:
    """The decision for a data set and its reason. encoding: Python's codec name, or several joined by `+`: the first
    that decodes a text is its encoding. doubt: what a reader should be warned of."""

    encoding: str
    why: str
    with_bom: int = 0
    doubt: str = ""

    def decode(self, raw: bytes) -> str:
        """Decode strictly (a byte order mark wins) and strip the ends. Raises UnicodeDecodeError (a ValueError)."""
        return self.decode_whole(raw).strip()

    def decode_whole(self, raw: bytes) -> str:
        """The same, without stripping."""
        *first, last = (bom_encoding(raw) or self.encoding).split("+")
        for codec in first:
            try:
                return raw.decode(codec)
            except UnicodeError:
                continue
        return raw.decode(last)

    def decode_lines(self, raw: bytes) -> str:
        """A list or manifest, without stripping; where encodings are mixed, each line has its own."""
        if "+" not in self.encoding or bom_encoding(raw):
            return self.decode_whole(raw)
        return "".join(map(self.decode_whole, _lines(raw)))


def bom_encoding(raw: bytes) -> str | None:
    """The codec of a leading byte order mark, or None."""
    return next((name for mark, name in _BOMS if raw.startswith(mark)), None)


def known_encoding(name: str) -> str:
    """Python's canonical name of a text codec, or of several joined by `+`. Raises UsageError if there is none."""
    try:
        infos = [codecs.lookup(part) for part in name.split("+")]
        for info in infos:
            "".encode(info.name)  # refuses byte-to-byte codecs such as hex
    except (LookupError, TypeError, ValueError) as error:
        raise UsageError(f"unknown text encoding {name!r}; try utf-8, gb18030 or cp1252") from error
    return "+".join(info.name for info in infos)


def decide_lines(raw: bytes, encodings: Sequence[str] = TEXT_ENCODINGS, override: str | None = None) -> Decoding:
    """The decision for a list or manifest, whose lines may come from different programs."""
    # A line feed is no part of another character in ASCII's supersets; files with NULs may be UTF-16.
    lines = [raw] if bom_encoding(raw) or b"\0" in raw else _lines(raw)
    return decide_encoding(lines, encodings, override, what="lines")


def _lines(raw: bytes) -> list[bytes]:
    return raw.splitlines(keepends=True) if b"\n" not in raw else re.findall(rb"[^\n]*\n|[^\n]+", raw)


def decide_encoding(
    texts: Iterable[bytes],
    encodings: Sequence[str] = TEXT_ENCODINGS,
    override: str | None = None,
    *,
    what: str = "texts",
) -> Decoding:
    """Choose the encoding of all texts of a data set.

    texts: the raw bytes of every text. override: use this codec; texts that it cannot decode are quarantined one by
    one. what: the texts' name in reasons.

    1. Where UTF-8 decodes every text, it is UTF-8; an encoding that stands before it in `encodings` comes first.
    2. Else one encoding is decided for the texts that are not UTF-8: among those of `encodings` that decode them all,
       the one whose characters occur in the texts that are; without such a one, charset-normalizer chooses.
    3. Where no text beyond ASCII is valid UTF-8, or so few that chance explains them and that encoding decodes them
       too, it is the encoding of all texts. Else the valid ones are UTF-8 and the rest has that encoding, named
       `utf-8+gb18030`, say; if too little speaks for it, the rest is quarantined.

    Raises UsageError on an unknown codec, DataError if the list is empty.
    """
    raws = list(texts)
    plain = [raw for raw in raws if bom_encoding(raw) is None]
    marked = len(raws) - len(plain)
    if override is not None:
        return Decoding(known_encoding(override), "as the setting text-encoding says", marked)
    if not encodings:
        raise DataError("no text encodings to try; set --text-encoding")
    names = [known_encoding(name) for name in encodings]
    beyond = [raw for raw in plain if not raw.isascii()]
    others = [name for name in names if name != UTF8]
    if UTF8 not in names:
        return _one(beyond, others, what, len(raws), marked, {})
    for codec in names[: names.index(UTF8) + 1]:
        if not _undecodable(beyond, codec):
            return Decoding(codec, f"decodes all {len(raws)} {what}", marked)
    valid = [raw for raw in beyond if _decodes(raw, UTF8)]
    rest = [raw for raw in beyond if not _decodes(raw, UTF8)]
    found = _Rest(valid, rest, others)
    if not valid or found.explains_all():
        return _one(beyond, others, what, len(raws), marked, {UTF8: len(rest)})
    about = f"{len(valid)} of {len(beyond)} {what} beyond ASCII are valid UTF-8, which does not happen by chance; "
    if not found.codec:
        why = f"{about}the rest is quarantined"
        doubt = f"{why}: nothing says for certain how to read it; --text-encoding utf-8+CODEC reads it as CODEC"
        return Decoding(UTF8, why, marked, doubt)
    aside = f", {found.aside} are quarantined" if found.aside else ""
    why = f"{about}{len(rest) - found.aside} are read as {found.codec}{aside}"
    doubt = f"{why}; if they look wrong, --text-encoding utf-8+CODEC reads them as CODEC, utf-8 alone sets them aside"
    return Decoding(f"{UTF8}+{found.codec}", why, marked, doubt)


class _Rest:
    """The encoding of texts that are not UTF-8, beside others that are. codec: "" if too little speaks for any; aside:
    how many texts it does not decode."""

    def __init__(self, valid: Sequence[bytes], rest: Sequence[bytes], others: Sequence[str]) -> None:
        whole = [raw for raw in rest if not _broken_utf8(raw)]
        failures = {codec: _undecodable(whole, codec) for codec in others}
        fitting = [codec for codec in others if not failures[codec]]
        if all(map(_single_byte, fitting)):  # they decode almost anything; one broken text must not exclude the others
            fitting = [codec for codec in others if failures[codec] * _STRAY <= len(whole)]
        self._valid = valid
        self._rest = [raw for raw in whole if all(_decodes(raw, codec) for codec in fitting)]
        self.codec = self._familiar(fitting) or _likeliest(self._rest, fitting) if self._rest else ""
        self.aside = _undecodable(rest, self.codec) if self.codec else len(rest)

    def _familiar(self, fitting: Sequence[str]) -> str:
        """The codec that makes characters of the rest which the UTF-8 texts hold too."""
        known = set("".join(raw.decode() for raw in self._valid))
        shares: dict[str, float] = {}
        read: dict[str, str] = {}
        for codec in fitting:
            read[codec] = "\n".join(raw.decode(codec) for raw in self._rest)
            characters = [c for c in read[codec] if not c.isascii()]
            shares[codec] = sum(c in known for c in characters) / max(1, len(characters))
        best = max(fitting, key=lambda codec: shares[codec], default="")
        second = max((shares[codec] for codec in fitting if read[codec] != read[best]), default=0.0)
        return best if best and shares[best] >= max(_SHARED, _AHEAD * second) else ""

    def explains_all(self) -> bool:
        """Whether the texts that are valid UTF-8 may be so by chance, and the codec decodes them too."""
        codec = self.codec
        if not codec or _single_byte(codec) or _undecodable(self._valid, codec):
            return False
        read = [[c for c in raw.decode(codec) if not c.isascii()] for raw in (*self._rest, *self._valid)]
        characters = [c for some in read[: len(self._rest)] for c in some]
        share, weight = _PRIOR
        hits = sum(_decodes(c.encode(codec), UTF8) for c in characters)
        q = (hits + share * weight) / (len(characters) + weight)
        return len(self._valid) <= sum(q ** len(some) for some in read)


def _one(
    beyond: Sequence[bytes], names: Sequence[str], what: str, n: int, marked: int, failures: Mapping[str, int]
) -> Decoding:
    """One encoding for all n texts, of which those beyond ASCII are given. failures: on how many texts other encodings
    have failed."""
    failed = dict(failures)
    for codec in names:
        failed[codec] = _undecodable(beyond, codec)
    fitting = [codec for codec in names if not failed[codec]]
    if fitting:
        likeliest = _likeliest(beyond, fitting)
        chosen = likeliest or fitting[0]
        tried = list(failed)[: list(failed).index(chosen)]
        before = "; ".join(f"{name} fails on {failed[name]}" for name in tried if failed[name])
        also = ", ".join(codec for codec in fitting if codec != chosen)
        why = f"decodes all {n} {what}" + (f", as would {also}" if also else "") + (f"; {before}" if before else "")
        doubt = ""
        if not likeliest and any(_reads_otherwise(beyond, chosen, codec) for codec in fitting):
            doubt = f"there is too little text beyond ASCII to tell {chosen} from {also}; --text-encoding sets it"
        return Decoding(chosen, why, marked, doubt)
    from charset_normalizer import from_bytes

    best = from_bytes(_sample(beyond)).best()
    if best is not None and not _undecodable(beyond, best.encoding):
        why = "found by charset-normalizer; no listed encoding fits"
        return Decoding(known_encoding(best.encoding), why, marked, f"the texts' encoding was {why}")
    codec = min(failed, key=lambda name: failed[name])
    why = f"no encoding decodes every text; {codec} fails least, on {failed[codec]} of {n}"
    return Decoding(codec, why, marked, why)


def _decodes(raw: bytes, codec: str) -> bool:
    try:
        raw.decode(codec)
    except UnicodeError:
        return False
    return True


def _undecodable(texts: Sequence[bytes], codec: str) -> int:
    return sum(not _decodes(raw, codec) for raw in texts)


def _reads_otherwise(texts: Sequence[bytes], codec: str, other: str) -> bool:
    return any(raw.decode(codec) != raw.decode(other) for raw in texts)


def _broken_utf8(raw: bytes) -> bool:
    """Whether most bytes beyond ASCII are whole UTF-8 characters, as in a text that was cut inside one."""
    kept = raw.decode(UTF8, "ignore").encode()
    return 2 * len(_BEYOND.findall(kept)) > len(_BEYOND.findall(raw))


def _single_byte(codec: str) -> bool:
    """Whether every byte is a character, so that the codec decodes almost anything."""
    return len(bytes(range(0x80, 0x100)).decode(codec, "replace")) == 0x80


def _sample(texts: Sequence[bytes]) -> bytes:
    return b"\n".join(texts)[:_SAMPLE]


def _likeliest(texts: Sequence[bytes], fitting: Sequence[str]) -> str:
    """The likeliest of several codecs that decode all texts; "" if there are too few bytes to decide."""
    if len(fitting) == 1 and not _single_byte(fitting[0]):
        return fitting[0]
    sample = _sample(texts)
    if not fitting or len(_BEYOND.findall(sample)) < _EVIDENCE:
        return ""
    from charset_normalizer import from_bytes

    best = from_bytes(sample, cp_isolation=list(fitting)).best()
    found = known_encoding(best.encoding) if best is not None else ""
    return found if found in fitting else ""
