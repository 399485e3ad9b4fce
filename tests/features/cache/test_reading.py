"""Edges of the cache that a mutation run found untested (see docs/notes.md)."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mmsent.errors import CacheError, first_line
from mmsent.features.cache import (
    IMAGE_BAD,
    NO_HASH,
    NO_LABEL,
    TEXT_BAD,
    Cache,
    Row,
    RowTable,
    find_damage,
    pour,
    write_cache,
)
from mmsent.features.cache import reading as reading_module
from mmsent.features.cache import sources as sources_module
from mmsent.features.cache import writing as writing_module
from mmsent.features.cache.journal import Entry, Journal
from mmsent.features.cache.opening import _Padded, attribute, fixed_text
from tests.features.cache.test_writing import attributes, journalled, made_cache, made_rows, made_settings

# --- rows


def test_a_table_of_rows_is_a_sequence() -> None:
    rows = [*made_rows(["a", "bb"]), Row("c", NO_LABEL, NO_HASH, bytes([7]) * 32)]
    table = RowTable.of(rows)
    assert (len(table), list(table), table[-1], table[1:]) == (3, rows, rows[2], rows[1:])
    with pytest.raises(IndexError):
        table[3]
    assert RowTable.of(table) is table
    assert table.followed_by([]) is table
    longer = table.followed_by(rows[:1])
    assert list(longer) == [*rows, rows[0]]
    assert len(table) == 3
    assert [values.dtype for values in (table.labels, table.image_hashes)] == [np.int32, np.uint8]
    assert RowTable.of([]).text_hashes.shape == (0, 32)


# --- a cache from elsewhere


def blocks_of(n: int, size: int, seed: int = 0) -> Iterator[tuple[Any, Any, Any]]:
    rng = np.random.default_rng(seed)
    for start in range(0, n, size):
        b = min(size, n - start)
        yield rng.random((b, 2, 48)), rng.random((b, 32)), np.arange(start, start + b) % 3


def test_a_cache_of_given_features(tmp_path: Path) -> None:
    settings = made_settings(storage="float16")
    cache = write_cache(tmp_path / "c.h5", settings, attributes(), 12, blocks_of(12, 5))
    index = cache.index("train")
    assert index.ids == [f"{i:02d}" for i in range(12)]
    assert index.labels.tolist() == [i % 3 for i in range(12)]
    assert index.good.all()
    assert not index.tokens.any()
    assert {*index.image_reasons, *index.text_reasons} == {""}
    numbers = [(i + 1).to_bytes(8, "big") + bytes(24) for i in range(12)]
    assert index.image_hashes == index.text_hashes == numbers
    features = cache.load("train")
    wanted = list(blocks_of(12, 5))
    for k, found in enumerate((features.image, features.text)):
        np.testing.assert_array_equal(found, np.concatenate([block[k] for block in wanted]).astype(np.float16))
    assert not find_damage(cache.path)
    with h5py.File(cache.path) as file:
        assert file["train/label"].dtype == np.int16
        assert file["train/tokens"].dtype == np.int32
        assert all(data.fletcher32 for data in file["train"].values())


def test_features_that_do_not_fit_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.h5"
    with pytest.raises(CacheError, match=r"^the blocks hold 9 rows; the cache needs 12$"):
        write_cache(path, made_settings(), attributes(), 12, blocks_of(9, 5))

    def full(handle: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writing_module, "_reserve", full)
    with pytest.raises(CacheError, match=r"^cannot write .*c\.h5: No space left on device$"):
        write_cache(path, made_settings(), attributes(), 12, blocks_of(12, 5))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("n", [1, 700])
def test_what_is_reserved_is_enough_and_not_much_more(n: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HDF5 does not survive a full disk, so the space is taken first."""
    monkeypatch.setattr(writing_module, "_CHUNK_BYTES", 1 << 14)
    reserved: list[int] = []
    monkeypatch.setattr(writing_module, "_reserve", lambda _, size: reserved.append(size))
    wide = attributes() | {"provenance": {"note": "x" * 200_000}}
    for number, cache in enumerate(
        [
            made_cache(tmp_path / "poured", n),
            write_cache(tmp_path / "given.h5", made_settings(), attributes(), n, blocks_of(n, 64)),
            write_cache(tmp_path / "wide.h5", made_settings(), wide, n, blocks_of(n, 64)),
        ]
    ):
        before, after = reserved[2 * number : 2 * number + 2]  # before HDF5 opens the file, and once it has
        size = cache.path.stat().st_size
        assert before == after
        assert size < before < 1.15 * size + (1 << 18) + (800_000 if number == 2 else 0), number
    assert not list(tmp_path.glob("*.tmp"))


