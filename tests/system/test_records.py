"""mmsent.system.records, mmsent.system.markup and mmsent.data.vectors by themselves."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmsent.data.vectors import unit_length
from mmsent.errors import RunError
from mmsent.system.markup import data_url, markdown, markdown_code
from mmsent.system.records import Record, RecordKind

KIND = RecordKind(
    "thing.json", 3, frozenset({"finished", "cache"}), "a thing", "`mmsent make` makes one", "make it again"
)


def write(folder: Path, **info: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "thing.json").write_text(json.dumps(info), encoding="utf-8")
    return folder


def opener(path: Path) -> Record:
    return Record(path, KIND.read(path))


def test_a_record_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "one", format_version=3, finished="2026", cache={})
    assert opener(path).info == {"format_version": 3, "finished": "2026", "cache": {}}
    assert opener(path).name == "one"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, r"is not a thing: it has no thing\.json; `mmsent make` makes one"),
        ("{", r"thing\.json cannot be read: "),
        ("[]", r"thing\.json cannot be read: "),
        ('{"finished": 1, "cache": 1}', r"thing\.json cannot be read: 'format_version'"),
        ('{"format_version": 4}', "was written by a newer mmsent; upgrade to read it"),
        ('{"format_version": 1}', r"thing\.json lacks cache, finished; make it again"),
    ],
)
def test_what_is_no_record_is_refused(tmp_path: Path, text: str | None, reason: str) -> None:
    if text is not None:
        (tmp_path / "thing.json").write_text(text, encoding="utf-8")
    with pytest.raises(RunError, match=reason):
        KIND.read(tmp_path)


def test_records_of_a_folder_come_newest_first(tmp_path: Path) -> None:
    for name, finished, data_name in (
        ("a", "2", "x"),
        ("b", "3", "x"),
        ("c", "2", "x"),
        ("d", "4", "y"),
        (".e", "5", "x"),
    ):
        cache = {"fingerprint": "f", "data_name": data_name}
        write(tmp_path / name, format_version=1, finished=finished, cache=cache)
    write(tmp_path / "broken", format_version=1)
    (tmp_path / "other").mkdir()
    (tmp_path / "file").write_text("")

    def names(*wanted: str | None) -> list[str]:
        return [one.name for one in KIND.newest_first(tmp_path, opener, *wanted)]

    assert names() == ["d", "b", "c", "a"]
    assert names("f", "x") == ["b", "c", "a"]
    assert names(None, "y") == ["d"]
    assert names("g") == []
    assert KIND.newest_first(tmp_path / "nowhere", opener) == []


def test_markdown_of_others() -> None:
    assert markdown("a  b\n# c|<i>") == "a b # c&#124;&lt;i>"
    plain = "attention_alt, 12:30, 0.5 (+0.02): a & b - what a day! #fun {x} x > y"
    assert markdown(plain) == plain  # people read the file too
    assert markdown("_x_ 1. [a](b) &amp; #12 @me http://a.b") == (
        "&#95;x&#95; 1. &#91;a&#93;(b) &amp;amp; &#35;12 &#64;me http&#58;//a.b"
    )
    assert [markdown(text) for text in ("# a", "- a", "12. a", "> a", "-0.5", "+1")] == [
        "&#35; a", "&#45; a", "12&#46; a", "&gt; a", "-0.5", "+1",
    ]  # fmt: skip
    assert markdown_code("clip_b32") == "`clip_b32`"
    assert markdown_code("a`b") == "<code>a&#96;b</code>"
    assert markdown_code("<b>") == "<code>&lt;b></code>"


def test_a_data_url_holds_the_bytes() -> None:
    found = re.fullmatch(r"data:image/webp;base64,(.+)", data_url(b"\x00\xff?", "image/webp"))
    assert found is not None
    assert base64.b64decode(found[1]) == b"\x00\xff?"


def test_vectors_of_length_one() -> None:
    vectors = np.array([[3, 4], [0, 0], [0, -2]], np.float32)
    assert unit_length(vectors).tolist() == [pytest.approx([0.6, 0.8]), [0, 0], [0, -1]]
    assert unit_length(vectors).dtype == np.float32
    assert vectors[0].tolist() == [3, 4]
    assert unit_length(vectors, out=vectors) is vectors
    assert vectors[2].tolist() == [0, -1]
