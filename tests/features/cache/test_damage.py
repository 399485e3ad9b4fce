"""Damaged caches: every flipped byte is found or harmless, rows are named, and repair encodes just those again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mmsent.cli.main import main
from mmsent.config import EncoderSettings, ExtractSettings, ViewSettings
from mmsent.data.dataset import Split, load_dataset
from mmsent.encoders.base import Encoders
from mmsent.errors import CacheError
from mmsent.features.cache import Cache, find_damage
from mmsent.features.cache import reading as reading_module
from mmsent.features.cache import writing as cache_module
from mmsent.features.cache.damage import CRC, INDEX
from mmsent.features.engine import LocalEngine
from mmsent.features.extract import extract
from mmsent.features.repair import Repaired, repair, verify
from tests.features.test_extract import counted, set_list, stored
from tests.helpers.fake import FakeImageEncoder, FakeTextEncoder, fake_encoders
from tests.helpers.made import make_guid

SPLITS: tuple[Split, ...] = ("train", "test")
PAIR = EncoderSettings(encoder="timm:grid", text_encoder="st:bag")
OPTIONS = ExtractSettings(max_bad=0.2)


def make(root: Path, folder: Path) -> Cache:
    """A cache of 40 and 10 rows in chunks of a few rows: two bad rows, one that has left its list, one view."""
    (root / "data" / "2.jpg").unlink(missing_ok=True)
    (root / "data" / "4.txt").unlink(missing_ok=True)
    dataset = load_dataset(root)
    made: dict[str, Any] = {"encoder": PAIR, "views": ViewSettings(count=1), "options": OPTIONS, "show": False}
    return extract(dataset, SPLITS, folder, engine=LocalEngine(fake_encoders()), **made).cache


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cache]:
    folder = tmp_path_factory.mktemp("damage")
    root = make_guid(folder / "posts", size=24)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache_module, "_CHUNK_BYTES", 2048)  # several chunks in every data set
        patch.setattr("sys.argv", ["mmsent", "extract", "--data", "x" * 6000])  # an attribute beyond 4 kB
        yield make(root, folder / "cache")


@pytest.fixture
def cache(made: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """A copy of it, to damage."""
    monkeypatch.setattr(cache_module, "_CHUNK_BYTES", 2048)
    path = tmp_path / made.path.name
    shutil.copy(made.path, path)
    return Cache.open(path)


@pytest.fixture
def root(made: Cache) -> Path:
    return Path(made.provenance["data"])


def flip(path: Path, place: int, mask: int = 1) -> None:
    with path.open("rb+") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ mask]))


def place_of(path: Path, name: str, row: int, byte: int = 0) -> int:
    """Where in the file a byte of a row lies."""
    with h5py.File(path) as file:
        data = file[name]
        size = data.dtype.itemsize * int(np.prod(data.shape[1:]))
        info = data.id.get_chunk_info(row // data.chunks[0])
        return int(info.byte_offset) + (row % data.chunks[0]) * size + byte


def everything(path: Path) -> list[Any]:
    """All that readers can learn of a cache, by every way of reading it."""
    cache = Cache.open(path)
    found: list[Any] = [cache.settings, cache.labels, cache.data_name, cache.encoder, cache.provenance, cache.rows]
    for split in cache.rows:
        index = cache.index(split, kept=True)
        found += [index.ids, index.labels.tolist(), index.outcome.tolist(), index.image_reasons, index.text_reasons]
        found += [index.tokens.tolist(), index.image_hashes, index.text_hashes]
        columns = cache.columns(split)
        found += [part.tolist() for part in (columns.ids, columns.labels, columns.outcome, columns.image_keys)]
        features = cache.load(split)
        found += [features.image.tobytes(), features.text.tobytes()]
        found += [part.tobytes() for part in cache.embeddings(split, [7, 2, 3])]
        with cache.reader(split) as read:
            found += [part.tobytes() for part in read(1, 9)]
    return found


def flips_are_found(path: Path, n: int | None, seed: int) -> tuple[int, int]:
    """Flip one byte at n random places (None: at every place), one after the other. How many were found, and not."""
    whole, sound = path.read_bytes(), everything(path)
    rng = np.random.default_rng(seed)
    places = range(len(whole)) if n is None else rng.choice(len(whole), n, replace=False).tolist()
    found = 0
    for place in places:
        mask = int(rng.integers(1, 256))
        flip(path, place, mask)
        try:
            now = everything(path)
        except CacheError:
            found += 1
            assert find_damage(path), f"byte {place} ^ {mask}: reading fails, but verify would find nothing"
        else:
            assert now == sound, f"byte {place} ^ {mask}: another value, without a word"
        flip(path, place, mask)
    assert path.read_bytes() == whole
    return found, len(places) - found


def test_a_byte_flipped_at_50_places_is_found_or_harmless(cache: Cache) -> None:
    found, harmless = flips_are_found(cache.path, 50, seed=0)
    assert found + harmless == 50
    assert found > 25


@pytest.mark.slow
def test_a_byte_flipped_at_5000_places_is_found_or_harmless(cache: Cache) -> None:
    assert flips_are_found(cache.path, 5000, seed=1)[0] > 2500


def test_long_attributes_are_covered(cache: Cache) -> None:
    """HDF5 keeps those beyond 4 kB without a checksum of its own."""
    at = cache.path.read_bytes().index(b"x" * 5000)
    flip(cache.path, at + 2500)
    with pytest.raises(
        CacheError, match="its attributes do not match their checksum; restore a copy of it, or rename it"
    ):
        Cache.open(cache.path)
    assert find_damage(cache.path).lines() == ["its attributes do not match their checksum"]


@pytest.mark.parametrize("name", ["train/image", "test/text", "train/label", "test/crc32"])
def test_a_block_of_zeros_is_found(cache: Cache, name: str) -> None:
    """What a storage failure leaves; to HDF5's checksum, zeros with the checksum zero are sound."""
    with h5py.File(cache.path) as file:
        info = file[name].id.get_chunk_info(1 if name.endswith("image") else 0)
    with cache.path.open("rb+") as raw:
        raw.seek(info.byte_offset)
        raw.write(bytes(info.size))
    with h5py.File(cache.path) as file:
        assert file[name][()] is not None  # HDF5 does not mind
    split = name.partition("/")[0]
    with pytest.raises(CacheError, match=f"is damaged: {split}: "):
        cache.load(split)