# --- columns and blocks


def test_columns_hold_what_the_index_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_module, "INDEX_ROWS", 4)
    rows = made_rows([f"row {i}" for i in range(10)])
    rows[3] = Row("row 3", NO_LABEL, NO_HASH, rows[3].text_hash)
    journal = journalled(tmp_path / "j", "train", rows, made_settings())
    journal.put("train", "image", [Entry("row 3", NO_HASH, None, "no picture")])
    journal.put("train", "text", [Entry("row 5", rows[5].text_hash, None, "no text")])
    cache = pour(tmp_path / "c.h5", journal, made_settings(), {"train": rows}, attributes())
    columns, index = cache.columns("train"), cache.index("train")
    assert [name.decode() for name in columns.ids] == index.ids
    assert columns.labels.tolist() == index.labels.tolist()
    assert columns.outcome.tolist() == index.outcome.tolist() == [0, 0, 0, IMAGE_BAD, 0, TEXT_BAD, 0, 0, 0, 0]
    assert columns.good.tolist() == index.good.tolist()
    assert len(columns) == 10
    image, text = index.contents()
    assert columns.image_keys.tolist() == [int.from_bytes(h[:8], "big") for h in image]
    assert columns.text_keys.tolist() == [int.from_bytes(h[:8], "big") for h in text]
    assert (image[3], text[5]) == (b"", b"")
    assert all(text[:5])
    assert columns.image_keys[3] == 0
    assert [start for start, _ in cache.blocks("train")] == [0, 4, 8]
    assert index.reason(3) == "no picture"
    assert cache.row_bytes("train") == 4 * (2 * 48 + 32)
    with pytest.raises(CacheError, match="holds no test rows"):
        cache.columns("test")


def test_rows_off_the_list_are_read_only_when_asked_for(tmp_path: Path) -> None:
    cache = made_cache(tmp_path, 5)
    journal = Journal(tmp_path / "j", {"batch_size": 8})
    rows = made_rows([f"row {i}" for i in range(5)])
    cache = pour(cache.path, journal, cache.settings, {"train": rows[:2]}, attributes())
    (one,) = cache.blocks("train")
    (two,) = cache.blocks("train", kept=True)
    assert [len(block[1]["id"]) for block in (one, two)] == [2, 5]
    assert cache.index("train", kept=True).ids[2:] == ["row 2", "row 3", "row 4"]
    assert cache.columns("train").labels.tolist() == [0, 1]
    empty = pour(cache.path, journal, cache.settings, {"train": []}, attributes())
    assert empty.rows == {"train": 0}
    assert len(empty.columns("train")) == len(empty.load("train").index) == 0
    assert empty.index("train", kept=True).ids == [f"row {i}" for i in range(5)]
    again = pour(cache.path, journal, cache.settings, {"train": rows[3:]}, attributes() | {"labels": ["positive"]})
    index = again.index("train", kept=True)
    assert index.ids == ["row 3", "row 4", "row 0", "row 1", "row 2"]
    assert index.labels.tolist() == [0, 1, NO_LABEL, NO_LABEL, 0]  # those off the list by name: positive is 0 now


def test_a_reader_checks_each_row_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = made_cache(tmp_path, 6)
    features = cache.load("train")
    seen: list[tuple[str, slice]] = []
    monkeypatch.setattr(reading_module, "check_rows", lambda group, part, rows, sums: seen.append((part, rows)))
    with cache.reader("train") as read:
        for start, stop in ((0, 3), (0, 3), (2, 5), (1, 4)):
            image, text = read(start, stop)
            np.testing.assert_array_equal(image, features.image[start:stop])
            np.testing.assert_array_equal(text, features.text[start:stop])
    assert seen == [(part, slice(*rows)) for rows in ((0, 3), (2, 5)) for part in ("image", "text")]


