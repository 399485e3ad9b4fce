"""Manifests as people have them: each comes out as it says, and stands in the table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.helpers.odd_manifests import ITEMS, Item, Seen, document, observe, observe_all

TABLE = Path(__file__).parents[2] / "docs" / "reference" / "odd-manifests.md"


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Item, Seen]]:
    return observe_all(tmp_path_factory.mktemp("odd").resolve())


def test_the_outcome_is_the_stated_one(seen: list[tuple[Item, Seen]]) -> None:
    assert [(i.name, i.options, s.message) for i, s in seen if s.outcome != i.outcome] == []
    assert len(seen) >= 40
    assert len({(item.name, item.options) for item in ITEMS}) == len(ITEMS)


def test_no_message_says_only_what_is_missing(seen: list[tuple[Item, Seen]]) -> None:
    bare = re.compile(r"no (picture|image|text)\W*(\(\w+\))?$")
    assert [item.name for item, one in seen if bare.search(one.message)] == []
    assert [item.name for item, one in seen if one.outcome == "refused" and not one.message] == []


def test_the_table_is_what_the_script_writes(seen: list[tuple[Item, Seen]]) -> None:
    """If this fails: python -m tests.helpers.odd_manifests --write docs/reference/odd-manifests.md"""
    assert TABLE.read_text(encoding="utf-8") == document(seen)


def test_what_differs_without_a_word_would_be_noticed(tmp_path: Path) -> None:
    plain = ITEMS[0]
    other = (("1", "1.jpg", "another text", "neutral"), *plain.meant[1:])
    wrong = Item(plain.name, plain.outcome, plain.build, other, "", {})
    assert observe(wrong, tmp_path / "a").outcome == "lost"
