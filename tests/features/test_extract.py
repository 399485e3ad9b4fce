"""Extraction with made-up encoders: right numbers, only what is missing, the same bytes after any interruption."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from mmsent.config import DataSettings, EncoderSettings, ExtractSettings, ViewSettings
from mmsent.data.dataset import Split, load_dataset
from mmsent.data.images import Pixels, open_rgb
from mmsent.data.views import make_views
from mmsent.encoders.base import Embeddings, Encoders
from mmsent.errors import CacheError, DataError, MachineError
from mmsent.features import batches as batches_module
from mmsent.features.batches import block_rows, scaled, text_batches
from mmsent.features.cache import NO_HASH, Cache
from mmsent.features.cache import journal as journal_module
from mmsent.features.cache.journal import Journal
from mmsent.features.engine import LocalEngine
from mmsent.features.extract import ExtractResult, extract
from tests.helpers.fake import PREPROCESS, FakeImageEncoder, FakeTextEncoder, fake_encoders
from tests.helpers.made import make_guid, make_manifest, make_picture

N = 40  # training rows of make_guid
PAIR = EncoderSettings(encoder="timm:grid", text_encoder="st:bag")  # what the fakes are called


def run(
    root: Path,
    folder: Path,
    splits: Sequence[Split] = ("train",),
    *,
    encoders: Encoders | None = None,
    views: ViewSettings | int = 0,
    data: DataSettings | None = None,
    only: Cache | None = None,
    normalize: bool = False,
    **options: Any,
) -> ExtractResult:
    return extract(
        load_dataset(root, data),
        splits,
        only or folder,
        encoder=PAIR.model_copy(update={"normalize": normalize}),
        views=views if isinstance(views, ViewSettings) else ViewSettings(count=views),
        options=ExtractSettings(**options),
        engine=LocalEngine(encoders or fake_encoders()),
        show=False,
    )


def stored(path: Path) -> dict[str, tuple[Any, ...]]:
    """Every data set of a file by name: type, shape and bytes; and how many rows each split lists."""
    found: dict[str, tuple[Any, ...]] = {}
    with h5py.File(path) as file:
        for split, group in file.items():
            found[f"{split}.listed"] = (int(group.attrs["listed"]),)
            for name, data in group.items():
                found[f"{split}/{name}"] = (str(data.dtype), data.shape, data[()].tobytes())
    return found


def by_id(cache: Cache, split: str = "train") -> dict[str, tuple[bytes, bytes]]:
    """id -> the bytes of its picture's and its text's embeddings."""
    features = cache.load(split)
    pairs = zip(features.index.ids, features.image, features.text, strict=True)
    return {row_id: (image.tobytes(), text.tobytes()) for row_id, image, text in pairs}


def set_list(root: Path, rows: Sequence[tuple[str, str]], name: str = "train.txt") -> None:
    (root / name).write_text("".join(f"{a},{b}\n" for a, b in [("guid", "tag"), *rows]))


def get_list(root: Path, name: str = "train.txt") -> list[tuple[str, str]]:
    lines = (root / name).read_text().splitlines()[1:]
    return [(line.split(",")[0], line.split(",")[1]) for line in lines]


def repaint(root: Path, guid: str, seed: int = 99) -> None:
    """Give a post another picture."""
    make_picture("neutral", 48, np.random.default_rng(seed)).save(root / "data" / f"{guid}.jpg")


def counted(encoders: Encoders) -> tuple[int, int]:
    """Pictures and texts that went through a pair of fakes."""
    assert isinstance(encoders.image, FakeImageEncoder)
    assert isinstance(encoders.text, FakeTextEncoder)
    return encoders.image.seen, encoders.text.seen


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_guid(tmp_path / "posts")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "cache"


# --- the numbers


def test_values_equal_direct_encoding(root: Path, out: Path) -> None:
    views = ViewSettings(count=2, seed=5)
    result = run(root, out, ("train", "test"), views=views)
    dataset = load_dataset(root)
    image, text = FakeImageEncoder(), FakeTextEncoder()
    for split in dataset.splits:
        features = result.cache.load(split)
        posts = dataset.of(split)
        assert features.index.ids == [post.id for post in posts]
        assert features.image.shape == (len(posts), 3, 48)
        for i, post in enumerate(posts):
            assert post.image is not None
            raw = post.image.read_bytes()
            pixels = make_views(open_rgb(raw), post.id, PREPROCESS, views)
            np.testing.assert_array_equal(features.image[i], image.encode(pixels))
            written = dataset.text_of(post)
            np.testing.assert_array_equal(features.text[i], text.encode([written])[0])
            assert features.index.image_hashes[i] == hashlib.sha256(raw).digest()
            assert features.index.text_hashes[i] == hashlib.sha256(written.encode()).digest()
            assert features.index.tokens[i] == len(written.split())
    labels = result.cache.load("train").index.labels
    assert [result.cache.labels[k] for k in labels] == [post.label for post in dataset.of("train")]
    assert set(result.cache.load("test").index.labels.tolist()) == {-1}
    assert (result.rows, result.encoded) == ({"train": 40, "test": 10}, {"train": 40, "test": 10})
    assert (result.quarantined, result.notes) == ([], [])
    assert sorted(p.name for p in out.iterdir()) == [result.cache.path.name, result.cache.path.name + ".lock"]


def test_manifest(tmp_path: Path, out: Path) -> None:
    manifest = make_manifest(tmp_path / "m")
    result = run(manifest, out, ("train", "test"))
    assert result.cache.data_name == "posts"
    dataset = load_dataset(manifest)
    features = result.cache.load("train")
    np.testing.assert_array_equal(
        features.text, FakeTextEncoder().encode([dataset.text_of(post) for post in dataset.of("train")])
    )
    assert features.index.ids[0] == "post 1"


def test_cache_says_where_it_is_from(root: Path, out: Path) -> None:
    cache = run(root, out, batch_size=7).cache
    assert (cache.data_name, cache.encoder) == ("posts", "timm:grid+sentence-transformers:bag")
    assert cache.provenance["data"] == str(root.resolve())
    assert cache.provenance["batch_size"] == 7
    assert DataSettings.model_validate(cache.provenance["data_settings"]) == DataSettings()
    own = EncoderSettings.model_validate(cache.provenance["encoder_settings"])
    assert own == PAIR.model_copy(update={"runtime": "torch"})  # what auto means for an engine that is given
    assert cache.provenance["decoding"].startswith("decodes all 50 texts")


def test_long_texts_are_counted_as_cut(root: Path, out: Path) -> None:
    (root / "data" / "3.txt").write_text("word " * 13)
    (root / "data" / "4.txt").write_text("word " * 12)
    assert run(root, out).cut == 1


def test_normalized_rows_have_length_one(root: Path, out: Path) -> None:
    plain, unit = run(root, out, views=1).cache, run(root, out, views=1, normalize=True).cache
    assert plain.path != unit.path
    a, b = plain.load("train"), unit.load("train")
    np.testing.assert_allclose(np.linalg.norm(b.image, axis=-1), np.ones((40, 2)), rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(b.text, axis=-1), np.ones(40), rtol=1e-6)
    np.testing.assert_allclose(b.image, a.image / np.linalg.norm(a.image, axis=-1, keepdims=True), rtol=1e-6)
    assert not scaled(np.zeros((2, 3), np.float32), True).any()


def test_half_storage(root: Path, out: Path) -> None:
    full, half = run(root, out).cache, run(root, out, storage="float16").cache
    image, text = half.embeddings("train", range(N))
    assert image.dtype == np.float16
    assert text.dtype == np.float16
    np.testing.assert_array_equal(image, full.load("train").image.astype(np.float16))
    assert half.load("train").image.dtype == np.float32


# --- views


def test_views_are_distinct_and_depend_on_seed_and_id_alone(root: Path, out: Path, tmp_path: Path) -> None:
    views = ViewSettings(count=4, seed=3)
    first = run(root, out, views=views, workers=1).cache
    image = first.load("train").image
    assert image.shape == (N, 5, 48)
    for row in image[:5]:
        assert len({view.tobytes() for view in row}) == 5
    before = by_id(first)
    rows = get_list(root)
    set_list(root, rows[::-1])
    other = run(root, tmp_path / "other", views=views, workers=5, batch_size=23).cache
    assert other.load("train").index.ids == [row_id for row_id, _ in rows[::-1]]
    assert by_id(other) == before
    reseeded = run(root, tmp_path / "other", views=views.model_copy(update={"seed": 4})).cache
    clean, again = other.load("train").image, reseeded.load("train").image
    np.testing.assert_array_equal(clean[:, 0], again[:, 0])
    assert (clean[:, 1:] != again[:, 1:]).any(axis=2).all()


# --- batches


class Spy(FakeImageEncoder):
    """Keeps the pixels of every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.pixels: list[Pixels] = []

    def encode(self, pixels: Pixels) -> Embeddings:
        self.pixels.append(pixels.copy())
        return super().encode(pixels)