# --- sources


def test_the_journal_outranks_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources_module, "_ROWS", 2)  # journalled rows in several blocks
    old = made_cache(tmp_path, 6)
    rows = made_rows([f"row {i}" for i in range(6)])
    journal = journalled(tmp_path / "j", "train", rows[:3], old.settings, seed=1)
    fresh = journal.vectors("train", "text", ["row 0", "row 1", "row 2"], "float32")
    journal.put("train", "text", [Entry("row 3", b"o" * 32, np.ones(32, np.float32), tokens=9)])  # another content
    journal.put("train", "text", [Entry("row 4", rows[4].text_hash, None, "no text", tokens=7)])
    journal.put("train", "text", [Entry("row 5", rows[5].text_hash, np.ones(32, np.float32), tokens=8)])
    before = old.load("train")
    now = pour(old.path, journal, old.settings, {"train": rows[:5]}, attributes())
    features, kept = now.load("train"), now.index("train", kept=True)
    np.testing.assert_array_equal(features.text[:3], np.stack([fresh[f"row {i}"] for i in range(3)]))
    np.testing.assert_array_equal(features.text[3], before.text[3])
    assert not features.text[4].any()
    np.testing.assert_array_equal(features.image[3:], before.image[3:5])
    assert kept.outcome.tolist() == [0, 0, 0, 0, TEXT_BAD, 0]
    assert kept.text_reasons == ["", "", "", "", "no text", ""]
    assert kept.tokens.tolist() == [5, 5, 5, 5, 7, 8]  # the last has left the list, and the journal has it too
    image, text = now.embeddings("train", [5])
    np.testing.assert_array_equal(image[0], before.image[5])
    assert (text == 1).all()
    # What was bad and is encoded now is good again.
    again = Journal(tmp_path / "j2", {"batch_size": 8})
    again.put("train", "text", [Entry("row 4", rows[4].text_hash, np.ones(32, np.float32), tokens=6)])
    index = pour(now.path, again, old.settings, {"train": rows[:5]}, attributes()).index("train")
    assert (index.outcome.tolist(), index.text_reasons[4], index.tokens[4]) == ([0] * 5, "", 6)


def test_the_journal_mends_rows_off_the_list_too(tmp_path: Path) -> None:
    old = made_cache(tmp_path, 4)
    rows = made_rows([f"row {i}" for i in range(4)])
    journal = Journal(tmp_path / "j", {"batch_size": 8})
    ones = np.ones((2, 48), np.float32)
    journal.put("train", "image", [Entry("row 0", b"o" * 32, ones, tokens=9)])  # another content, and others behind it
    journal.put("train", "image", [Entry("row 1", rows[1].image_hash, ones, tokens=9)])
    journal.put("train", "image", [Entry("row 3", rows[3].image_hash, ones, tokens=9)])
    before = old.load("train")
    now = pour(old.path, journal, old.settings, {"train": rows[:2]}, attributes())
    image, text = now.embeddings("train", range(4))
    np.testing.assert_array_equal(text, before.text)
    np.testing.assert_array_equal(image[[0, 2]], before.image[[0, 2]])
    assert (image[[1, 3]] == 1).all()
    assert now.index("train", kept=True).tokens.tolist() == [5] * 4  # a picture has none


@pytest.mark.parametrize(
    ("error", "reason"),
    [(OSError(errno.ENOSPC, "No space left on device"), "No space left on device"), (OSError("one\ntwo"), "one")],
)
def test_a_cache_that_cannot_be_written_keeps_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, reason: str
) -> None:
    rows = made_rows(["a", "b"])
    journal = journalled(tmp_path / "j", "train", rows, made_settings())

    def fail(*_: Any) -> None:
        raise error

    path = tmp_path / "c.h5"
    with monkeypatch.context() as patch:
        patch.setattr(writing_module, "_pour_split", fail)
        with pytest.raises(CacheError) as caught:
            pour(path, journal, made_settings(), {"train": rows}, attributes())
    assert str(caught.value) == f"cannot write {path}: {reason}; encoded rows are kept in {journal.path.name}"
    assert not path.exists()
    assert len(pour(path, journal, made_settings(), {"train": rows}, attributes()).index("train")) == 2


