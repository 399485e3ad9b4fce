"""What a text encoder does not read of a text: the end behind its limit, and scripts that it was hardly made for."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from mmsent.config import Clean
from mmsent.data.text import clean_text

LETTERS_PER_TOKEN = 1.5  # below it, words fall apart into single letters; docs/decisions.md says why
_FEWEST, _MOST = 6, 400  # letters of a text that are looked at
_WORD = re.compile(r"[^\W\d_]+")


Lengths = Callable[[list[str]], Sequence[int]]  # the number of tokens of each text, special ones included


def reading_problems(texts: Sequence[str], lengths: Lengths, limit: int) -> list[str]:
    """What is not read, or hardly, of each of N texts; empty where all is. limit: tokens that the encoder reads."""
    out = []
    for n, odd in zip(lengths(list(texts)), hardly_read(texts, lengths), strict=True):
        cut = f"the text encoder reads {limit} of the text's {n} tokens, not its end" if n > limit else ""
        out.append("; ".join(filter(None, (cut, HARDLY_READ if odd else ""))))
    return out


HARDLY_READ = (
    "the text is in a language or script that the text encoder hardly knows: its words fall apart into single letters"
)


def hardly_read(texts: Sequence[str], lengths: Lengths) -> list[bool]:
    """Whether the words of each of N texts, without links and mentions, fall apart into single letters or less."""
    words = [_WORD.findall(clean_text(text[: 4 * _MOST], (Clean.links, Clean.mentions))) for text in texts]
    plain = [" ".join(some)[:_MOST] for some in words]
    letters = [len(text.replace(" ", "")) for text in plain]
    empty, *tokens = lengths(["", *plain])
    return [n >= _FEWEST and n < LETTERS_PER_TOKEN * (k - empty) for n, k in zip(letters, tokens, strict=True)]
