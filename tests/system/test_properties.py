"""Properties that hold for whatever comes: the loaders, and the way of a row through the journal into the cache."""

from __future__ import annotations

import csv
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mmsent.config import TEXT_ENCODINGS, Clean, DataSettings
from mmsent.data.dataset import load_dataset, unsafe_id
from mmsent.data.encodings import decide_encoding
from mmsent.data.images import as_pixels, open_rgb
from mmsent.data.lists import ListForm, list_text, read_list, write_text
from mmsent.data.manifests import read_manifest
from mmsent.data.prepare import prepare
from mmsent.data.preprocess import Preprocess, fit_square
from mmsent.data.text import clean_text, text_hash
from mmsent.errors import DataError, MmsentError
from mmsent.features.cache import IMAGE_BAD, NO_LABEL, REASON_BYTES, TEXT_BAD, Row, pour
from mmsent.features.cache.journal import Entry, Journal
from tests.data.test_images import encode
from tests.features.cache.test_writing import attributes, made_settings

settings.register_profile("mmsent", deadline=None, max_examples=100, derandomize="CI" in os.environ)
settings.load_profile("mmsent")

SETTINGS = DataSettings()
ALL_STEPS = (Clean.links, Clean.mentions, Clean.retweet, Clean.hashtags)
characters = st.characters(codec="utf-8", exclude_characters="\0")
texts = st.text(characters, max_size=60)
ids = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40).filter(
    lambda name: unsafe_id(name) is None and name.strip() == name
)
labels = st.sampled_from(SETTINGS.labels)


def scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()


# --- lists


@given(st.lists(st.tuples(ids, labels), min_size=1, max_size=8), st.booleans(), st.sampled_from(["\n", "\r\n"]))
def test_a_list_reads_as_it_was_written(rows: list[tuple[str, str]], header: bool, newline: str) -> None:
    form = ListForm(("guid", "tag") if header else None, newline)
    with scratch() as folder:
        path = write_text(Path(folder) / "train.txt", list_text(rows, form))
        read, read_form = read_list(path, SETTINGS)
        again = write_text(Path(folder) / "again.txt", list_text([(a, b) for _, (a, b) in read], read_form))
        assert [tuple(fields) for _, fields in read] == rows
        assert read_form == form
        assert again.read_bytes() == path.read_bytes()


@given(st.binary(max_size=300))
def test_any_bytes_are_a_list_or_an_error(raw: bytes) -> None:
    with scratch() as folder:
        path = Path(folder) / "train.txt"
        path.write_bytes(raw)
        try:
            rows, _ = read_list(path, SETTINGS)
        except MmsentError:
            return
        assert all(isinstance(field, str) for _, fields in rows for field in fields)


@given(st.text(min_size=1, max_size=300))
def test_an_id_that_is_safe_names_a_file_in_its_folder(name: str) -> None:
    if unsafe_id(name) is not None:
        return
    with scratch() as folder:
        path = Path(folder) / name
        path.touch()  # as long as a file name may be, and no longer
        assert [p.name for p in Path(folder).iterdir()] == [name]


# --- manifests


@st.composite
def manifests(draw: st.DrawFn) -> tuple[str, list[dict[str, Any]]]:
    """An ending, and rows with different ids."""
    names = draw(st.lists(ids, min_size=1, max_size=6, unique=True))
    rows = [{"id": n, "text": draw(texts), "label": draw(labels), "note": draw(texts)} for n in names]
    return draw(st.sampled_from(["csv", "tsv", "jsonl"])), rows


def put(path: Path, rows: list[dict[str, Any]]) -> None:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)


@given(manifests())
def test_a_manifest_holds_its_texts_and_so_does_its_copy(made: tuple[str, list[dict[str, Any]]]) -> None:
    ending, rows = made
    with scratch() as folder:
        path = Path(folder) / "in" / f"posts.{ending}"
        path.parent.mkdir()
        put(path, rows)
        data = load_dataset(path)
        assert [(p.id, p.label, data.text_of(p)) for p in data.posts] == [
            (row["id"], row["label"], row["text"].strip()) for row in rows
        ]
        copy = load_dataset(prepare(data, Path(folder) / "out").path)
        assert [(p.id, p.label, copy.text_of(p)) for p in copy.posts] == [
            (p.id, p.label, data.text_of(p)) for p in data.posts
        ]
        assert [row["note"] for row in read_manifest(copy.root, SETTINGS)[0]] == [row["note"] for row in rows]


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
values = st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner))
columns = st.sampled_from(["id", "image", "text", "label", "split"])


