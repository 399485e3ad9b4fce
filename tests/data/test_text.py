"""Decoding decisions and cleaning."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from mmsent.config import TEXT_ENCODINGS, Clean
from mmsent.data.dataset import load_dataset
from mmsent.data.text import Decoding, bom_encoding, clean_text, decide_encoding, known_encoding, require_text
from mmsent.errors import DataError, UsageError


def test_utf8_wins_when_every_text_is_utf8() -> None:
    found = decide_encoding([b"plain", "café 好".encode()])
    assert (found.encoding, found.with_bom) == ("utf-8", 0)
    assert found.why == "decodes all 2 texts"


def test_one_stray_text_decides_for_the_whole_set() -> None:
    found = decide_encoding(["café".encode(), "好的".encode("gb18030"), b"ascii"])
    assert found.encoding == "gb18030"  # too short for a likelier one than the first of the list
    assert found.why == "decodes all 3 texts, as would big5, shift_jis, euc_kr, cp1251, cp1252; utf-8 fails on 1"


def test_one_broken_text_does_not_spoil_a_utf8_set() -> None:
    sound = [f"schöner Tag {i}".encode() for i in range(9)]
    found = decide_encoding([*sound, b"plain", "好的".encode("gb18030")])
    assert found.encoding == "utf-8"
    assert (
        found.why
        == "9 of 10 texts beyond ASCII are valid UTF-8, which does not happen by chance; the rest is quarantined"
    )
    assert decide_encoding([*sound[:8], "好的".encode("gb18030")]).encoding == "gb18030"  # 8 of 9 are too few
    assert decide_encoding([*sound, "好的".encode("gb18030")], ("gb18030", "utf-8")).encoding == "gb18030"


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("gb18030", "今天天气很好，我们去公园玩，大家都很开心。"),
        ("big5", "今天天氣很好，我們去公園玩，大家都很開心。"),
        ("shift_jis", "今日はとても天気がいいので、みんなで公園に行きました。"),
        ("euc_kr", "오늘 날씨가 정말 좋아서 모두 함께 공원에 갔어요."),
        ("cp1251", "Сегодня очень хорошая погода, мы все пошли в парк."),
        ("cp1252", "Il fait très beau aujourd’hui, nous sommes allés au parc à côté, où l’été"),
    ],
)
def test_the_likeliest_of_several_that_fit(encoding: str, text: str) -> None:
    raws = [f"{text} {i}".encode(encoding) for i in range(10)]
    found = decide_encoding(raws)
    assert [found.decode(raw) for raw in raws] == [f"{text} {i}" for i in range(10)]
    assert found.encoding == encoding
    others = [name for name in TEXT_ENCODINGS if name not in ("utf-8", encoding) and fits(raws, name)]
    assert found.why.startswith(
        f"decodes all 10 texts, as would {', '.join(others)}; utf-8 fails on 10" if others else "d"
    )


def fits(raws: list[bytes], encoding: str) -> bool:
    try:
        return all(isinstance(raw.decode(encoding), str) for raw in raws)
    except UnicodeError:
        return False


def test_order_of_the_list_matters() -> None:
    raw = ["é".encode("cp1252") + b" x"]  # E9 20 is no sequence of gb18030 either
    assert decide_encoding(raw, ("utf-8", "cp1252", "cp1251")).encoding == "cp1252"
    assert decide_encoding(raw, ("cp1251", "cp1252")).decode(raw[0]) == "й x"


@pytest.mark.parametrize(
    ("mark", "codec", "name"),
    [
        (codecs.BOM_UTF8, "utf-8", "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16-le", "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16-be", "utf-16"),
        (codecs.BOM_UTF32_LE, "utf-32-le", "utf-32"),
        (codecs.BOM_UTF32_BE, "utf-32-be", "utf-32"),
    ],
)
def test_a_byte_order_mark_outranks_the_decision(mark: bytes, codec: str, name: str) -> None:
    marked = mark + "好 день".encode(codec)
    assert bom_encoding(marked) == name
    found = decide_encoding([marked, "好".encode("gb18030")])
    assert (found.encoding, found.with_bom) == ("gb18030", 1)
    assert found.decode(marked) == "好 день"
    assert found.decode("好".encode("gb18030")) == "好"
    assert bom_encoding(b"plain") is None


def test_decoding_is_strict_and_strips() -> None:
    utf8 = Decoding("utf-8", "")
    assert utf8.decode(b" \r\n a b\n ") == "a b"
    with pytest.raises(UnicodeDecodeError):
        utf8.decode(b"caf\xe9")


def test_override_does_not_choose() -> None:
    found = decide_encoding(["好".encode()], override="latin1")
    assert (found.encoding, found.why) == ("iso8859-1", "given by --text-encoding")


def test_unknown_and_byte_codecs_are_refused() -> None:
    for name in ("utf-9", "hex", "rot13", ""):
        with pytest.raises(UsageError, match="unknown text encoding"):
            known_encoding(name)
    with pytest.raises(UsageError, match="utf-9"):
        decide_encoding([b"a"], override="utf-9")
    with pytest.raises(DataError, match="no text encodings to try"):
        decide_encoding([b"a"], ())


def test_charset_normalizer_is_asked_last() -> None:
    raws = ["Это обычный русский текст, написанный для проверки".encode("koi8-r")] * 3
    found = decide_encoding(raws, ("utf-8", "ascii"))
    assert "charset-normalizer" in found.why
    assert found.decode(raws[0]).startswith("Это обычный")


def test_fewest_failures_where_nothing_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    import charset_normalizer

    class Nothing:
        def best(self) -> None:
            return None

    monkeypatch.setattr(charset_normalizer, "from_bytes", lambda _: Nothing())
    found = decide_encoding([b"\xe9", b"\xc3\xa9", b"\xc3\xa9"], ("ascii", "utf-8"))
    assert found.encoding == "utf-8"
    assert found.why == "no encoding decodes every text; utf-8 fails least, on 1 of 3"


@pytest.mark.parametrize(
    ("text", "steps", "cleaned"),
    [
        ("  kept  as it is &amp; all ", (), "  kept  as it is &amp; all "),
        ("see http://t.co/Ab1 and www.x.org/y now", (Clean.links,), "see and now"),
        ("mail a@b.de to @some_one!", (Clean.mentions,), "mail a@b.de to !"),
        ("RT : @x: good", (Clean.retweet,), "@x: good"),
        ("RTFM is not RT", (Clean.retweet,), "RTFM is not RT"),
        ("#goodMood #NASALaunch2024 #a_b", (Clean.hashtags,), "good Mood NASA Launch 2024 a b"),
        ("AT&amp;T &lt;3", (Clean.links,), "AT&T <3"),
        ("@x RT y", (Clean.mentions, Clean.retweet), "y"),  # mentions go first, so the RT leads
    ],
)
def test_cleaning(text: str, steps: tuple[Clean, ...], cleaned: str) -> None:
    assert clean_text(text, steps) == cleaned


def test_an_endless_character_reference_is_one_character() -> None:
    assert clean_text("a &#" + "9" * 5000 + "; b", (Clean.links,)) == "a \ufffd b"
    assert clean_text("&#00000065;", (Clean.links,)) == "A"


def test_what_is_no_text() -> None:
    assert require_text("\x1b[31m \u202e 😀") == "\x1b[31m \u202e 😀"
    with pytest.raises(DataError, match="half a surrogate pair"):
        require_text("a\ud83d")
    with pytest.raises(DataError, match="holds NUL characters, which texts do not have; if it is UTF-16"):
        require_text("a\0b")


def test_emoji_become_words() -> None:
    pytest.importorskip("emoji")
    assert clean_text("ok😀!", (Clean.emoji,)) == "ok grinning face !"


@pytest.mark.mvsa
def test_mvsa_is_gb18030(mvsa: Path) -> None:
    found = load_dataset(mvsa).decoding
    assert (found.encoding, found.with_bom) == ("gb18030", 0)
    assert found.why == "decodes all 4511 texts; utf-8 fails on 1061"
