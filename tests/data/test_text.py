"""What a text is, and cleaning."""

from __future__ import annotations

import pytest

from mmsent.config import Clean
from mmsent.data.text import clean_text, require_text
from mmsent.errors import DataError


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
        ("RT : RT RT y", (Clean.retweet,), "y"),
        ("AT&amp;amp;amp;T", (Clean.links,), "AT&T"),
        ("##so# #&num;goodMood", (Clean.hashtags,), "so# good Mood"),
        ("wwhttp://ww.x.org www.", (Clean.links,), "ww www."),
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