# --- saying which rows


@pytest.mark.parametrize(
    ("name", "row", "line"),
    [
        ("train/image", 17, "train: image of row 17 (id 18)"),
        ("test/text", 9, "test: text of row 9 (id 50)"),
        ("train/label", 5, "train: index of row 5"),
        ("test/id", 0, "test: index of row 0"),
        ("train/tokens", 39, "train: index of row 39"),
        ("train/image_sha256", 3, "train: index of row 3"),
        ("train/crc32", 8, "train: the checksums of crc32, but no row"),
    ],
)
def test_reading_names_the_row(cache: Cache, name: str, row: int, line: str) -> None:
    flip(cache.path, place_of(cache.path, name, row))
    split = name.partition("/")[0]
    assert find_damage(cache.path).lines() == [line]
    for read in (cache.load, lambda s: cache.embeddings(s, range(cache.rows[s])) and cache.index(s)):
        with pytest.raises(CacheError) as caught:
            read(split)
        assert str(caught.value) == (
            f"{cache.path} is damaged: {line}; `mmsent cache repair --cache {cache.path}` encodes only these again"
        )
    other = "test" if split == "train" else "train"
    assert len(cache.load(other).index) == cache.rows[other]


def test_verify_names_all_damage(cache: Cache) -> None:
    for name, row in [("train/image", 3), ("train/image", 30), ("train/text", 3), ("test/outcome", 1)]:
        flip(cache.path, place_of(cache.path, name, row))
    found = verify(cache, None, None, 0)
    assert not found.ok
    assert found.damaged == [
        "train: image of rows 3 (id 4), 30 (id 31)",
        "train: text of row 3 (id 4)",
        "test: index of row 1",
    ]