def test_pictures_come_in_fixed_blocks(root: Path, out: Path) -> None:
    spy = Spy()
    run(root, out, encoders=Encoders(spy, FakeTextEncoder()))
    assert spy.batches == [8] * 5
    spy = Spy()
    run(root, out, ("test",), encoders=Encoders(spy, FakeTextEncoder()))
    assert spy.batches == [8, 2]
    spy = Spy()
    run(root, out, encoders=Encoders(spy, FakeTextEncoder()), views=2, batch_size=20)
    assert spy.batches == [18] * 6 + [12]  # 6 rows of 3 views a batch
    spy = Spy()
    run(root, out, encoders=Encoders(spy, FakeTextEncoder()), views=9, batch_size=3)
    assert spy.batches == [10] * 40  # a row's views stay together


@pytest.mark.parametrize(("batch", "views", "rows"), [(16, 1, 16), (16, 5, 3), (4, 5, 1), (5, 5, 1)])
def test_block_rows(batch: int, views: int, rows: int) -> None:
    assert block_rows(batch, views) == rows


def test_a_row_alone_keeps_its_place_in_the_block(root: Path, out: Path) -> None:
    run(root, out)
    repaint(root, "11")
    spy = Spy()
    run(root, out, encoders=Encoders(spy, FakeTextEncoder()))
    assert spy.batches == [8]
    (pixels,) = spy.pixels
    assert [bool(p.any()) for p in pixels] == [i == 2 for i in range(8)]  # row 10 of the list: third of its block


