"""The cache file: its fingerprint, its documented layout, damage, and finding the right one."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mmsent.config import Clean, ViewSettings
from mmsent.data.dataset import Split
from mmsent.errors import CacheError
from mmsent.features.batches import blocks
from mmsent.features.cache import NO_HASH, NO_LABEL, Cache, Features, Row, pour
from mmsent.features.cache import writing as cache_module
from mmsent.features.cache.finding import cache_path, find_cache, list_caches, slug
from mmsent.features.cache.fingerprint import FeatureSettings, differences
from mmsent.features.cache.journal import Entry, Half, Journal
from mmsent.system.hashing import json_sha256
from tests.helpers.fake import fake_encoders

LABELS = ["negative", "neutral", "positive"]


def made_settings(**changes: Any) -> FeatureSettings:
    encoders = fake_encoders()
    values: dict[str, Any] = {
        "image": encoders.image.card,
        "text": encoders.text.card,
        "normalize": False,
        "views": ViewSettings(count=1),
        "views_version": 1,
        "clean": (),
        "text_encoding": "utf-8",
        "storage": "float32",
    }
    return FeatureSettings(**(values | changes))


def made_rows(names: Sequence[str], version: int = 0) -> list[Row]:
    """Rows whose content hashes follow from name and version."""
    digests = [bytes([len(name), version]) * 16 for name in names]
    return [Row(name, i % 3, digest, digest[::-1]) for i, (name, digest) in enumerate(zip(names, digests, strict=True))]


def journalled(path: Path, split: str, rows: list[Row], settings: FeatureSettings, seed: int = 0) -> Journal:
    """A journal that holds every row: random embeddings."""
    rng = np.random.default_rng(seed)
    journal = Journal(path, {"batch_size": 8})
    half: Half
    for half, shape in (("image", (settings.views.count + 1, 48)), ("text", (32,))):
        hashes = [row.image_hash if half == "image" else row.text_hash for row in rows]
        values = rng.normal(size=(len(rows), *shape)).astype(settings.storage)
        journal.put(split, half, [Entry(r.id, h, v, tokens=5) for r, h, v in zip(rows, hashes, values, strict=True)])
    return journal


def made_cache(
    folder: Path,
    n: int = 6,
    settings: FeatureSettings | None = None,
    data_name: str = "posts",
    encoder: str = "fake",
    seed: int = 0,
) -> Cache:
    folder.mkdir(parents=True, exist_ok=True)
    settings = settings or made_settings()
    rows = made_rows([f"row {i}" for i in range(n)])
    path = cache_path(folder, data_name, encoder, settings)
    journal = journalled(folder / "j", "train", rows, settings, seed)
    cache = pour(path, journal, settings, {"train": rows}, attributes(data_name, encoder))
    journal.remove()
    return cache


def attributes(data_name: str = "posts", encoder: str = "fake") -> dict[str, Any]:
    return {"labels": LABELS, "data_name": data_name, "encoder": encoder, "provenance": {"data": "/x"}}


def everything(path: Path) -> tuple[Any, Features]:
    """All that a reader can learn of a cache."""
    cache = Cache.open(path)
    about = (cache.settings, cache.labels, cache.data_name, cache.encoder, cache.provenance, cache.rows)
    return about, cache.load("train")


# --- fingerprint and contract

CARD = fake_encoders().image.card
TEXT_CARD = fake_encoders().text.card
VIEWS = ViewSettings(count=1)
CHANGES: list[tuple[str, dict[str, Any], bool]] = [  # name, change, whether a head must care
    ("image.name", {"image": CARD.model_copy(update={"name": "other"})}, True),
    ("image.tag", {"image": CARD.model_copy(update={"tag": "openai"})}, True),
    ("image.weights_sha256", {"image": CARD.model_copy(update={"weights_sha256": "1" * 64})}, True),
    ("image.width", {"image": CARD.model_copy(update={"width": 49})}, True),
    (
        "image.preprocess.resize_to",
        {"image": CARD.model_copy(update={"preprocess": CARD.preprocess.model_copy(update={"resize_to": 18})})},
        True,
    ),
    (
        "image.preprocess.mean",
        {"image": CARD.model_copy(update={"preprocess": CARD.preprocess.model_copy(update={"mean": (0.1, 0.5, 0.5)})})},
        True,
    ),
    ("text.library", {"text": TEXT_CARD.model_copy(update={"library": "open_clip"})}, True),
    ("text.weights_sha256", {"text": TEXT_CARD.model_copy(update={"weights_sha256": "1" * 64})}, True),
    ("text.max_tokens", {"text": TEXT_CARD.model_copy(update={"max_tokens": 13})}, True),
    ("normalize", {"normalize": True}, True),
    ("clean", {"clean": (Clean.links,)}, True),
    ("image.precision", {"image": CARD.model_copy(update={"precision": "bf16"})}, False),
    ("text.precision", {"text": TEXT_CARD.model_copy(update={"precision": "fp16"})}, False),
    ("image.libraries.fake", {"image": CARD.model_copy(update={"libraries": {"fake": "2"}})}, False),
    ("text.libraries.torch", {"text": TEXT_CARD.model_copy(update={"libraries": {"fake": "1", "torch": "2"}})}, False),
    ("views.count", {"views": ViewSettings(count=2)}, False),
    *[
        (f"views.{name}", {"views": VIEWS.model_copy(update={name: value})}, False)
        for name, value in {
            "seed": 1,
            "rotation": 10.0,
            "flip": 0.4,
            "translate": 0.2,
            "scale": (0.9, 1.2),
            "shear": 4.0,
            "brightness": 0.1,
            "contrast": 0.1,
            "saturation": 0.1,
            "hue": 0.1,
        }.items()
    ],
    ("views_version", {"views_version": 2}, False),
    ("text_encoding", {"text_encoding": "gb18030"}, False),
    ("storage", {"storage": "float16"}, False),
]


@pytest.mark.parametrize(("name", "change", "matters"), CHANGES, ids=[c[0] for c in CHANGES])
def test_what_changes_fingerprint_and_contract(name: str, change: dict[str, Any], matters: bool) -> None:
    old, new = made_settings(), made_settings(**change)
    assert old.fingerprint != new.fingerprint
    assert (old.contract != new.contract) == matters
    (line,) = differences(old, new)
    assert line.startswith(f"{name}: ")
    assert cache_path(Path("c"), "d", "e", old) != cache_path(Path("c"), "d", "e", new)


def test_every_setting_is_covered_above() -> None:
    tried = {name.partition(".")[0] for name, _, _ in CHANGES}
    assert tried == set(FeatureSettings.model_fields)
    assert {name.split(".")[1] for name, _, _ in CHANGES if name.startswith("views.")} == set(ViewSettings.model_fields)


def test_fingerprint_is_stable() -> None:
    """The same settings name the same file today and next year: a changed digest would orphan every cache."""
    settings = made_settings()
    assert settings.fingerprint == FeatureSettings.model_validate_json(settings.model_dump_json()).fingerprint
    assert (len(settings.fingerprint), len(settings.contract)) == (64, 64)
    digest = json_sha256({"b": [1, 2], "a": {"d": None, "c": 0.5}})
    assert digest == json_sha256({"a": {"c": 0.5, "d": None}, "b": (1, 2)})
    # SHA-256 of {"a": {"c": 0.5, "d": null}, "b": [1, 2]}
    assert digest == "bf11ccb455ce8b91724392db133d403b5d5e9003c34f51af2c0dd4dfc9b322a9"


def test_without_views_their_recipe_does_not_count() -> None:
    plain = made_settings(views=ViewSettings(count=0))
    assert plain.fingerprint == made_settings(views=ViewSettings(count=0, seed=7, hue=0.3)).fingerprint
    assert plain.fingerprint != made_settings(views=ViewSettings(count=1)).fingerprint
    assert differences(plain, made_settings(views=ViewSettings(count=0, seed=7))) == []


def test_differences_read_as_old_and_new() -> None:
    new = made_settings(normalize=True, views=ViewSettings(count=1, seed=3))
    assert differences(made_settings(), new) == ["normalize: False -> True", "views.seed: 0 -> 3"]
    assert differences(new, new) == []
    gone = differences(made_settings(), made_settings(views=ViewSettings(count=0)))
    assert "views.count: 1 -> 0" in gone
    assert "views.seed: 0 -> None" in gone


# --- layout


def test_documented_layout_with_plain_h5py(tmp_path: Path) -> None:
    settings = made_settings(storage="float16")
    names = ["row 0", "ü 😀", "", "x" * 255]
    rows = made_rows(names)
    rows[1] = Row(names[1], NO_LABEL, NO_HASH, rows[1].text_hash)
    journal = journalled(tmp_path / "j", "train", rows, settings)
    journal.put("train", "image", [Entry(names[1], NO_HASH, None, "no picture")])
    path = tmp_path / "c.h5"
    pour(path, journal, settings, {"train": rows}, attributes())
    with h5py.File(path) as file:
        # Texts are of fixed length, which h5py gives as bytes: HDF5 keeps no checksum of the other kind.
        assert (file.attrs["format"], file.attrs["format_version"]) == (b"mmsent-cache", 1)
        assert json.loads(file.attrs["labels"]) == LABELS
        assert (file.attrs["data_name"], file.attrs["encoder"]) == (b"posts", b"fake")
        assert file.attrs["fingerprint"].decode() == settings.fingerprint
        assert file.attrs["contract"].decode() == settings.contract
        assert json.loads(file.attrs["settings"])["image"]["name"] == "grid"
        assert json.loads(file.attrs["provenance"]) == {"data": "/x"}
        assert list(file) == ["train"]
        train = file["train"]
        assert train.attrs["listed"] == 4
        shapes = {name: (data.shape, data.dtype) for name, data in train.items()}
        for name in ("id", "image_reason", "text_reason"):
            assert h5py.check_string_dtype(shapes[name][1]).encoding == "utf-8"
            assert h5py.check_string_dtype(shapes[name][1]).length is not None
            del shapes[name]
        assert shapes == {
            "label": ((4,), np.int16),
            "image": ((4, 2, 48), np.float16),
            "text": ((4, 32), np.float16),
            "outcome": ((4,), np.uint8),
            "tokens": ((4,), np.int32),
            "image_sha256": ((4, 32), np.uint8),
            "text_sha256": ((4, 32), np.uint8),
            "crc32": ((4, 3), np.uint32),
        }
        assert all(data.fletcher32 and data.compression is None for data in train.values())
        assert [v.decode() for v in train["id"]] == names
        assert train["label"][:].tolist() == [0, -1, 2, 0]
        assert train["outcome"][:].tolist() == [0, 1, 0, 0]
        assert [v.decode() for v in train["image_reason"]] == ["", "no picture", "", ""]
        assert train["image_sha256"][1].tobytes() == NO_HASH
        assert train["text_sha256"][1].tobytes() == rows[1].text_hash
        assert not train["image"][1].any()
        assert train["text"][1].any()
        vectors = journal.vectors("train", "image", names, "float16")
        np.testing.assert_array_equal(train["image"][3].ravel(), vectors["x" * 255])


def test_load_gives_back_what_was_poured(tmp_path: Path) -> None:
    cache = made_cache(tmp_path)
    assert cache.rows == {"train": 6}
    assert cache.labels == ("negative", "neutral", "positive")
    features = cache.load("train")
    index = features.index
    assert (len(index), index.ids) == (6, [f"row {i}" for i in range(6)])
    assert index.labels.dtype == np.int64
    assert index.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert index.good.all()
    assert index.tokens.tolist() == [5] * 6
    parts = (index.ids, index.labels.tolist(), index.image_hashes, index.text_hashes)
    assert [Row(*values) for values in zip(*parts, strict=True)] == made_rows(index.ids)
    assert features.image.dtype == np.float32
    assert features.image.shape == (6, 2, 48)
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(features.image, rng.normal(size=(6, 2, 48)).astype(np.float32))
    np.testing.assert_array_equal(features.text, rng.normal(size=(6, 32)).astype(np.float32))
    with pytest.raises(CacheError, match=r"holds no test rows \(it has train\); run `mmsent extract --split test`"):
        cache.load("test")


def test_reasons_join_and_are_cut_between_characters(tmp_path: Path) -> None:
    rows = made_rows(["a"])
    settings = made_settings()
    journal = journalled(tmp_path / "j", "train", rows, settings)
    journal.put("train", "image", [Entry("a", rows[0].image_hash, None, "x" + "ü" * 200)])
    journal.put("train", "text", [Entry("a", rows[0].text_hash, None, "no text")])
    index = pour(tmp_path / "c.h5", journal, settings, {"train": rows}, attributes()).index("train")
    assert index.image_reasons == ["x" + "ü" * 119]  # 240 bytes would end within a character
    assert index.reason(0) == "x" + "ü" * 119 + "; no text"
    assert (index.outcome.tolist(), index.good.tolist()) == ([3], [False])


def test_pour_needs_every_row(tmp_path: Path) -> None:
    cache = made_cache(tmp_path)
    before = cache.path.read_bytes()
    journal = Journal(tmp_path / "j", {"batch_size": 8})
    rows = [*made_rows(["row 0"]), *made_rows(["row 9"])]
    with pytest.raises(CacheError, match="row row 9 of train was not encoded; run extract again"):
        pour(cache.path, journal, cache.settings, {"train": rows}, attributes())
    changed = made_rows(["row 0"], version=1)  # another content than the one that is stored
    with pytest.raises(CacheError, match="row row 0 of train was not encoded"):
        pour(cache.path, journal, cache.settings, {"train": changed}, attributes())
    assert cache.path.read_bytes() == before
    assert not list(tmp_path.glob("*.tmp"))


def test_pour_merges_old_rows_and_journal(tmp_path: Path) -> None:
    cache = made_cache(tmp_path)
    old = cache.load("train")
    new = made_rows(["row 3", "new", "row 0"])
    changed = made_rows(["row 5"], version=1)
    journal = journalled(tmp_path / "j", "train", [new[1], *changed], cache.settings, seed=1)
    fresh = journal.vectors("train", "text", ["new", "row 5"], "float32")
    poured = pour(cache.path, journal, cache.settings, {"train": [*new, *changed]}, attributes())
    assert poured.rows == {"train": 4}
    now = poured.load("train")
    assert now.index.ids == ["row 3", "new", "row 0", "row 5"]
    np.testing.assert_array_equal(now.text, np.stack([old.text[3], fresh["new"], old.text[0], fresh["row 5"]]))
    np.testing.assert_array_equal(now.image[[0, 2]], old.image[[3, 0]])
    kept = poured.index("train", kept=True)
    assert kept.ids[4:] == ["row 1", "row 2", "row 4"]
    image, text = poured.embeddings("train", [4, 5, 6])
    np.testing.assert_array_equal(image, old.image[[1, 2, 4]])
    np.testing.assert_array_equal(text, old.text[[1, 2, 4]])


def test_many_rows_cross_chunk_borders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_CHUNK_BYTES", 1000)
    monkeypatch.setattr(cache_module, "_POUR_ROWS", 7)
    cache = made_cache(tmp_path, 50)
    with h5py.File(cache.path) as file:
        assert file["train/image"].chunks == (2, 2, 48)
        assert file["train/text"].chunks == (7, 32)
        assert file["train/label"].chunks == (50,)
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(cache.load("train").image, rng.normal(size=(50, 2, 48)).astype(np.float32))


@pytest.mark.parametrize(
    "positions", [[], [0], [2, 3, 4], [4, 3, 2], [5, 0, 3], [1, 1], [3, 0, 3, 5, 0, 0], [0, 1, 1, 2], range(1, 5)]
)
@pytest.mark.parametrize("kind", [list, np.array])
def test_embeddings_at_any_positions(tmp_path: Path, positions: Sequence[int], kind: Any) -> None:
    cache = made_cache(tmp_path)
    features = cache.load("train")
    image, text = cache.embeddings("train", kind(positions))
    at = np.array(positions, dtype=int)
    np.testing.assert_array_equal(image, features.image[at])
    np.testing.assert_array_equal(text, features.text[at])


def test_blocks() -> None:
    assert [list(b) for b in blocks(5, 2)] == [[0, 1], [2, 3], [4]]
    assert list(blocks(0, 2)) == []
    assert list(blocks(4, 2)) == [range(2), range(2, 4)]


# --- damage


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"no cache at .*none\.h5; make one with `mmsent extract`"):
        Cache.open(tmp_path / "none.h5")
    with pytest.raises(CacheError, match="no cache at"):
        Cache.open(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not HDF5", b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_not_hdf5(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.h5").write_bytes(content)
    with pytest.raises(CacheError, match=r"c\.h5 is damaged beyond repair, or no cache: .*; restore a copy"):
        Cache.open(tmp_path / "c.h5")


def test_foreign_hdf5(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["x"] = [1]
    with pytest.raises(CacheError, match=r"c\.h5 is not an mmsent cache"):
        Cache.open(tmp_path / "c.h5")


def test_newer_version(tmp_path: Path) -> None:
    path = made_cache(tmp_path).path
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = 2  # and no more is known of it
        file.attrs["settings"] = "{}"
    with pytest.raises(CacheError, match="was written by a newer mmsent; upgrade to read it"):
        Cache.open(path)


def test_tampered_settings(tmp_path: Path) -> None:
    path = made_cache(tmp_path).path
    with h5py.File(path, "r+") as file:
        file.attrs["settings"] = file.attrs["settings"].replace(b'"normalize":false', b'"normalize":true')
    with pytest.raises(CacheError, match=r"is damaged .*: its settings do not match its fingerprint"):
        Cache.open(path)
    for broken in ("{}", "{", '{"surprise": 1}'):
        with h5py.File(path, "r+") as file:
            file.attrs["settings"] = broken
        with pytest.raises(CacheError, match="is damaged"):
            Cache.open(path)


@pytest.mark.parametrize("name", ["format_version", "settings", "fingerprint", "labels", "data_name", "provenance"])
def test_missing_attribute(tmp_path: Path, name: str) -> None:
    path = made_cache(tmp_path).path
    with h5py.File(path, "r+") as file:
        del file.attrs[name]
    with pytest.raises(CacheError, match="is damaged"):
        Cache.open(path)


def test_truncated_file(tmp_path: Path) -> None:
    path = made_cache(tmp_path, 200).path
    whole = path.read_bytes()
    for length in (len(whole) - 1, len(whole) // 2, 600):
        path.write_bytes(whole[:length])
        with pytest.raises(CacheError, match="is damaged"):
            Cache.open(path).load("train")


@pytest.mark.parametrize("name", ["image", "text", "label", "id", "outcome", "image_sha256"])
def test_a_flipped_byte_in_a_chunk(tmp_path: Path, name: str) -> None:
    path = made_cache(tmp_path, 50).path
    with h5py.File(path) as file:
        chunk = file[f"train/{name}"].id.get_chunk_info(0)
    raw = bytearray(path.read_bytes())
    raw[chunk.byte_offset + chunk.size // 2] ^= 1
    path.write_bytes(raw)
    cache = Cache.open(path)  # the attributes are sound
    with pytest.raises(CacheError, match="is damaged"):
        cache.load("train")
    if name in ("image", "text"):
        cache.index("train")
        with pytest.raises(CacheError, match="is damaged"):
            cache.embeddings("train", [0])


@pytest.mark.slow
def test_a_flipped_byte_anywhere_is_an_error_or_harmless(tmp_path: Path) -> None:
    """The promise of docs/reference/cache.md, tried on bytes all over a small file."""
    path = made_cache(tmp_path, 12).path
    whole = path.read_bytes()
    about, features = everything(path)
    rng = np.random.default_rng(0)
    errors = 0
    for place in rng.choice(len(whole), 300, replace=False).tolist():
        raw = bytearray(whole)
        raw[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(raw)
        try:
            found, now = everything(path)
        except CacheError:
            errors += 1
            continue
        assert found == about, f"byte {place}"
        np.testing.assert_array_equal(now.image, features.image, err_msg=f"byte {place}")
        np.testing.assert_array_equal(now.text, features.text, err_msg=f"byte {place}")
        for name in ("ids", "image_hashes", "text_hashes", "image_reasons", "text_reasons"):
            assert getattr(now.index, name) == getattr(features.index, name), f"byte {place}"
        for name in ("labels", "outcome", "tokens"):
            np.testing.assert_array_equal(getattr(now.index, name), getattr(features.index, name))
    assert errors > 100


# --- finding


def test_slug() -> None:
    assert slug("mvsa-single_v2+x") == "mvsa-single_v2+x"
    assert slug("timm:a.b/c d") == "timm-a-b-c-d"
    assert slug("../../etc") == "etc"
    assert slug("日本") == "data-" + hashlib.sha256("日本".encode()).hexdigest()[:8]
    assert slug("日本") != slug("中国")
    assert slug("x" * 64) == "x" * 64
    long, other = slug("x" * 65), slug("x" * 66)
    assert (len(long), long[:48], long != other) == (57, "x" * 48, True)


def test_cache_path() -> None:
    settings = made_settings()
    path = cache_path(Path("cache"), "my posts", "open_clip:ViT-B-32:openai", settings)
    assert path == Path(f"cache/my-posts.open_clip-ViT-B-32-openai.{settings.fingerprint[:8]}.h5")


def test_list_caches_newest_first_and_readable_only(tmp_path: Path) -> None:
    old = made_cache(tmp_path, data_name="old")
    new = made_cache(tmp_path, data_name="new")
    os.utime(old.path, ns=(1, 1))
    (tmp_path / "broken.h5").write_bytes(b"x")
    (tmp_path / "notes.txt").write_bytes(b"x")
    assert [c.path for c in list_caches(tmp_path)] == [new.path, old.path]
    assert list_caches(tmp_path / "none") == []


def test_find_none(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"^no cache of posts in .*/; make one with `mmsent extract --split train`$"):
        find_cache(tmp_path, data_name="posts")
    with pytest.raises(CacheError, match=r"^no cache of posts with offline in .*--split train --encoder offline`$"):
        find_cache(tmp_path / "none", data_name="posts", encoder="offline")
    other = made_cache(tmp_path, data_name="other")
    (tmp_path / "posts.fake.0000.h5.journal").touch()
    with pytest.raises(CacheError) as caught:
        find_cache(tmp_path, data_name="posts")
    assert f"it holds {other.path.name}; posts.fake.0000.h5.journal is unfinished: run the same" in str(caught.value)
    with pytest.raises(
        CacheError, match=r"^no cache of others .*; make one with"
    ):  # that journal is not of these posts
        find_cache(tmp_path, data_name="others")
    with pytest.raises(CacheError, match=r"^no cache with offline in"):
        find_cache(tmp_path, encoder="offline")


def test_find_one(tmp_path: Path) -> None:
    posts = made_cache(tmp_path, encoder="timm:a+st:b")
    assert find_cache(tmp_path).path == posts.path
    other = made_cache(tmp_path, data_name="other")
    assert find_cache(tmp_path, data_name="posts").path == posts.path
    assert find_cache(tmp_path, encoder="fake").path == other.path
    assert find_cache(tmp_path, data_name="posts", encoder="timm:a+st:b").path == posts.path
    assert find_cache(tmp_path, encoder="timm-a+st-b").path == posts.path  # as it stands in the file's name
    moved = tmp_path / "elsewhere.bin"
    shutil.copy(other.path, moved)
    assert find_cache(moved, data_name="ignored").path == moved


def test_find_several(tmp_path: Path) -> None:
    made_cache(tmp_path)
    made_cache(tmp_path, encoder="offline")
    with pytest.raises(
        CacheError, match=r"^2 caches of posts match; choose one with --encoder fake or --encoder offline$"
    ):
        find_cache(tmp_path, data_name="posts")
    assert find_cache(tmp_path, encoder="fake").encoder == "fake"
    second = made_cache(tmp_path, settings=made_settings(normalize=True))
    with pytest.raises(
        CacheError, match=r"^2 caches of posts with fake match; choose one with --cache \S+ or --cache \S+$"
    ) as caught:
        find_cache(tmp_path, data_name="posts", encoder="fake")
    assert str(second.path) in str(caught.value)
    with pytest.raises(
        CacheError, match=r"^3 caches match; choose one with --cache \S+ or --cache \S+ or --cache \S+$"
    ):
        find_cache(tmp_path)
    assert find_cache(second.path).fingerprint == second.fingerprint


def test_splits_stand_in_one_file(tmp_path: Path) -> None:
    """Another split is copied as it was, embeddings and index."""
    cache = made_cache(tmp_path)
    before = cache.load("train")
    split: Split = "test"
    rows = [Row(r.id, NO_LABEL, r.image_hash, r.text_hash) for r in made_rows(["row 1", "test 1"])]
    journal = journalled(tmp_path / "j", split, rows, cache.settings, seed=3)
    poured = pour(cache.path, journal, cache.settings, {split: rows}, attributes())
    assert poured.rows == {"test": 2, "train": 6}
    now = poured.load("train")
    np.testing.assert_array_equal(now.image, before.image)
    assert now.index.labels.tolist() == before.index.labels.tolist()
    test = poured.load("test")
    assert test.index.labels.tolist() == [-1, -1]
    assert not np.array_equal(test.text[0], before.text[1])  # the same id in another split is another row


@pytest.mark.parametrize("name", ["日本 😀", "caf\udce9", "x" * 200])
def test_names_of_any_kind_come_back(tmp_path: Path, name: str) -> None:
    """A folder's name need not be UTF-8."""
    cache = made_cache(tmp_path, data_name=name)
    assert cache.data_name == name
    assert find_cache(tmp_path, data_name=name).path == cache.path


def test_labels_that_changed_are_carried_over_by_name(tmp_path: Path) -> None:
    """The split that is copied counts by the old list of labels."""
    cache = made_cache(tmp_path)
    rows = made_rows(["test 1"])
    journal = journalled(tmp_path / "j", "test", rows, cache.settings)
    changed = attributes() | {"labels": ["mixed", "positive", "negative"]}
    poured = pour(cache.path, journal, cache.settings, {"test": rows}, changed)
    assert poured.labels == ("mixed", "positive", "negative")
    assert poured.index("train").labels.tolist() == [2, NO_LABEL, 1, 2, NO_LABEL, 1]