def test_a_cut_file_says_where_it_ends(cache: Cache) -> None:
    size = cache.path.stat().st_size
    os.truncate(cache.path, size - 1)
    with pytest.raises(CacheError, match=f"is damaged: it ends after {size - 1:,} of {size:,} bytes; .*cache repair"):
        Cache.open(cache.path)
    os.truncate(cache.path, 20)
    with pytest.raises(CacheError, match="is damaged beyond repair, or no cache: its structure"):
        Cache.open(cache.path)
    assert find_damage(cache.path).metadata


# --- repair


def mend(cache: Cache, root: Path) -> tuple[Repaired, Encoders]:
    encoders = fake_encoders()
    return repair(cache.path, load_dataset(root), encoders, OPTIONS), encoders


@pytest.mark.parametrize(
    ("places", "encoded"),
    [
        ([("train/image", 17)], {"train": 1}),
        ([("test/text", 9)], {"test": 1}),
        ([("train/image", 0), ("train/image", 39), ("train/text", 20), ("test/image", 4)], {"train": 3, "test": 1}),
        *[([(f"train/{name}", 11)], {"train": 1}) for name in INDEX],
        ([("train/outcome", 1)], {"train": 1}),  # a quarantined row
        ([("train/image", 1)], {"train": 1}),
        ([(f"train/{CRC}", 8)], {"train": 0}),
        ([(f"train/{CRC}", 8), ("train/image", 8)], {"train": 1}),
    ],
)
def test_repair_encodes_damaged_rows_alone(
    cache: Cache, root: Path, places: list[tuple[str, int]], encoded: dict[str, int]
) -> None:
    whole = stored(cache.path)
    for name, row in places:
        flip(cache.path, place_of(cache.path, name, row))
    found, encoders = mend(cache, root)
    assert {split: n for split, n in found.encoded.items() if n} == {split: n for split, n in encoded.items() if n}
    assert found.dropped == {}
    assert stored(cache.path) == whole
    assert not find_damage(cache.path)
    assert isinstance(encoders.image, FakeImageEncoder)
    assert isinstance(encoders.text, FakeTextEncoder)
    assert encoders.image.seen <= 8 * sum(encoded.values())  # the batch keeps its shape; only these rows are decoded
    assert not list(cache.path.parent.glob("*.tmp"))
    assert not list(cache.path.parent.glob("*.journal"))


def test_damage_in_several_blocks_and_an_id_that_is_no_text(
    cache: Cache, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading_module, "INDEX_ROWS", 16)
    whole = stored(cache.path)
    for row in (15, 16, 17, 32):
        flip(cache.path, place_of(cache.path, "train/image", row))
    for name, row in (("train/id", 20), ("test/id", 3)):
        flip(cache.path, place_of(cache.path, name, row), mask=0x80)  # no UTF-8 begins so
    found, _ = mend(cache, root)
    assert found.encoded == {"train": 5, "test": 1}
    assert stored(cache.path) == whole


def test_all_that_is_damaged_in_a_split_is_named_at_once(cache: Cache) -> None:
    for name, row in (("train/image", 3), ("train/text", 5)):
        flip(cache.path, place_of(cache.path, name, row))
    with pytest.raises(CacheError) as caught:
        cache.load("train")
    named = "train: image of row 3 (id 4); train: text of row 5 (id 6); `mmsent cache repair"
    assert named in str(caught.value)