def test_texts_come_in_batches_of_like_length(root: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches_module, "TEXT_WINDOW", 25)
    monkeypatch.setattr(batches_module, "TEXT_BATCH", 10)
    rng = np.random.default_rng(0)
    for i in range(1, N + 1):
        (root / "data" / f"{i}.txt").write_text(" ".join(["so"] * int(rng.integers(1, 12)) + [f"w{i}"]))
    text = FakeTextEncoder()
    cache = run(root, out, encoders=Encoders(FakeImageEncoder(), text)).cache
    assert [len(batch) for batch in text.batches] == [10, 10, 5, 10, 5]
    lengths = [[len(t.split()) for t in batch] for batch in text.batches]
    assert sum(lengths[:3], []) == sorted(sum(lengths[:3], []))  # noqa: RUF017
    assert {t.split()[-1] for batch in text.batches[:3] for t in batch} == {f"w{i}" for i in range(1, 26)}
    dataset = load_dataset(root)
    direct = FakeTextEncoder().encode([dataset.text_of(post) for post in dataset.of("train")])
    np.testing.assert_array_equal(cache.load("train").text, direct)


def test_text_batches_break_ties_by_position() -> None:
    lengths, batches = text_batches({5: "a b", 2: "a", 9: "b", 1: "c d"}, FakeTextEncoder())
    assert lengths == {5: 2, 2: 1, 9: 1, 1: 2}
    assert batches == [[2, 9, 1, 5]]
    assert text_batches({}, FakeTextEncoder()) == ({}, [])


def test_a_cache_keeps_the_batch_it_was_begun_with(root: Path, out: Path) -> None:
    run(root, out, batch_size=5)
    spy = Spy()
    result = run(root, out, ("test",), encoders=Encoders(spy, FakeTextEncoder()), batch_size=4)
    assert spy.batches == [5, 5]
    assert result.notes == ["--batch-size 4 is ignored: the cache was begun with 5"]
    assert result.cache.provenance["batch_size"] == 5


# --- only what is missing


def test_a_second_run_encodes_nothing_and_leaves_the_file(root: Path, out: Path) -> None:
    path = run(root, out, views=1).cache.path
    os.utime(path, ns=(10**9, 10**9))
    before = path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes()
    encoders = fake_encoders()
    result = run(root, out, views=1, encoders=encoders)
    assert counted(encoders) == (0, 0)
    assert (result.encoded, result.rows) == ({"train": 0}, {"train": 40})
    assert (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes()) == before
    assert not list(out.glob("*.journal*"))


def test_one_changed_byte_of_a_picture_encodes_one_row(root: Path, out: Path) -> None:
    first = run(root, out, views=1).cache
    before, path = by_id(first), root / "data" / "7.jpg"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    Image.open(path).load()  # still a picture
    encoders = fake_encoders()
    result = run(root, out, views=1, encoders=encoders)
    assert result.encoded == {"train": 1}
    assert counted(encoders) == (8, 0)  # its block of 4 rows and no text
    after = by_id(result.cache)
    assert [row_id for row_id in before if before[row_id] != after[row_id]] == ["7"]
    assert before["7"][1] == after["7"][1]
    index = result.cache.index("train")
    assert index.image_hashes[6] == hashlib.sha256(raw).digest()


def test_a_changed_text_encodes_one_row(root: Path, out: Path) -> None:
    before = by_id(run(root, out).cache)
    (root / "data" / "9.txt").write_text("entirely other words, ten of them, or so, or eleven")
    encoders = fake_encoders()
    result = run(root, out, encoders=encoders)
    assert (result.encoded, counted(encoders)[0]) == ({"train": 1}, 0)
    after = by_id(result.cache)
    assert [row_id for row_id in before if before[row_id] != after[row_id]] == ["9"]
    assert before["9"][0] == after["9"][0]
    assert result.cache.index("train").tokens[8] == 10
    (root / "data" / "9.txt").write_text("  entirely other words, ten of them, or so, or eleven\r\n")
    assert run(root, out).encoded == {"train": 0}  # the text itself counts, not its file


def test_a_changed_label_encodes_nothing_but_is_stored(root: Path, out: Path) -> None:
    before = by_id(run(root, out).cache)
    rows = get_list(root)
    other = "neutral" if rows[4][1] != "neutral" else "positive"
    rows[4] = (rows[4][0], other)
    set_list(root, rows)
    encoders = fake_encoders()
    result = run(root, out, encoders=encoders)
    assert (counted(encoders), result.encoded) == ((0, 0), {"train": 0})
    index = result.cache.index("train")
    assert result.cache.labels[index.labels[4]] == other
    assert by_id(result.cache) == before


@pytest.mark.parametrize("place", [40, 13, 0])
def test_a_new_row_is_encoded_alone(root: Path, out: Path, place: int) -> None:
    before = by_id(run(root, out).cache)
    repaint(root, "new")
    (root / "data" / "new.txt").write_text("a lovely day")
    rows = get_list(root)
    rows.insert(place, ("new", "positive"))
    set_list(root, rows)
    result = run(root, out)
    assert result.encoded == {"train": 1}
    assert result.cache.index("train").ids == [row_id for row_id, _ in rows]
    after = by_id(result.cache)
    assert after.pop("new")[1] == FakeTextEncoder().encode(["a lovely day"])[0].tobytes()
    assert after == before


