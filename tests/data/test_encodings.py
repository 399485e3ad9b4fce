"""How it is decided in which encoding texts are read."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from mmsent.config import TEXT_ENCODINGS
from mmsent.data.dataset import load_dataset
from mmsent.data.encodings import Decoding, bom_encoding, decide_encoding, decide_lines, known_encoding
from mmsent.errors import DataError, UsageError
from tests.helpers.mixtures import PHRASES, document, outcomes


def test_utf8_wins_when_every_text_is_utf8() -> None:
    found = decide_encoding([b"plain", "café 好".encode()])
    assert (found.encoding, found.with_bom) == ("utf-8", 0)
    assert found.why == "decodes all 2 texts"


def test_one_broken_text_does_not_spoil_a_utf8_set() -> None:
    sound = [f"schöner Tag {i}".encode() for i in range(9)]
    broken = "schöner Tag für alle".encode()[:15]  # cut inside the ü
    for odd in ("好的".encode("gb18030"), broken):
        found = decide_encoding([*sound, b"plain", odd])
        assert (found.encoding, found.decode(sound[0])) == ("utf-8", "schöner Tag 0")
        why = "9 of 10 texts beyond ASCII are valid UTF-8, which does not happen by chance; the rest is quarantined"
        assert (found.why, found.doubt.startswith(why)) == (why, True)
        with pytest.raises(UnicodeDecodeError):
            found.decode(odd)
    assert decide_encoding([*sound, "好的".encode("gb18030")], ("gb18030", "utf-8")).encoding == "gb18030"


def test_one_added_text_does_not_flip_the_decision_for_all_others() -> None:
    french = [f"très déçu par ce café, à bientôt {i}".encode() for i in range(30)]
    before = decide_encoding(french)
    after = decide_encoding([*french, "déjà déçu à la télé".encode("cp1252")])
    assert (before.encoding, before.doubt, after.encoding) == ("utf-8", "", "utf-8+cp1252")
    assert [after.decode(raw) for raw in french] == [before.decode(raw) for raw in french]
    assert after.decode("déjà".encode("cp1252")) == "déjà"
    about = "30 of 31 texts beyond ASCII are valid UTF-8, which does not happen by chance; 1 are read as cp1252"
    assert (after.why, after.doubt.startswith(f"{about}; if they look wrong, ")) == (about, True)


def test_a_few_stray_characters_that_are_utf8_by_chance_decide_nothing() -> None:
    # In GB18030, 笑 is D0 A6, which is the letter Ц in UTF-8; most texts hold one character, as in posts of tweets.
    raws = [f"{word} {i}".encode("gb18030") for i in range(40) for word in ("…", "好", "笑 dag …", "’")]
    found = decide_encoding([*raws, "(笑)".encode("gb18030")])
    assert (found.encoding, found.doubt) == ("gb18030", "")


@pytest.mark.parametrize(("codec", "rare"), [(codec, rare) for codec in PHRASES for rare in (False, True)])
def test_no_text_of_a_mixture_is_silently_wrong(codec: str, rare: bool) -> None:
    for n in (20, 200, 2000):
        for share in (0.01, 0.05, 0.2, 0.5):
            found = outcomes(codec, n, share, rare)
            assert found["silently wrong"] == found["wrong, warned"] == 0, (n, share)
            assert found["right"] >= 2 * n - 2, (n, share)  # at most one set aside and its like


@pytest.mark.slow
def test_the_table_is_what_the_script_writes() -> None:
    """If this fails: python -m tests.helpers.mixtures --write docs/encodings.md"""
    assert (Path(__file__).parents[2] / "docs" / "encodings.md").read_text(encoding="utf-8") == document()


def test_a_rest_that_holds_broken_texts_too() -> None:
    french = [f"très déçu par ce café {i}".encode() for i in range(60)]
    old = [f"déjà vu à la télé {i}".encode("cp1252") for i in range(30)]
    found = decide_encoding([*french, *old, b"\x81\x8d\x8f"])  # three bytes that cp1252 leaves undefined
    assert found.encoding == "utf-8+cp1252"
    assert found.why.endswith("; 30 are read as cp1252, 1 are quarantined")


def test_too_little_to_tell_encodings_apart_is_said() -> None:
    found = decide_encoding(["好的".encode("gb18030"), b"ascii"])
    assert found.encoding == "gb18030"
    assert found.why == "decodes all 2 texts, as would big5, shift_jis, euc_kr, cp1251, cp1252; utf-8 fails on 1"
    assert found.doubt.startswith("there is too little text beyond ASCII to tell gb18030 from big5, ")
    assert decide_encoding([b"don\x92t"], ("utf-8", "cp1251", "cp1252")).doubt == ""  # the same in both


def test_an_override_may_name_two() -> None:
    found = decide_encoding([], override="UTF8+latin1")
    assert (found.encoding, found.why) == ("utf-8+iso8859-1", "as the setting text-encoding says")
    assert [found.decode(raw) for raw in ("é".encode(), b"\xe9", b"e")] == ["é", "é", "e"]
    with pytest.raises(UsageError, match="unknown text encoding 'utf-8\\+'"):
        known_encoding("utf-8+")


def test_lines_of_a_manifest_may_be_mixed() -> None:
    rows = [f"{i},très déçu par ce café\r\n".encode("cp1252" if i % 5 == 0 else "utf-8") for i in range(40)]
    raw = b"id,text\n" + b"".join(rows)
    found = decide_lines(raw)
    assert found.encoding == "utf-8+cp1252"
    assert found.decode_lines(raw) == "id,text\n" + "".join(f"{i},très déçu par ce café\r\n" for i in range(40))
    assert found.why.startswith("32 of 40 lines beyond ASCII are valid UTF-8")


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
    assert decide_lines(marked).decode_lines(marked) == "好 день"


def test_decoding_is_strict_and_strips() -> None:
    utf8 = Decoding("utf-8", "")
    assert utf8.decode(b" \r\n a b\n ") == "a b"
    with pytest.raises(UnicodeDecodeError):
        utf8.decode(b"caf\xe9")


def test_override_does_not_choose() -> None:
    found = decide_encoding(["好".encode()], override="latin1")
    assert (found.encoding, found.why) == ("iso8859-1", "as the setting text-encoding says")


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
    found = decide_encoding([b"\xe9", b"\xb0\xa1", b"\xb0\xa2"], ("ascii", "euc_kr"))
    assert found.encoding == "euc_kr"
    assert found.why == found.doubt == "no encoding decodes every text; euc_kr fails least, on 1 of 3"


@pytest.mark.mvsa
def test_mvsa_is_gb18030(mvsa: Path) -> None:
    found = load_dataset(mvsa).decoding
    assert (found.encoding, found.with_bom) == ("gb18030", 0)
    assert found.why == "decodes all 4511 texts; utf-8 fails on 1061"