def test_where_no_repair_helps_reading_says_so(cache: Cache) -> None:
    """Bytes of HDF5's own structure: no row can be named."""
    raw = cache.path.read_bytes()
    cache.path.write_bytes(raw[:8] + bytes(200) + raw[208:])
    with pytest.raises(
        CacheError, match=r"is damaged beyond repair, or no cache: its structure .+\); .*extract` again"
    ):
        cache.load("train")


def test_a_flipped_checksum_costs_no_row(cache: Cache, root: Path) -> None:
    """HDF5 refuses the block, but its rows are what they were."""
    whole = stored(cache.path)
    with h5py.File(cache.path) as file:
        info = file["train/image"].id.get_chunk_info(0)
    flip(cache.path, info.byte_offset + info.size - 1)
    assert find_damage(cache.path).lines() == ["train: the checksums of image, but no row"]
    with pytest.raises(CacheError, match="is damaged"):
        cache.load("train")
    found, encoders = mend(cache, root)
    assert (found.cache.damage, counted(encoders)) == (None, (0, 0))
    assert stored(cache.path) == whole


@pytest.mark.slow
def test_repair_at_random_places(cache: Cache, root: Path) -> None:
    """Wherever a byte flips, repair gives back every data set, or refuses and leaves the file."""
    sound, whole = cache.path.read_bytes(), stored(cache.path)
    rng = np.random.default_rng(3)
    mended = refused = 0
    for place in rng.choice(len(sound), 25, replace=False).tolist():
        flip(cache.path, place)
        if not find_damage(cache.path):
            assert stored(cache.path) == whole
        else:
            before = cache.path.read_bytes()
            if find_damage(cache.path).metadata:
                refused += 1
                with pytest.raises(
                    CacheError, match=r"is damaged beyond repair: .*; restore a copy of it, or rename it"
                ):
                    mend(cache, root)
                assert cache.path.read_bytes() == before
            else:
                mended += 1
                mend(cache, root)
                assert stored(cache.path) == whole
        cache.path.write_bytes(sound)
    assert mended + refused > 10
    assert mended > refused


def test_a_cut_file_is_mended_or_refused(cache: Cache, root: Path) -> None:
    sound, whole = cache.path.read_bytes(), stored(cache.path)
    mended = 0
    for share in (0.999, 0.95, 0.8, 0.5, 0.05):
        cache.path.write_bytes(sound[: int(share * len(sound))])
        if find_damage(cache.path).metadata:
            with pytest.raises(CacheError, match=r"is damaged beyond repair: .*; restore a copy of it, or rename it"):
                mend(cache, root)
        else:
            mended += 1
            found, _ = mend(cache, root)
            assert "it ends after" in found.found[0]
            assert stored(cache.path) == whole
        cache.path.write_bytes(sound)
    assert mended >= 2


def test_a_sound_cache_is_left_alone(cache: Cache, root: Path) -> None:
    before = cache.path.stat()
    found, encoders = mend(cache, root)
    assert (found.found, found.encoded, counted(encoders)) == ([], {}, (0, 0))
    assert cache.path.stat().st_mtime_ns == before.st_mtime_ns