def test_a_removed_row_is_kept_behind_and_comes_back_for_nothing(root: Path, out: Path) -> None:
    before = by_id(run(root, out).cache)
    rows = get_list(root)
    set_list(root, rows[:5] + rows[7:])
    result = run(root, out)
    assert (result.encoded, result.rows) == ({"train": 0}, {"train": 38})
    assert result.cache.rows == {"train": 38}
    assert len(result.cache.load("train").index) == 38
    assert result.cache.index("train", kept=True).ids[38:] == ["6", "7"]
    set_list(root, rows[30:])  # a list cut short
    assert run(root, out).cache.rows == {"train": 10}
    set_list(root, rows)
    encoders = fake_encoders()
    result = run(root, out, encoders=encoders)
    assert (counted(encoders), result.encoded, result.cache.rows) == ((0, 0), {"train": 0}, {"train": 40})
    assert by_id(result.cache) == before
    assert result.cache.index("train").ids == [row_id for row_id, _ in rows]


def test_a_row_that_comes_back_changed_is_encoded(root: Path, out: Path) -> None:
    run(root, out)
    rows = get_list(root)
    set_list(root, rows[1:])
    run(root, out)
    repaint(root, "1")
    set_list(root, rows)
    assert run(root, out).encoded == {"train": 1}


def test_new_names_of_labels_are_stored(root: Path, out: Path) -> None:
    """Indices and contents stay what they were; the names that they stand for do not."""
    run(root, out, ("train", "test"))
    rows = [
        (row_id, {"negative": "bad", "neutral": "so-so", "positive": "good"}[tag]) for row_id, tag in get_list(root)
    ]
    set_list(root, rows)
    result = run(root, out, data=DataSettings(labels=("bad", "so-so", "good")))
    assert result.encoded == {"train": 0}
    assert result.cache.labels == ("bad", "so-so", "good")
    assert [result.cache.labels[k] for k in result.cache.index("train").labels] == [tag for _, tag in rows]


def test_another_order_of_labels(root: Path, out: Path) -> None:
    """The split that is not extracted now counts by the new order too."""
    run(root, out, ("train", "test"))
    result = run(root, out, ("test",), data=DataSettings(labels=("positive", "neutral", "negative")))
    names = [result.cache.labels[k] for k in result.cache.index("train").labels]
    assert names == [tag for _, tag in get_list(root)]


# --- interruptions


@pytest.fixture
def committing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commit every block."""
    monkeypatch.setattr(journal_module, "COMMIT_SECONDS", 0.0)


@pytest.mark.usefixtures("committing")
@pytest.mark.parametrize("fail_after", [0, 8, 24])
def test_an_interrupted_run_continues(root: Path, out: Path, tmp_path: Path, fail_after: int) -> None:
    whole = stored(run(root, tmp_path / "whole", views=1).cache.path)
    with pytest.raises(KeyboardInterrupt):
        run(root, out, views=1, encoders=fake_encoders(fail_after=fail_after))
    assert not list(out.glob("*.h5"))
    assert len(list(out.glob("*.h5.journal"))) == 1
    encoders = fake_encoders()
    result = run(root, out, views=1, encoders=encoders)
    assert counted(encoders) == (80 - fail_after, 0)  # the texts were done before
    assert result.encoded == {"train": 40 - fail_after // 2}
    assert stored(result.cache.path) == whole
    assert not list(out.glob("*.journal*"))


@pytest.mark.usefixtures("committing")
def test_interrupted_while_texts_are_encoded(
    root: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches_module, "TEXT_BATCH", 16)
    whole = stored(run(root, tmp_path / "whole").cache.path)
    text = FakeTextEncoder()
    plain = text.encode

    def encode(texts: list[str]) -> Embeddings:
        if text.seen >= 16:
            raise KeyboardInterrupt
        return plain(texts)

    monkeypatch.setattr(text, "encode", encode)
    with pytest.raises(KeyboardInterrupt):
        run(root, out, encoders=Encoders(FakeImageEncoder(), text))
    encoders = fake_encoders()
    assert stored(run(root, out, encoders=encoders).cache.path) == whole
    assert counted(encoders) == (40, 24)


@pytest.mark.usefixtures("committing")
def test_interrupted_again_and_again(root: Path, out: Path, tmp_path: Path) -> None:
    whole = stored(run(root, tmp_path / "whole").cache.path)
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            run(root, out, encoders=fake_encoders(fail_after=8))
    encoders = fake_encoders(fail_after=8)
    assert stored(run(root, out, encoders=encoders).cache.path) == whole
    assert counted(encoders) == (8, 0)


@pytest.mark.usefixtures("committing")
def test_an_update_that_is_interrupted(root: Path, out: Path, tmp_path: Path) -> None:
    """The old file stays readable, and old and new rows end in the bytes of one run over the new data."""
    path = run(root, out).cache.path
    before = path.read_bytes()
    for guid in ("2", "20", "38"):
        repaint(root, guid)
    with pytest.raises(KeyboardInterrupt):
        run(root, out, encoders=fake_encoders(fail_after=8))
    assert path.read_bytes() == before
    result = run(root, out)
    assert result.encoded == {"train": 2}
    assert stored(path) == stored(run(root, tmp_path / "whole").cache.path)


def test_a_killed_run_continues(root: Path, out: Path, tmp_path: Path) -> None:
    """A process that dies without a word, in the middle of a block, loses that block alone."""
    code = """
