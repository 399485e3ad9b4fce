"""The grammar of counts."""

from __future__ import annotations

import re

_NOUNS = "actor|column|epoch|error|feature|field|file|fold|group|head|id|image|label|note|pair|picture|post|row|run"
_NOUNS += "|seed|shard|task|text|thread|trial|value|view|warning"
_ONE = re.compile(
    rf"`[^`]*`|(?<![\w.,:/=-])(?<!of )1 ((?:\w+ )?(?:{_NOUNS}))s\b(?!\.\w|[/\\])"
    r"(?: (are|have|were|lack|differ|validate)\b)?"
)
_VERBS = {"are": "is", "have": "has", "were": "was", "lack": "lacks", "differ": "differs", "validate": "validates"}


def singular(text: str) -> str:
    """A text in which counts of 1 have their noun and verb in the singular: "1 posts are" becomes "1 post is", but "0
    of 1 posts are" stays, and so do commands and files, such as `Week 1 posts.csv`."""

    def one(found: re.Match[str]) -> str:
        return f"1 {found[1]}" + (f" {_VERBS[found[2]]}" if found[2] else "") if found[1] else found[0]

    return _ONE.sub(one, text)