def test_reasons_stay_with_their_rows(tmp_path: Path) -> None:
    rows = made_rows(["a", "b", "c", "d"])
    settings = made_settings()
    journal = journalled(tmp_path / "j", "train", rows, settings)
    journal.put("train", "image", [Entry("b", rows[1].image_hash, None, "no picture")])
    journal.put("train", "text", [Entry("d", rows[3].text_hash, None, "no text", tokens=3)])
    path = tmp_path / "c.h5"
    pour(path, journal, settings, {"train": rows}, attributes())
    empty = Journal(tmp_path / "j2", {"batch_size": 8})
    index = pour(path, empty, settings, {"train": [rows[3], rows[1]]}, attributes()).index("train", kept=True)
    assert index.ids == ["d", "b", "a", "c"]
    assert index.image_reasons == ["", "no picture", "", ""]
    assert index.text_reasons == ["no text", "", "", ""]
    assert index.tokens.tolist() == [3, 5, 5, 5]
    index = pour(path, empty, settings, {"train": [rows[0]]}, attributes()).index("train", kept=True)
    assert index.ids == ["a", "d", "b", "c"]
    assert index.image_reasons == ["", "", "no picture", ""]
    assert index.outcome.tolist() == [0, TEXT_BAD, IMAGE_BAD, 0]


@pytest.mark.parametrize("half", ["image", "text"])
def test_a_row_with_half_of_its_content_is_not_encoded(tmp_path: Path, half: str) -> None:
    rows = made_rows(["a", "b"])
    journal = journalled(tmp_path / "j", "train", rows, made_settings())
    changed = rows[1]
    given = {"image": changed.image_hash, "text": changed.text_hash} | {half: b"n" * 32}
    rows[1] = Row("b", 0, given["image"], given["text"])
    with pytest.raises(CacheError, match=r"^row b of train was not encoded; run extract again: finished rows are kept"):
        pour(tmp_path / "c.h5", journal, made_settings(), {"train": rows}, attributes())
    assert not (tmp_path / "c.h5").exists()


# --- opening


def test_damage_of_what_is_no_cache(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"no cache at .*c\.h5; make one with `mmsent extract`"):
        find_damage(tmp_path / "c.h5")
    (tmp_path / "c.h5").write_bytes(b"no HDF5")
    assert find_damage(tmp_path / "c.h5").metadata.startswith("its structure cannot be read (")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["x"] = [1]
    with pytest.raises(CacheError, match="is not an mmsent cache"):
        find_damage(tmp_path / "c.h5")
    cache = made_cache(tmp_path / "sound")
    assert not find_damage(cache.path)
    with h5py.File(cache.path, "r+") as file:
        file.attrs["encoder"] = "another"
    assert find_damage(cache.path).metadata == "its attributes do not match their checksum"
    with pytest.raises(
        CacheError, match="damaged beyond repair: its attributes do not match their checksum; restore a copy"
    ):
        Cache.salvage(cache.path)