@settings(max_examples=50)
@given(st.lists(st.dictionaries(columns, values, min_size=1), min_size=1, max_size=5))
def test_any_json_is_a_data_set_or_an_error(rows: list[dict[str, Any]]) -> None:
    with scratch() as folder:
        path = Path(folder) / "posts.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        try:
            data = load_dataset(path, strict=False)
        except MmsentError:
            return
        for post in data.posts:
            try:
                data.text_of(post).encode("utf-8")
            except DataError:
                continue


# --- texts


@given(st.lists(st.binary(max_size=40), max_size=12))
def test_what_is_decided_is_true(raws: list[bytes]) -> None:
    found = decide_encoding(raws)
    failures = 0
    for raw in raws:
        try:
            found.decode(raw)
        except UnicodeError:
            failures += 1
    if found.why.startswith("decodes all") and not found.with_bom:
        assert failures == 0


@given(st.lists(st.text(st.characters(codec="utf-8")), max_size=12))
def test_utf8_is_found_and_read_back(written: list[str]) -> None:
    raws = [text.encode() for text in written]
    found = decide_encoding(raws)
    assert found.encoding == "utf-8"
    assert [found.decode(raw) for raw in raws] == [t.removeprefix("\ufeff").strip() for t in written]


@given(st.text(max_size=200), st.lists(st.sampled_from(ALL_STEPS)))
def test_cleaning_takes_any_text(text: str, steps: list[Clean]) -> None:
    cleaned = clean_text(text, steps)
    assert isinstance(cleaned, str)
    assert not steps or cleaned == cleaned.strip()
    assert clean_text(cleaned, steps) == cleaned


SIGNS = st.sampled_from(
    [
        "RT",
        "RT:",
        "#",
        "@",
        "&amp;",
        "&",
        "amp;",
        "lt;",
        "#x23;",
        "num;",
        "so",
        "Mood",
        "1",
        " ",
        "http://",
        "www.",
        "x",
        ":",
        "_",
    ]
)


@given(st.lists(SIGNS, max_size=12), st.lists(st.sampled_from(ALL_STEPS)))
def test_a_cleaned_text_is_clean(signs: list[str], steps: list[Clean]) -> None:
    cleaned = clean_text("".join(signs), steps)
    assert clean_text(cleaned, steps) == cleaned


@given(st.sampled_from(TEXT_ENCODINGS), st.binary(max_size=60))
def test_a_given_encoding_is_never_another(name: str, raw: bytes) -> None:
    found = decide_encoding([raw], override=name)
    assert (found.why, found.encoding) == (
        "as the setting text-encoding says",
        decide_encoding([], override=name).encoding,
    )


# --- pictures