import os, sys
from pathlib import Path
from tests.features import test_extract
from tests.helpers import fake
from mmsent.features.cache import journal
from mmsent.encoders.base import Encoders
journal.COMMIT_SECONDS = 0.0
class Dies(fake.FakeImageEncoder):
    def encode(self, pixels):
        if self.seen >= 16:
            os._exit(9)
        return super().encode(pixels)
test_extract.run(Path(sys.argv[1]), Path(sys.argv[2]), encoders=Encoders(Dies(), fake.FakeTextEncoder()))
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(root), str(out)], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (9, "")
    encoders = fake_encoders()
    result = run(root, out, encoders=encoders)
    assert counted(encoders) in {(24, 0), (32, 0)}  # one block may have been encoded and not yet journalled
    assert stored(result.cache.path) == stored(run(root, tmp_path / "whole").cache.path)


@pytest.mark.usefixtures("committing")
def test_an_interrupted_run_keeps_its_batch(root: Path, out: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(root, out, encoders=fake_encoders(fail_after=8))
    spy = Spy()
    result = run(root, out, encoders=Encoders(spy, FakeTextEncoder()), batch_size=10)
    assert spy.batches == [8] * 4
    assert result.notes == ["--batch-size 10 is ignored: the cache was begun with 8"]


@pytest.mark.usefixtures("committing")
def test_a_row_that_changes_between_interruption_and_continuation(root: Path, out: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(root, out, encoders=fake_encoders(fail_after=16))
    repaint(root, "3")
    (root / "data" / "4.txt").write_text("other")
    encoders = fake_encoders()
    result = run(root, out, encoders=encoders)
    assert counted(encoders)[0] == 24 + 8
    assert stored(result.cache.path) == stored(run(root, tmp_path / "whole").cache.path)


@pytest.mark.parametrize("where", ["replace", "fsync", "create_dataset"])
def test_a_full_disk_leaves_cache_and_journal(
    root: Path, out: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    path = run(root, out).cache.path
    before = path.read_bytes()
    repaint(root, "5")
    full = OSError(28, "No space left on device")

    def fail(*_: Any, **__: Any) -> None:
        raise full

    with monkeypatch.context() as patch:
        if where == "create_dataset":
            patch.setattr(h5py.Group, "create_dataset", fail)
        else:
            patch.setattr(f"mmsent.features.cache.writing.os.{where}", fail)
        with pytest.raises(CacheError, match=r"cannot write .*: No space left on device; encoded rows are kept in"):
            run(root, out)
    assert path.read_bytes() == before
    assert sorted(p.suffix for p in out.iterdir()) == [".h5", ".journal", ".lock"]
    encoders = fake_encoders()
    result = run(root, out, encoders=encoders)
    assert counted(encoders) == (0, 0)
    assert (
        result.cache.index("train").image_hashes[4] == hashlib.sha256((root / "data" / "5.jpg").read_bytes()).digest()
    )


def test_a_finished_split_is_committed(root: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another process finds in the journal while the second split goes on."""
    monkeypatch.setattr(journal_module, "COMMIT_SECONDS", 1e9)
    found: list[int] = []

    class Looks(FakeImageEncoder):
        def encode(self, pixels: Pixels) -> Embeddings:
            with sqlite3.connect(next(out.glob("*.journal"))) as db:
                found.append(db.execute("SELECT count(*) FROM rows").fetchone()[0])
            return super().encode(pixels)

    run(root, out, ("train", "test"), encoders=Encoders(Looks(), FakeTextEncoder()))
    assert found == [0] * 5 + [80] * 2


# --- bad rows


def spoil(root: Path) -> dict[str, str]:
    """Five bad rows of 40: id -> the reason to expect."""
    data = root / "data"
    data.joinpath("2.jpg").write_bytes(data.joinpath("2.jpg").read_bytes()[:700])
    data.joinpath("3.jpg").unlink()
    data.joinpath("4.txt").unlink()
    data.joinpath("5.txt").write_bytes(b"\xff\xfe\xfd"[1:])
    data.joinpath("6.jpg").write_bytes(b"")
    data.joinpath("6.txt").unlink()
    return {
        "2": r"picture cannot be decoded: image file is truncated",
        "3": r"no file .*3\.\*",
        "4": r"no file .*4\.txt",
        "5": r"text is not utf-8: .*can't decode",
        "6": r"picture file is empty; no file .*6\.txt",
    }


UTF8 = DataSettings(text_encoding="utf-8")


def test_bad_rows_are_quarantined_with_their_reasons(root: Path, out: Path, tmp_path: Path) -> None:
    whole = by_id(run(root, tmp_path / "sound", data=UTF8).cache)
    reasons = spoil(root)
    result = run(root, out, data=UTF8, max_bad=0.125)
    assert [(split, row_id) for split, row_id, _ in result.quarantined] == [("train", row_id) for row_id in reasons]
    for _, row_id, reason in result.quarantined:
        assert re.match(reasons[row_id], reason), reason
    features = result.cache.load("train")
    index = features.index
    assert index.outcome[:7].tolist() == [0, 1, 1, 2, 2, 3, 0]
    assert np.flatnonzero(~index.good).tolist() == [1, 2, 3, 4, 5]
    for i, bits in enumerate(index.outcome.tolist()):
        assert bool(features.image[i].any()) != bool(bits & 1)
        assert bool(features.text[i].any()) != bool(bits & 2)
    assert index.image_hashes[2] == NO_HASH
    assert index.text_hashes[3] == index.text_hashes[4] == NO_HASH
    assert index.image_hashes[1] == hashlib.sha256((root / "data" / "2.jpg").read_bytes()).digest()
    after = by_id(result.cache)
    assert {row_id for row_id in whole if whole[row_id] != after[row_id]} == set(reasons)
    # The good half of a bad row is encoded all the same.
    assert (after["2"][1], after["4"][0]) == (whole["2"][1], whole["4"][0])
    encoders = fake_encoders()
    again = run(root, out, data=UTF8, max_bad=0.125, encoders=encoders)
    assert (counted(encoders), again.encoded) == ((0, 0), {"train": 0})
    assert again.quarantined == result.quarantined


@pytest.mark.usefixtures("committing")
def test_too_many_bad_rows_stop_and_a_higher_limit_goes_on(root: Path, out: Path, tmp_path: Path) -> None:
    spoil(root)
    with pytest.raises(DataError) as caught:
        run(root, out, data=UTF8, max_bad=0.1)  # 4 of 40; five are bad
    message = str(caught.value)
    assert message.startswith("5 of 40 train rows are bad (")
    assert "no file " in message
    assert "more than --max-bad 0.1; what was encoded is kept" in message
    assert "continue with --max-bad 0.13" in message
    assert not list(out.glob("*.h5"))
    assert len(list(out.glob("*.h5.journal"))) == 1
    encoders = fake_encoders()
    with pytest.raises(DataError):  # known at once, without encoding anything
        run(root, out, data=UTF8, max_bad=0.1, encoders=encoders)
    assert counted(encoders) == (0, 0)
    encoders = fake_encoders()
    result = run(root, out, data=UTF8, max_bad=0.13, encoders=encoders)
    assert len(result.quarantined) == 5
    assert counted(encoders) == (32, 0)  # the first block and the texts were kept
    assert stored(result.cache.path) == stored(run(root, tmp_path / "o", data=UTF8, max_bad=0.13).cache.path)


@pytest.mark.parametrize(("n", "bad"), [(100, 29), (7, 1), (100, 57), (40, 40)])
def test_the_limit_that_the_error_names_does_go_on(tmp_path: Path, out: Path, n: int, bad: int) -> None:
    root = make_guid(tmp_path / "posts", n, 0, size=4)
    for i in range(1, bad + 1):
        (root / "data" / f"{i}.txt").unlink()
    with pytest.raises(DataError) as caught:
        run(root, out, max_bad=(bad - 1) / n)
    named = float(str(caught.value).rpartition("--max-bad ")[2].partition(",")[0])
    assert len(run(root, out, max_bad=named).quarantined) == bad
    assert len(run(root, tmp_path / "other", max_bad=bad / n).quarantined) == bad


def test_the_default_limit_is_one_in_a_hundred(tmp_path: Path, out: Path) -> None:
    root = make_guid(tmp_path / "posts", 100, 0, size=4)
    (root / "data" / "1.jpg").unlink()
    assert len(run(root, out).quarantined) == 1
    (root / "data" / "2.jpg").unlink()
    with pytest.raises(DataError, match="2 of 100 train rows are bad"):
        run(root, out)


def test_images_without_the_end_of_their_file_are_used_and_told(root: Path, out: Path) -> None:
    sound = run(root, out)
    assert not [note for note in sound.notes if "the end of their file" in note]
    for name in ("3", "2"):
        path = root / "data" / f"{name}.jpg"
        path.write_bytes(path.read_bytes()[:-2])
    found = run(root, out)
    assert found.quarantined == []
    told = "2 images lack the end of their file, but no pixel, and are used: 2 first"
    assert [note for note in found.notes if "the end" in note] == [told]


def test_a_mended_row_is_encoded(root: Path, out: Path, tmp_path: Path) -> None:
    saved = shutil.copytree(root, tmp_path / "saved")
    sound = stored(run(root, tmp_path / "sound", data=UTF8).cache.path)
    spoil(root)
    run(root, out, data=UTF8, max_bad=0.2)
    for name in ("2.jpg", "3.jpg", "4.txt", "5.txt", "6.jpg", "6.txt"):
        shutil.copy(saved / "data" / name, root / "data" / name)
    result = run(root, out, data=UTF8)
    assert (result.encoded, result.quarantined) == ({"train": 5}, [])
    assert {k: v[2] for k, v in stored(result.cache.path).items() if "reason" not in k and len(v) == 3} == {
        k: v[2] for k, v in sound.items() if "reason" not in k and len(v) == 3
    }


def test_a_row_that_goes_bad_loses_its_embedding(root: Path, out: Path) -> None:
    run(root, out)
    (root / "data" / "8.jpg").write_bytes(b"x")
    result = run(root, out, max_bad=0.1)
    assert result.quarantined == [
        ("train", "8", "not a picture in a supported format (JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF, HEIF)")
    ]
    assert not result.cache.load("train").image[7].any()


def test_values_that_are_not_finite_are_quarantined(root: Path, out: Path) -> None:
    class Explodes(FakeImageEncoder):
        def encode(self, pixels: Pixels) -> Embeddings:
            out = super().encode(pixels)
            if self.seen == 16:
                out[3, 5] = np.nan
            return out

    encoders = Encoders(Explodes(), FakeTextEncoder())
    result = run(root, out, encoders=encoders, max_bad=0.1)
    assert result.quarantined == [("train", "12", "the encoder gave values that are not finite")]
    assert np.isfinite(result.cache.load("train").image).all()


# --- which file


def test_a_changed_setting_makes_another_file_and_says_so(root: Path, out: Path) -> None:
    first = run(root, out, views=1)
    before = first.cache.path.read_bytes()
    second = run(root, out, views=ViewSettings(count=1, seed=1))
    assert second.cache.path != first.cache.path
    assert second.notes == [
        f"a new cache is made, because settings differ from {first.cache.path.name}: views.seed: 0 -> 1"
    ]
    assert second.encoded == {"train": 40}
    third = run(root, out, views=ViewSettings(count=1, seed=1), normalize=True)  # nearest to the second
    assert third.notes == [
        f"a new cache is made, because settings differ from {second.cache.path.name}: normalize: False -> True"
    ]
    other = run(root, out, views=1, encoders=fake_encoders(seed=1))
    assert "image.weights_sha256: " in other.notes[0]
    assert first.cache.path.read_bytes() == before
    assert run(root, out, views=1).notes == []


def test_a_second_writer_is_refused(root: Path, out: Path) -> None:
    path = run(root, out).cache.path
    repaint(root, "1")
    with FileLock(path.with_name(path.name + ".lock")):
        with pytest.raises(CacheError, match=r"another extraction is writing .*; try again later"):
            run(root, out)
        assert run(root, out, normalize=True).encoded == {"train": 40}  # another file, another lock
    assert run(root, out).encoded == {"train": 1}


def test_the_lock_is_given_back_after_an_error(root: Path, out: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(root, out, encoders=fake_encoders(fail_after=0))
    run(root, out)


def test_other_data_of_the_same_name_are_refused(root: Path, out: Path, tmp_path: Path) -> None:
    path = run(root, out).cache.path
    before = path.read_bytes()
    other = make_guid(tmp_path / "elsewhere" / "posts", seed=1)
    with pytest.raises(CacheError, match=r"was made from .*/posts, not from .*/elsewhere/posts, and both are called"):
        run(other, out)
    assert path.read_bytes() == before
    assert not list(out.glob("*.journal"))
    moved = tmp_path / "moved" / "posts"
    moved.parent.mkdir()
    root.rename(moved)
    assert run(moved, out).encoded == {"train": 0}  # the same data in another place


def test_only_completes_the_given_cache(root: Path, out: Path) -> None:
    cache = run(root, out).cache
    with pytest.raises(CacheError) as caught:
        run(root, out, ("test",), only=cache, normalize=True)
    assert f"{cache.path} cannot be completed here: normalize: False -> True; run `mmsent extract" in str(caught.value)
    assert [p.name for p in out.glob("*.h5")] == [cache.path.name]
    renamed = cache.path.rename(out / "mine.h5")
    result = run(root, out, ("test",), only=Cache.open(renamed))
    assert result.cache.path == renamed
    assert result.cache.rows == {"train": 40, "test": 10}
    assert [p.name for p in out.glob("*.h5")] == ["mine.h5"]


# --- splits


def test_splits_in_any_order_give_the_same_bytes(root: Path, tmp_path: Path) -> None:
    both = stored(run(root, tmp_path / "a", ("train", "test"), views=1).cache.path)
    assert {name.partition("/")[0].partition(".")[0] for name in both} == {"train", "test"}
    assert stored(run(root, tmp_path / "b", ("test", "train"), views=1).cache.path) == both
    run(root, tmp_path / "c", ("test",), views=1)
    assert stored(run(root, tmp_path / "c", ("train",), views=1).cache.path) == both
    run(root, tmp_path / "d", ("train",), views=1)
    result = run(root, tmp_path / "d", ("test",), views=1)
    assert stored(result.cache.path) == both
    assert (result.encoded, result.rows, result.cache.rows) == ({"test": 10}, {"test": 10}, {"train": 40, "test": 10})


def test_one_id_in_both_splits(root: Path, out: Path) -> None:
    set_list(root, [*get_list(root, "test_without_label.txt"), ("1", "null")], "test_without_label.txt")
    result = run(root, out, ("train", "test"))
    assert result.rows == {"train": 40, "test": 11}
    assert by_id(result.cache, "test")["1"] == by_id(result.cache)["1"]
    train, test = result.cache.index("train"), result.cache.index("test")
    assert (train.labels[0] >= 0, test.labels[10]) == (True, -1)


def test_a_split_that_is_not_there(tmp_path: Path, out: Path) -> None:
    root = make_guid(tmp_path / "posts", 10, 0)
    (root / "test_without_label.txt").unlink()
    encoders = fake_encoders()
    with pytest.raises(DataError, match=r"has no test split: test_without_label\.txt is missing"):
        run(root, out, ("train", "test"), encoders=encoders)
    assert counted(encoders) == (0, 0)  # known before anything is encoded
    assert run(root, out, encoders=encoders).rows == {"train": 10}


# --- real data


@pytest.mark.mvsa
def test_real_posts_with_the_offline_pair(mvsa: Path, tmp_path: Path) -> None:
    """The first 40 training posts, GB18030 texts among them: good embeddings, and nothing to do the second time."""
    root = tmp_path / "mvsa-forty"
    (root / "data").mkdir(parents=True)
    rows = get_list(mvsa)[:40]
    set_list(root, rows)
    for guid, _ in rows:
        for ending in ("jpg", "txt"):
            shutil.copy(mvsa / "data" / f"{guid}.{ending}", root / "data")
    dataset = load_dataset(root)
    assert dataset.decoding.encoding == "gb18030"

    def once() -> ExtractResult:
        offline = EncoderSettings(encoder="offline", device="cpu")
        views, options = ViewSettings(count=1), ExtractSettings()
        return extract(dataset, ["train"], tmp_path / "c", encoder=offline, views=views, options=options, show=False)

    result = once()
    assert (result.encoded, result.quarantined, result.cut) == ({"train": 40}, [], 0)
    features = result.cache.load("train")
    assert (features.image.shape, features.text.shape) == ((40, 2, 1280), (40, 384))
    assert len({row.tobytes() for row in features.image.reshape(80, -1)}) == 80
    np.testing.assert_allclose(np.linalg.norm(features.text, axis=1), 1, rtol=1e-4)  # MiniLM's own last step
    assert [result.cache.labels[k] for k in features.index.labels] == [tag for _, tag in rows]
    before = result.cache.path.read_bytes()
    again = once()
    assert again.encoded == {"train": 0}
    assert again.cache.path.read_bytes() == before


def test_a_cache_of_other_settings_at_the_expected_name_is_not_continued(root: Path, out: Path) -> None:
    """As after a rename: the widths are equal, and the features would be mixed."""
    here = run(root, out).cache.path
    other = run(root, out, normalize=True).cache.path
    os.replace(other, here)
    before = here.read_bytes()
    repaint(root, "3")
    with pytest.raises(CacheError, match=r"holds features of other settings \(normalize: True -> False\); rename it"):
        run(root, out)
    assert here.read_bytes() == before


def test_a_journal_of_other_settings_at_the_expected_name_is_not_continued(root: Path, out: Path) -> None:
    here = run(root, out).cache.path
    journal = here.with_name(here.name + ".journal")
    Journal(journal, {"fingerprint": "another", "batch_size": 8}).close()
    repaint(root, "3")
    with pytest.raises(CacheError, match=r"\.journal was begun with other settings, .*; rename it"):
        run(root, out)
    assert Journal(journal, {}).meta["fingerprint"] == "another"


def test_a_cache_is_completed_under_other_libraries_and_another_precision(root: Path, out: Path) -> None:
    """Heads ask for the contract, which leaves them out; what differs is told, and the cache keeps its settings."""
    cache = run(root, out).cache
    moved = fake_encoders()
    for half in (moved.image, moved.text):
        half.card = half.card.model_copy(update={"libraries": {"pillow": "99.0.1"}, "precision": "bf16"})
    done = run(root, out, ["test"], only=cache, encoders=moved)
    assert done.cache.settings == cache.settings
    assert done.cache.path == cache.path
    assert done.cache.rows == {"train": 40, "test": 10}
    (note,) = done.notes
    assert "image.precision: fp32 -> bf16" in note
    assert "99.0.1" in note
    with pytest.raises(CacheError, match="cannot be completed here: normalize: False -> True; run"):
        run(root, out, ["test"], only=cache, normalize=True)


def test_a_limit_of_this_process_quarantines_no_row(root: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that may not be opened now is not a bad file."""
    really, name = os.open, str(root / "data" / "3.jpg")

    def open_some(path: Any, *how: Any, **more: Any) -> int:
        if str(path) == name:
            raise OSError(errno.EMFILE, "Too many open files", name)
        return really(path, *how, **more)

    monkeypatch.setattr(os, "open", open_some)
    with pytest.raises(MachineError, match="Too many open files; this process may not open more; raise the limit"):
        run(root, out)


def test_a_cache_knows_when_each_split_was_read(root: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(root, out).cache.provenance
    assert first["read"].keys() == {"train"}
    monkeypatch.setattr("mmsent.features.extract.now", lambda: "2040-01-01T00:00:00+00:00")
    second = run(root, out, ["test"]).cache.provenance
    assert second["read"] == first["read"] | {"test": "2040-01-01T00:00:00+00:00"}