def test_a_file_that_was_cut_off_reads_as_zeros_behind_its_end(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(b"0123456789")
    with _Padded(tmp_path / "raw", 16) as file:
        assert file.readable()
        assert file.seekable()
        assert file.read(4) == b"0123"
        assert file.tell() == 4
        assert file.read(9) == b"456789" + bytes(3)
        assert file.read(9) == bytes(3)
        assert file.read(9) == b""
        assert file.seek(-8, 2) == 8
        assert file.read(3) == b"89\0"
        assert file.seek(-2, 1) == 9
        assert file.seek(12) == 12
        assert file.read() == bytes(4)
        assert file.seek(20) == 20
        assert file.read(4) == b""
    assert file._raw.closed


def test_a_cut_cache_says_how_much_is_there(tmp_path: Path) -> None:
    path = made_cache(tmp_path, 300).path
    whole = path.read_bytes()
    path.write_bytes(whole[:-1000])
    with pytest.raises(CacheError) as caught:
        Cache.open(path)
    said = f"it ends after {len(whole) - 1000:,} of {len(whole):,} bytes"
    assert str(caught.value) == (
        f"{path} is damaged: {said}; `mmsent cache repair --cache {path}` keeps the rows that it has"
    )
    damage = find_damage(path)
    assert (damage.cut, damage.metadata) == (said, "")
    salvaged = Cache.salvage(path)
    assert salvaged.rows == {"train": 300}
    path.write_bytes(whole + b"more")  # what follows does no harm
    assert Cache.open(path).damage is None
    assert not find_damage(path)


def test_texts_of_attributes(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for text in ("", "plain", "ü 😀", "caf\udce9"):
            file.attrs["a"] = fixed_text(text)
            assert attribute(file, "a") == text
        file.attrs["a"] = "of variable length"
        assert attribute(file, "a") == "of variable length"
    kind = h5py.check_string_dtype(fixed_text("üx").dtype)
    assert (kind.encoding, kind.length) == ("utf-8", 3)
    assert h5py.check_string_dtype(fixed_text("").dtype).length == 1


def test_splits_that_are_there_are_named(tmp_path: Path) -> None:
    cache = made_cache(tmp_path)
    rows = made_rows(["test 1"])
    journal = journalled(tmp_path / "j", "test", rows, cache.settings)
    cache = pour(cache.path, journal, cache.settings, {"test": rows}, attributes())
    with pytest.raises(CacheError, match=r"holds no dev rows \(it has test, train\); run"):
        cache.index("dev")


def test_no_rows_are_of_the_stored_type(tmp_path: Path) -> None:
    cache = made_cache(tmp_path, settings=made_settings(storage="float16"))
    image, text = cache.embeddings("train", [])
    assert (image.dtype, image.shape, text.dtype, text.shape) == (np.float16, (0, 2, 48), np.float16, (0, 32))


def test_a_reason_may_hold_half_a_surrogate_pair() -> None:
    """A file's name need not be UTF-8, and a reason may name it."""
    assert writing_module._reasons({0: "no caf\udce9"}, 2).tolist() == [b"no caf?", b""]


def test_columns_have_the_same_types_with_and_without_rows(tmp_path: Path) -> None:
    cache = made_cache(tmp_path, 3)
    full = cache.columns("train")
    empty = pour(cache.path, Journal(tmp_path / "j", {"batch_size": 8}), cache.settings, {"train": []}, attributes())
    for columns in (full, empty.columns("train")):
        assert columns.ids.dtype.kind == "S"
        assert (columns.labels.dtype, columns.outcome.dtype) == (np.dtype(np.int64), np.dtype(np.uint8))
        assert columns.image_keys.dtype == columns.text_keys.dtype == np.dtype(np.uint64)


def test_a_row_without_a_label_has_none_off_the_list_either(tmp_path: Path) -> None:
    """-1 counts from the end of a list in Python."""
    cache = made_cache(tmp_path, 3)
    rows = [Row(row.id, NO_LABEL, row.image_hash, row.text_hash) for row in made_rows([f"row {i}" for i in range(3)])]
    nothing = Journal(tmp_path / "j", {"batch_size": 8})
    pour(cache.path, nothing, cache.settings, {"train": rows}, attributes())
    kept = pour(cache.path, nothing, cache.settings, {"train": rows[:1]}, attributes()).index("train", kept=True)
    assert (kept.ids, kept.labels.tolist()) == (["row 0", "row 1", "row 2"], [NO_LABEL] * 3)


def test_a_split_without_rows_is_carried_over(tmp_path: Path) -> None:
    cache = made_cache(tmp_path, 2)
    nothing = Journal(tmp_path / "j", {"batch_size": 8})
    pour(cache.path, nothing, cache.settings, {"train": []}, attributes())
    rows = made_rows(["test 1"])
    journal = journalled(tmp_path / "j2", "test", rows, cache.settings)
    both = pour(cache.path, journal, cache.settings, {"test": rows}, attributes())
    assert both.rows == {"train": 0, "test": 1}
    assert both.index("train", kept=True).ids == ["row 0", "row 1"]


def test_the_first_line_of_a_reason_or_the_kind_of_error() -> None:
    assert first_line(ValueError("bad magic\nand more")) == "bad magic"
    assert first_line(OSError()) == "OSError"