@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 24), st.just(3))))
def test_a_lossless_picture_keeps_its_pixels(pixels: np.ndarray) -> None:
    from PIL import Image

    for kind, options in (("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})):
        np.testing.assert_array_equal(as_pixels(open_rgb(encode(Image.fromarray(pixels), kind, **options))), pixels)


@given(st.binary(max_size=400))
def test_any_bytes_are_a_picture_or_an_error(raw: bytes) -> None:
    try:
        image = open_rgb(raw)
    except DataError:
        return
    assert image.mode == "RGB"


@given(st.integers(1, 400), st.integers(1, 400), st.sampled_from(["shortest", "longest", "squash"]))
def test_every_picture_becomes_a_square(width: int, height: int, resize: Any) -> None:
    from PIL import Image

    how = Preprocess(size=8, resize_to=9, resize=resize, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert fit_square(Image.new("RGB", (width, height)), how).size == (8, 8)


# --- journal -> cache


@st.composite
def poured(draw: st.DrawFn) -> list[tuple[Row, Entry, Entry]]:
    """Rows with both halves, good or quarantined."""
    reasons = st.text(characters, min_size=1, max_size=120).map(lambda r: r.strip() or "bad")
    numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)
    rows = []
    for name in draw(st.lists(ids, min_size=1, max_size=6, unique=True)):
        hashes = draw(st.binary(min_size=32, max_size=32)), draw(st.binary(min_size=32, max_size=32))
        row = Row(name, draw(st.sampled_from([NO_LABEL, 0, 1, 2])), *hashes)
        halves = []
        for content, shape in zip(hashes, ((2, 48), (32,)), strict=True):
            reason = draw(st.just("") | reasons)
            vector = None if reason else draw(arrays.arrays(np.float32, shape, elements=numbers))
            tokens = draw(st.integers(0, 2**31 - 1)) if shape == (32,) else 0
            halves.append(Entry(name, content, vector, reason, tokens))
        rows.append((row, *halves))
    return rows


@settings(max_examples=25)
@given(poured())
def test_what_is_journalled_is_read_back_from_the_cache(made: list[tuple[Row, Entry, Entry]]) -> None:
    with scratch() as folder:
        journal = Journal(Path(folder) / "j", {"batch_size": 8})
        journal.put("train", "image", [image for _, image, _ in made])
        journal.put("train", "text", [text for _, _, text in made])
        rows = [row for row, _, _ in made]
        cache = pour(Path(folder) / "a.h5", journal, made_settings(), {"train": rows}, attributes())
        journal.close()
        features = cache.load("train")
        index = features.index
        assert [
            Row(*r) for r in zip(index.ids, index.labels.tolist(), index.image_hashes, index.text_hashes, strict=True)
        ] == rows
        for i, (_, image, text) in enumerate(made):
            assert index.outcome[i] == IMAGE_BAD * bool(image.reason) + TEXT_BAD * bool(text.reason)
            assert index.image_reasons[i] == image.reason.encode()[:REASON_BYTES].decode("utf-8", "ignore")
            assert index.text_reasons[i] == text.reason.encode()[:REASON_BYTES].decode("utf-8", "ignore")
            assert index.tokens[i] == text.tokens
            for entry, stored in ((image, features.image[i]), (text, features.text[i])):
                wanted = np.zeros_like(stored) if entry.data is None else entry.data
                np.testing.assert_array_equal(stored, wanted)
        columns_ = cache.columns("train")
        assert [name.decode() for name in columns_.ids] == index.ids
        # Poured again from the file alone, nothing moves.
        empty = Journal(Path(folder) / "k", {"batch_size": 8})
        again = pour(Path(folder) / "a.h5", empty, made_settings(), {"train": rows}, attributes()).load("train")
        empty.close()
        np.testing.assert_array_equal(again.image, features.image)
        np.testing.assert_array_equal(again.text, features.text)
        assert (again.index.ids, again.index.text_reasons) == (index.ids, index.text_reasons)


@given(st.text(characters, max_size=50))
def test_a_content_hash_tells_texts_apart(text: str) -> None:
    assert text_hash(text) == text_hash(text)
    assert text_hash(text) != text_hash(text + "x")


# --- pages


@given(st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=60))
def test_no_text_is_markup_in_a_markdown_report(text: str) -> None:
    from markdown_it import MarkdownIt

    from mmsent.system.markup import markdown

    shown, wanted = markdown(text), " ".join(text.split())
    reader = MarkdownIt("commonmark").enable(["table", "strikethrough"])

    def plain(inline: Any) -> str:
        assert {one.type for one in inline.children} <= {"text", "text_special"}
        return "".join(one.content for one in inline.children)

    if wanted:
        paragraph = reader.parse(shown)
        assert [one.type for one in paragraph] == ["paragraph_open", "inline", "paragraph_close"]
        assert plain(paragraph[1]) == wanted
    cells = [one for one in reader.parse(f"| {shown} | b |\n| --- | --- |\n| {shown} | d |") if one.type == "inline"]
    assert [plain(cell) for cell in cells] == [wanted, "b", wanted, "d"]