def test_rows_that_left_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are kept where they are sound; a damaged one cannot be encoded again and goes."""
    root = make_guid(tmp_path / "posts", size=24)
    make(root, tmp_path / "cache")
    lines = (root / "train.txt").read_text().splitlines()
    rows = [(line.split(",")[0], line.split(",")[1]) for line in lines[1:]]
    set_list(root, rows[:-3])
    cache = make(root, tmp_path / "cache")
    assert cache.index("train", kept=True).ids[37:] == ["38", "39", "40"]
    flip(cache.path, place_of(cache.path, "train/image", 38))
    found, encoders = mend(cache, root)
    assert (found.encoded, found.dropped, counted(encoders)) == ({"train": 0}, {"train": 1}, (0, 0))
    assert found.cache.index("train", kept=True).ids[37:] == ["38", "40"]


def test_metadata_is_not_mended_row_by_row(cache: Cache, root: Path) -> None:
    flip(cache.path, cache.path.read_bytes().index(b"x" * 5000) + 7)
    before = cache.path.read_bytes()
    with pytest.raises(
        CacheError, match=r"is damaged beyond repair: its attributes .*; restore a copy of it, or rename it"
    ):
        mend(cache, root)
    assert cache.path.read_bytes() == before


def test_another_encoder_mends_nothing(cache: Cache, root: Path) -> None:
    flip(cache.path, place_of(cache.path, "train/image", 2))
    before = cache.path.read_bytes()
    with pytest.raises(CacheError, match=r"cannot be completed here: image\.weights_sha256"):
        repair(cache.path, load_dataset(root), fake_encoders(seed=1), OPTIONS)
    assert cache.path.read_bytes() == before


def test_a_changed_post_is_read_anew(made: Cache, tmp_path: Path) -> None:
    root = tmp_path / "posts"
    shutil.copytree(Path(made.provenance["data"]), root)
    cache = make(root, tmp_path / "cache")
    (root / "data" / "9.txt").write_text("other words")
    flip(cache.path, place_of(cache.path, "train/image", 8))
    found, _ = mend(cache, root)
    assert found.encoded == {"train": 1}
    assert stored(cache.path) == stored(make(root, tmp_path / "again").path)


# --- caches of an older mmsent


def age(path: Path) -> None:
    """Take away the checksums that older caches lack."""
    with h5py.File(path, "r+") as file:
        del file.attrs["attributes_sha256"]
        for split in SPLITS:
            del file[split]["crc32"]


def test_an_older_cache_is_read_and_mended_by_blocks(cache: Cache, root: Path) -> None:
    sound, whole = everything(cache.path), stored(cache.path)
    age(cache.path)
    assert everything(cache.path) == sound
    assert not find_damage(cache.path)
    with h5py.File(cache.path) as file:
        rows = file["train/image"].chunks[0]
    assert rows == 5
    flip(cache.path, place_of(cache.path, "train/image", 7))
    with pytest.raises(CacheError, match=r"train: image of rows 5 \(id 6\), 6 \(id 7\), 7 .*, 9 \(id 10\); `mmsent"):
        cache.load("train")
    found, _ = mend(cache, root)
    assert found.encoded == {"train": 5}
    assert stored(cache.path) == whole  # and it has the checksums now


# --- the command line


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return int(stop.value.code or 0)


def test_verify_and_repair_from_the_command_line(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mmsent.encoders.factory.open_encoders", lambda settings: fake_encoders())
    monkeypatch.chdir(cache.path.parent)
    whole = stored(cache.path)
    where = ("--cache", str(cache.path))
    assert run("cache", "repair", *where) == 0
    assert "all checksums hold, nothing to repair" in capsys.readouterr().out
    flip(cache.path, place_of(cache.path, "train/image", 17))
    assert run("cache", "verify", *where) == 1
    shown = capsys.readouterr()
    assert "damaged:\n  train: image of row 17 (id 18)\n" in shown.out
    assert f"`mmsent cache repair --cache {cache.path}`" in shown.err
    assert run("cache", "verify", *where, "--json") == 1
    assert json.loads(capsys.readouterr().out)["damaged"] == ["train: image of row 17 (id 18)"]
    assert run("cache", "repair", *where, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["found"], said["encoded"]) == (["train: image of row 17 (id 18)"], {"train": 1})
    assert stored(cache.path) == whole
    assert run("cache", "verify", *where) == 0
    assert "all checksums hold" in capsys.readouterr().out
    size = cache.path.stat().st_size
    os.truncate(cache.path, size - 100)
    assert run("fit", "--cache", str(cache.path.parent)) == 1  # found by folder, and named
    assert "it ends after" in capsys.readouterr().err
    assert run("cache", "repair", "--cache", str(cache.path.parent)) == 0
    shown = capsys.readouterr()
    assert "damaged: it ends after" in shown.out
    assert stored(cache.path) == whole
