"""Verify, explain and export."""

from __future__ import annotations

import json
import sys
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mmsent.config import EncoderSettings, ViewSettings
from mmsent.data.dataset import Dataset, Split, load_dataset
from mmsent.data.images import Pixels
from mmsent.encoders.base import Embeddings, Encoders
from mmsent.errors import CacheError, UsageError
from mmsent.features.cache import Cache
from mmsent.features.cache.damage import PARTS
from mmsent.features.cache.export import export
from mmsent.features.cache.finding import cache_path, explain
from mmsent.features.extract import feature_settings
from mmsent.features.repair import encode_again, verify
from tests.helpers.fake import FakeImageEncoder, FakeTextEncoder, fake_encoders
from tests.helpers.fake_cache import fake_cache
from tests.helpers.made import make_guid, make_picture

BOTH: tuple[Split, ...] = ("train", "test")
PAIR = EncoderSettings(encoder="timm:grid", text_encoder="st:bag")


def made(root: Path, folder: Path, views: int = 1, **options: Any) -> Cache:
    normalize = options.pop("normalize", False)
    return fake_cache(
        load_dataset(root),
        folder,
        BOTH,
        views=views,
        encoder=PAIR.model_copy(update={"normalize": normalize}),
        **options,
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_guid(tmp_path / "posts")


@pytest.fixture
def cache(root: Path, tmp_path: Path) -> Cache:
    return made(root, tmp_path / "cache")


def tamper(cache: Cache, name: str, row: int, change: Any) -> None:
    """Rewrite one row of a data set, as another program could: the checksums stay right."""
    split, _, half = name.partition("/")
    with h5py.File(cache.path, "r+") as file:
        file[name][row] = change(file[name][row])
        file[split]["crc32"][row, PARTS.index(half)] = zlib.crc32(file[name][row].tobytes())


# --- verify


def test_verify_a_sound_cache(cache: Cache, root: Path) -> None:
    encoders = fake_encoders()
    found = verify(cache, load_dataset(root), encoders, 1000)
    assert found.ok
    assert (found.rows, found.sampled, found.identical, found.changed, found.wrong) == (50, 50, 50, [], [])
    assert found.lowest == pytest.approx(1)
    values = json.loads(json.dumps(found.to_json()))
    assert (values["ok"], values["rows"], values["identical"]) == (True, 50, 50)


@pytest.mark.parametrize("options", [{"normalize": True}, {"storage": "float16"}, {"batch_size": 7}, {"views": 0}])
def test_verify_encodes_as_extraction_did(root: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    cache = made(root, tmp_path / "cache", **options)
    encoders = fake_encoders()
    found = verify(cache, load_dataset(root), encoders, 12, seed=3)
    assert (found.ok, found.sampled, found.identical) == (True, 12, 12)
    if "batch_size" in options:
        assert isinstance(encoders.image, FakeImageEncoder)
        assert set(encoders.image.batches) <= {6, 2}  # blocks of 3 rows of 2 views; 40 and 10 rows end in one of 1


def test_verify_samples_by_seed(cache: Cache, root: Path) -> None:
    def drawn(seed: int) -> list[str]:
        text = FakeTextEncoder()
        seen: list[tuple[str, ...]] = []

        def again(*values: Any) -> Any:
            seen.append(tuple(cache.index(values[3]).ids[i] for i in values[4]))
            return encode_again(*values)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mmsent.features.repair.encode_again", again)
            assert verify(cache, load_dataset(root), Encoders(FakeImageEncoder(), text), 5, seed).sampled == 5
        return [row_id for part in seen for row_id in part]

    assert drawn(1) == drawn(1)
    assert sorted(drawn(1)) != sorted(drawn(2))
    assert len(set(drawn(1))) == 5


def test_verify_the_file_alone(cache: Cache, root: Path) -> None:
    for dataset, encoders, sample in ((None, fake_encoders(), 5), (load_dataset(root), None, 5), (None, None, 0)):
        found = verify(cache, dataset, encoders, sample)
        assert (found.ok, found.rows, found.sampled) == (True, 50, 0)
    encoders = fake_encoders()
    assert verify(cache, load_dataset(root), encoders, 0).sampled == 0
    assert isinstance(encoders.image, FakeImageEncoder)
    assert encoders.image.seen == 0


@pytest.mark.parametrize(
    ("name", "row", "change"),
    [
        ("train/image", 11, lambda v: v * np.array([[1], [-1]], v.dtype)),  # view 1 alone
        ("train/image", 0, lambda v: v[::-1]),  # two views swapped
        ("train/text", 39, lambda v: np.roll(v, 1)),
        ("train/text", 3, np.zeros_like),  # no angle to anything
        ("test/text", 9, lambda v: v + np.linspace(0, 1, len(v), dtype=v.dtype)),
    ],
)
def test_verify_finds_a_tampered_embedding(cache: Cache, root: Path, name: str, row: int, change: Any) -> None:
    tamper(cache, name, row, change)
    found = verify(cache, load_dataset(root), fake_encoders(), 1000)
    assert not found.ok
    assert found.wrong == [cache.index(name.partition("/")[0]).ids[row]]
    assert (found.identical, found.changed) == (49, [])
    assert found.lowest < 0.999


def test_verify_counts_rounding_as_right_but_not_identical(cache: Cache, root: Path) -> None:
    tamper(cache, "train/image", 4, lambda v: np.nextafter(v, np.float32(2)))
    found = verify(cache, load_dataset(root), fake_encoders(), 1000)
    assert (found.ok, found.identical) == (True, 49)


def test_verify_finds_other_weights(cache: Cache, root: Path) -> None:
    class Other(FakeImageEncoder):
        def encode(self, pixels: Pixels) -> Embeddings:
            return -super().encode(pixels)

    found = verify(cache, load_dataset(root), Encoders(Other(), FakeTextEncoder()), 10)
    assert (found.ok, len(found.wrong), found.identical) == (False, 10, 0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["image", "text"])
def test_verify_refuses_values_that_are_not_finite(cache: Cache, value: float, name: str) -> None:
    def spoil(values: Any) -> Any:
        values.flat[3] = value
        return values

    tamper(cache, f"test/{name}", 2, spoil)
    found = verify(cache, None, None, 0)
    assert (found.ok, found.damaged) == (False, ["test: rows 2 hold values that are not finite"])


def test_verify_reads_every_checksum(cache: Cache, root: Path) -> None:
    with h5py.File(cache.path) as file:
        chunk = file["test/image"].id.get_chunk_info(0)
    raw = bytearray(cache.path.read_bytes())
    raw[chunk.byte_offset + 100] ^= 1
    cache.path.write_bytes(raw)
    found = verify(cache, load_dataset(root), fake_encoders(), 5)
    assert (found.ok, found.sampled, found.damaged) == (False, 0, ["test: image of row 0 (id 41)"])


def test_verify_reports_changed_content(cache: Cache, root: Path) -> None:
    data = root / "data"
    make_picture("neutral", 48, np.random.default_rng(9)).save(data / "3.jpg")
    (data / "5.txt").write_text("other words")
    (data / "7.jpg").unlink()
    (data / "9.txt").unlink()
    (data / "11.jpg").write_bytes(b"x")
    found = verify(cache, load_dataset(root), fake_encoders(), 1000)
    assert found.ok  # nothing is wrong with the cache
    assert found.changed == ["3", "5", "7", "9", "11"]
    assert (found.sampled, found.identical, found.wrong) == (50, 45, [])


def test_verify_passes_over_quarantined_rows(root: Path, tmp_path: Path) -> None:
    (root / "data" / "2.jpg").unlink()
    (root / "data" / "4.txt").unlink()
    cache = made(root, tmp_path / "cache", max_bad=0.1)
    found = verify(cache, load_dataset(root), fake_encoders(), 1000)
    assert (found.ok, found.rows, found.sampled, found.identical, found.changed) == (True, 50, 48, 48, [])


def test_verify_needs_the_list_of_the_cache(cache: Cache, root: Path) -> None:
    lines = (root / "train.txt").read_text().splitlines()
    (root / "train.txt").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(
        CacheError, match=r"train list of .* differs from the cache; run `mmsent extract --split train`"
    ):
        verify(cache, load_dataset(root), fake_encoders(), 1000)


def test_encode_again_gives_the_stored_rows(cache: Cache, root: Path) -> None:
    found = encode_again(cache, load_dataset(root), fake_encoders(), "train", [39, 0, 7])
    assert set(found) == {0, 7, 39}
    features = cache.load("train")
    for i, (image, text) in found.items():
        np.testing.assert_array_equal(image, features.image[i])
        np.testing.assert_array_equal(text[0], features.text[i])


# --- explain


def test_explain_lists_the_caches_of_a_data_set(cache: Cache, root: Path, tmp_path: Path) -> None:
    folder = cache.path.parent
    unit = made(root, folder, normalize=True)
    made(make_guid(tmp_path / "others", 5, 5), folder)
    dataset: Dataset = load_dataset(root)
    wanted = feature_settings(dataset, fake_encoders(), PAIR, ViewSettings(count=1), "float32")
    assert cache_path(folder, dataset.name, cache.encoder, wanted) == cache.path
    assert {c.path: lines for c, lines in explain(folder, "posts", wanted)} == {
        cache.path: [],
        unit.path: ["normalize: True -> False"],
    }
    assert explain(folder, "nobody", wanted) == []


# --- export


@pytest.fixture
def uneven(root: Path, tmp_path: Path) -> Cache:
    """A cache with a bad row."""
    (root / "data" / "2.jpg").unlink()
    return made(root, tmp_path / "uneven", max_bad=0.1)


@pytest.mark.parametrize("split", BOTH)
def test_export_npz(uneven: Cache, tmp_path: Path, split: Split) -> None:
    out = tmp_path / "deep" / "er" / "x.npz"
    assert export(uneven, split, out) == out
    features = uneven.load(split)
    with np.load(out, allow_pickle=False) as file:
        assert set(file) == {"id", "label", "good", "image", "text"}
        assert file["id"].tolist() == features.index.ids
        names = [uneven.labels[k] if k >= 0 else "" for k in features.index.labels]
        assert file["label"].tolist() == names
        assert file["good"].tolist() == [row_id != "2" for row_id in features.index.ids]
        np.testing.assert_array_equal(file["image"], features.image)
        np.testing.assert_array_equal(file["text"], features.text)


@pytest.mark.parametrize("split", BOTH)
def test_export_parquet(uneven: Cache, tmp_path: Path, split: Split) -> None:
    from pyarrow import parquet

    out = export(uneven, split, tmp_path / "x.parquet")
    features = uneven.load(split)
    table = parquet.read_table(out)
    assert table.column_names == ["id", "label", "good", "image", "text"]
    assert table["id"].to_pylist() == features.index.ids
    assert table["label"].to_pylist() == [uneven.labels[k] if k >= 0 else "" for k in features.index.labels]
    assert table["good"].to_pylist() == features.index.good.tolist()
    image = np.array(table["image"].to_pylist(), np.float32).reshape(features.image.shape)
    np.testing.assert_array_equal(image, features.image)
    np.testing.assert_array_equal(np.array(table["text"].to_pylist(), np.float32), features.text)


def test_export_elsewhere(cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"x\.csv: the ending determines the format; use \.npz or \.parquet"):
        export(cache, "train", tmp_path / "x.csv")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"Parquet needs pyarrow: pip install 'mmsent\[parquet\]'"):
        export(cache, "train", tmp_path / "x.parquet")
    with pytest.raises(CacheError, match="holds no val rows"):
        export(cache, "val", tmp_path / "x.npz")
