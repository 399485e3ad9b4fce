"""A plain mutator against the loaders: whatever the bytes, they are read or refused with an MmsentError.

Every case follows from (seed, number) alone; a failure names both. Short by default, longer when marked slow:
`pytest tests/system/test_fuzz.py -m slow`; MMSENT_FUZZ_SECONDS and MMSENT_FUZZ_SEED choose how long and where to begin.
"""

from __future__ import annotations

import io
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmsent.config import Clean, ViewSettings
from mmsent.data.dataset import load_dataset
from mmsent.data.encodings import decide_encoding
from mmsent.data.images import open_rgb
from mmsent.data.preprocess import Preprocess
from mmsent.data.text import clean_text, require_text
from mmsent.data.views import make_views
from mmsent.errors import DataError, MmsentError

SEED = int(os.environ.get("MMSENT_FUZZ_SEED", "0"))
SHORT, LONG = 1.5, float(os.environ.get("MMSENT_FUZZ_SECONDS", "20"))
SLOWEST = 5.0  # seconds of processor time that one case may take
TOKENS = [b"\0", b"\r", b"\n", b'"', b",", b"\t", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\xbd", b"../", b"guid,tag"]
TOKENS += [
    b"\x00\x01",
    b"\xff\xff\xff\x7f",
    b"\x80\0\0\0",
    b"1e999",
    b"[[[[",
    b"\\ud83d",
    b"{}",
    b"&#99999999;",
    b"=1+1",
]
HOW = Preprocess(size=8, resize_to=8, mean=(0.5,) * 3, std=(0.5,) * 3)
Target = Callable[[bytes, Path], None]


def mutated(rng: random.Random, seeds: list[bytes]) -> bytes:
    """One of the seeds with a few changes: bits flipped, bytes set, parts cut, doubled, moved in from another seed."""
    raw = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at, length = rng.randrange(len(raw) + 1), rng.choice((1, 2, 4, 8, 64))
        kind = rng.randrange(7)
        if kind == 0 and at < len(raw):
            raw[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(raw):
            raw[at] = rng.randrange(256)
        elif kind == 2:
            del raw[at : at + length]
        elif kind == 3:
            raw[at:at] = raw[at : at + length]
        elif kind == 4:
            raw[at:at] = rng.choice(TOKENS)
        elif kind == 5:
            other = rng.choice(seeds)
            start = rng.randrange(len(other) + 1)
            raw[at : at + length] = other[start : start + length]
        else:
            del raw[at:]
    return bytes(raw)


# --- what is fed, and to whom

LISTS = [
    b"guid,tag\n1,positive\n2,neutral\n",
    b"1,positive\r\n2,neutral\r\n",
    b'guid,tag\n"1",positive\n"a,b",negative\n\n',
    "guid,tag\n好,positive\n".encode("gb18030"),
    "guid,tag\n1,positive\n".encode("utf-16"),
]
MANIFESTS = {
    "csv": [
        b'id,image,text,label,split\n1,1.jpg,"a, ""b""",positive,\n2,,c,,test\n',
        "id,text\r\n1,今天天气\r\n".encode("gb18030"),
    ],
    "tsv": [b"id\ttext\tlabel\n1\ta day\tpositive\n2\tb\tneutral\n"],
    "jsonl": [b'{"id": 1, "image": "1.jpg", "text": "a \\ud83d\\ude00", "label": null}\n{"id": "b", "text": "x"}\n'],
}
TEXTS = [
    "a sunny day 好 😀 http://t.co/x @me #goodMood &amp;".encode(),
    "今天天气很好".encode("gb18030"),
    "今日はいい天気".encode("shift_jis"),
    "день".encode("utf-16"),
    b"RT &#128512; x",
]


def feed_list(raw: bytes, folder: Path) -> None:
    (folder / "data").mkdir(exist_ok=True)
    (folder / "train.txt").write_bytes(raw)
    load_dataset(folder, strict=False)


def feed_manifest(ending: str) -> Target:
    def feed(raw: bytes, folder: Path) -> None:
        path = folder / f"posts.{ending}"
        path.write_bytes(raw)
        data = load_dataset(path, strict=False)
        for post in data.posts:
            try:
                data.text_of(post).encode("utf-8")
            except DataError:
                continue

    return feed


def feed_text(raw: bytes, folder: Path) -> None:
    found = decide_encoding([raw, TEXTS[0]])
    for name in ("", "utf-16-le", "utf-7", "gb18030", "unicode_escape"):
        decoding = decide_encoding([raw], override=name) if name else found
        try:
            text = decoding.decode(raw)
        except UnicodeError:
            continue
        clean_text(require_text(text), tuple(step for step in Clean if step is not Clean.emoji)).encode("utf-8")


def pictures() -> list[bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 4), dtype=np.uint8)
    image, found = Image.fromarray(pixels), []
    Image.init()
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "words"
    for kind, mode, options in (
        ("JPEG", "RGB", {"exif": exif}),
        ("JPEG", "CMYK", {"progressive": True}),
        ("PNG", "RGBA", {"exif": exif}),
        ("PNG", "P", {"transparency": 3}),
        ("PNG", "I;16", {}),
        ("GIF", "P", {"save_all": True, "append_images": [image.convert("P")]}),
        ("WEBP", "RGB", {}),
        ("WEBP", "RGBA", {"lossless": True, "save_all": True, "append_images": [image]}),
        ("BMP", "RGB", {}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("TIFF", "1", {"compression": "group4"}),
        ("TIFF", "LAB", {}),
        ("AVIF", "RGB", {}),
    ):
        if kind not in Image.SAVE:
            continue
        source = image.convert("RGB").convert(mode) if mode not in {"I;16", "LAB"} else Image.new(mode, (24, 20), 999)
        out = io.BytesIO()
        source.save(out, kind, **options)
        found.append(out.getvalue())
    return found


def parquets() -> list[bytes]:
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    rows = [{"id": str(i), "image": "1.jpg", "text": "好 " * 20, "label": "neutral"} for i in range(3)]
    found = []
    for compression in ("none", "snappy"):
        out = io.BytesIO()
        parquet.write_table(pyarrow.Table.from_pylist(rows), out, compression=compression)
        found.append(out.getvalue())
    return found


def feed_picture(raw: bytes, folder: Path) -> None:
    make_views(open_rgb(raw, max_pixels=4_000_000), "id", HOW, ViewSettings(count=1))


TARGETS: dict[str, tuple[Callable[[], list[bytes]], Target]] = {
    "list": (lambda: LISTS, feed_list),
    "text": (lambda: TEXTS, feed_text),
    "picture": (pictures, feed_picture),
    "parquet": (parquets, feed_manifest("parquet")),
    **{ending: ((lambda seeds=seeds: seeds), feed_manifest(ending)) for ending, seeds in MANIFESTS.items()},  # type: ignore[misc]
}


def fuzz(name: str, seconds: float, folder: Path, seed: int = SEED) -> tuple[int, int]:
    """Feed mutated seeds for some seconds. Returns how many were read and how many refused."""
    make, feed = TARGETS[name]
    seeds = make()
    for raw in seeds:
        feed(raw, folder)  # the seeds themselves are sound
    read = refused = number = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        raw = mutated(random.Random(f"{name} {seed} {number}"), seeds)
        started = time.process_time()
        try:
            feed(raw, folder)
            read += 1
        except MmsentError:
            refused += 1
        except BaseException as error:
            raise AssertionError(f"{name}, seed {seed}, case {number}: {error!r} of {raw!r}") from error
        took = time.process_time() - started
        assert took < SLOWEST, f"{name}, seed {seed}, case {number}: {took:.1f} s for {raw!r}"
        number += 1
    return read, refused


@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", TARGETS)
def test_loaders_raise_nothing_else(name: str, tmp_path: Path) -> None:
    read, refused = fuzz(name, SHORT, tmp_path)
    assert read + refused > 20
    assert refused > 0 or name == "list"  # a list keeps its problems for `mmsent check`


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TARGETS)
def test_loaders_raise_nothing_else_for_long(name: str, tmp_path: Path) -> None:
    read, refused = fuzz(name, LONG, tmp_path, SEED + 1)
    print(f"{name}: {read} read, {refused} refused")
    assert read + refused > 200


def test_the_mutator_finds_a_planted_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def weak(raw: bytes, folder: Path) -> None:
        if b"\xff\xfe" in raw:
            raise KeyError("planted")

    monkeypatch.setitem(TARGETS, "weak", (lambda: [b"abc"], weak))
    with pytest.raises(AssertionError, match=r"weak, seed 0, case \d+: KeyError\('planted'\)"):
        fuzz("weak", 20, tmp_path, 0)
