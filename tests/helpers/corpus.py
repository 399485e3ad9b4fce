"""The corpus of hostile and odd input: each item makes a small data set around itself and states its outcome.

    python -m tests.helpers.corpus --write docs/robustness.md   runs every item and writes the table
    python -m tests.helpers.corpus --make FOLDER                leaves the data sets in FOLDER to look at

Outcomes: *used*, both halves of the post are encoded; *half post*, the only one that its row names; *quarantined*, the
post is set aside with its reason and all others are used; *refused*, nothing is encoded and an error says what to mend.
"""

from __future__ import annotations

import argparse
import codecs
import contextlib
import csv
import functools
import hashlib
import io
import json
import os
import re
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args
from unittest import mock

import numpy as np
import typer.main
from PIL import Image, ImageCms

from mmsent.cli.app import whole_program
from mmsent.cli.main import main
from mmsent.data.images import MAX_BYTES, as_pixels
from mmsent.data.preprocess import fit_square
from mmsent.data.text import MAX_BYTES as MAX_TEXT_BYTES
from mmsent.data.text import text_hash
from mmsent.features.cache import Cache
from tests.helpers.fake import PREPROCESS, FakeImageEncoder, fake_encoders

Outcome = Literal["used", "half post", "quarantined", "refused"]
ODD = "odd"
LABELS = ("negative", "neutral", "positive")
TEXTS = {  # twelve sound texts, enough beyond ASCII to tell the encodings apart
    "utf-8": "Ein schöner Tag für alle, die grüne Wiesen mögen …",
    "gb18030": "今天天气很好，我们去公园玩，大家都很开心。",
    "big5": "今天天氣很好，我們去公園玩，大家都很開心。",
    "shift_jis": "今日はとても天気がいいので、みんなで公園に行きました。",
    "euc_kr": "오늘 날씨가 정말 좋아서 모두 함께 공원에 갔어요.",
    "cp1251": "Сегодня очень хорошая погода, мы все пошли в парк.",
    "cp1252": "Il fait très beau aujourd’hui, nous sommes allés au parc à côté.",
}


@dataclass(frozen=True)
class Item:
    """One odd thing. build: writes the data set into a folder that exists, and returns what --data takes; odd: the id
    of the post in question, None where it is the list as a whole. says: what the message of a post that is quarantined
    or refused must match; for a post that is used, what is done with it. like, becomes: what a used post's picture and
    text must equal."""

    kind: str
    name: str
    outcome: Outcome
    says: str
    build: Callable[[Path], Path]
    odd: str | None = ODD
    like: Image.Image | None = None
    becomes: str | None = None
    finds: str = ""  # a kind of finding that `mmsent check` must show
    slug: str = ""


ITEMS: list[Item] = []


def add(kind: str, name: str, outcome: Outcome, says: str, build: Callable[[Path], Path], **more: Any) -> None:
    """Put an item into the corpus."""
    ITEMS.append(Item(kind, name, outcome, says, build, slug=f"{len(ITEMS):03d}-{kind}", **more))


# --- the sound data set around


def scene(width: int = 48, height: int = 48) -> Image.Image:
    """A picture that looks different from every side."""
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([across, down, np.full_like(across, 90)], axis=-1).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """A picture's bytes in a format."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def sound(folder: Path, encoding: str = "utf-8", ids: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    """Twelve sound posts in the guid layout, and files for further ids. Returns the rows of train.txt, not written."""
    data = folder / "data"
    data.mkdir()
    rows = []
    for i, name in enumerate([*(str(k) for k in range(1, 13)), *ids]):
        noise = np.random.default_rng(i).integers(0, 256, (5, 5, 3), dtype=np.uint8)
        shown = Image.fromarray(noise).resize((40, 40), Image.Resampling.NEAREST)
        (data / f"{name}.jpg").write_bytes(encoded(shown, "JPEG"))
        (data / f"{name}.txt").write_bytes(f"{TEXTS[encoding]} {i}".encode(encoding))
        rows.append((name, LABELS[i % 3]))
    return rows


def write_list(folder: Path, rows: list[tuple[str, str]]) -> Path:
    """train.txt, as it should be."""
    (folder / "train.txt").write_text("guid,tag\n" + "".join(f"{a},{b}\n" for a, b in rows), encoding="utf-8")
    return folder


def guid(change: Callable[[Path], None], encoding: str = "utf-8") -> Callable[[Path], Path]:
    """A sound data set with a post called odd, whose files in data/ `change` may replace."""

    def build(folder: Path) -> Path:
        rows = sound(folder, encoding, (ODD,))
        change(folder / "data")
        return write_list(folder, rows)

    return build


# --- pictures


def picture(name: str, outcome: Outcome, says: str, raw: Callable[[], bytes], ending: str = "jpg", **more: Any) -> None:
    def change(data: Path) -> None:
        (data / f"{ODD}.jpg").unlink()
        (data / f"{ODD}.{ending}").write_bytes(raw())

    add("picture", name, outcome, says, guid(change), **more)


def with_exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(scene(64, 32), "JPEG", exif=exif, quality=95)


def frames(kind: str) -> bytes:
    others = [Image.new("RGB", (48, 48), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    lossless = {"lossless": True} if kind == "WEBP" else {}
    return encoded(scene(), kind, save_all=True, append_images=others, **lossless)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, colour: int, lines: bytes, extra: bytes = b"") -> bytes:
    """A PNG by hand. lines: uncompressed, each with its filter byte."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = png_chunk(b"IDAT", zlib.compress(lines, 9))
    return b"\x89PNG\r\n\x1a\n" + header + extra + body + png_chunk(b"IEND", b"")


def deep_rgb() -> bytes:
    """16 bits a channel: the scene times 257."""
    values = as_pixels(scene()).astype(np.uint16) * 257
    return png(48, 48, 16, 2, b"".join(b"\0" + row.astype(">u2").tobytes() for row in values))


def bomb(side: int) -> bytes:
    """A PNG of side x side bits, all zero; a few hundred kilobytes at most."""
    return png(side, side, 1, 0, bytes((side // 8 + 1) * side))


def palette() -> bytes:
    image = Image.new("P", (48, 48), 0)
    image.putpalette([10, 200, 30, 40, 50, 60])
    image.paste(1, (24, 0, 48, 48))
    return encoded(image, transparency=1)


def over_white() -> Image.Image:
    image = Image.new("RGB", (48, 48), (10, 200, 30))
    image.paste((255, 255, 255), (24, 0, 48, 48))
    return image


def grey(image: Image.Image) -> Image.Image:
    return image.convert("L")


def sixteen_bit() -> bytes:
    return encoded(Image.fromarray(np.asarray(grey(scene())).astype(np.uint16) * 257))


def half_through() -> bytes:
    image = scene().convert("RGBA")
    image.putalpha(128)
    return encoded(image)


def icc() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()


def damaged_exif() -> bytes:
    """Orientation 6 beside a resolution that is a text, which Pillow's own exif_transpose stumbles over."""
    tags = struct.pack("<HHII", 0x0112, 3, 1, 6) + struct.pack("<HHI4s", 0x011A, 2, 4, b"72\0\0")
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + tags + bytes(4)
    return encoded(scene(64, 32), "JPEG", quality=95, exif=exif)


STRIP = Image.new("RGB", (1, 20_000), (200, 60, 20))

picture("truncated JPEG", "quarantined", "picture cannot be decoded", lambda: encoded(scene(400, 400), "JPEG")[:3000])
picture(
    "JPEG without its last two bytes",
    "used",
    "as it is, for no pixel is missing",
    lambda: encoded(scene(), "JPEG", quality=95)[:-2],
    like=scene(),
    finds="mended picture",
)
picture(
    "PNG with a colour profile of 2 MB",
    "used",
    "without the profile",
    lambda: encoded(scene(), icc_profile=bytes(2_000_000)),
    like=scene(),
    ending="png",
)
picture(
    "TIFF of 32-bit integers 0 to 255",
    "used",
    "as 8 bits",
    lambda: encoded(Image.fromarray(np.asarray(scene().convert("L")).astype(np.int32)), "TIFF"),
    like=scene().convert("L").convert("RGB"),
    ending="tif",
)
picture(
    "TIFF of 32-bit integers beyond 255",
    "quarantined",
    "picture has 32-bit samples beyond 0..255; convert it to 8 bits",
    lambda: encoded(Image.fromarray(np.asarray(scene().convert("L")).astype(np.int32) * 9), "TIFF"),
    ending="tif",
)
picture(
    "truncated PNG", "quarantined", "picture cannot be decoded", lambda: encoded(scene(400, 400))[:600], ending="png"
)
picture("0 bytes", "quarantined", "picture file is empty", lambda: b"")
picture("a PNG called .jpg", "used", "the bytes tell the format", lambda: encoded(scene()), like=scene())
picture(
    "a web page called .jpg",
    "quarantined",
    "not a picture in a supported format",
    lambda: b"<html>404 not found</html>",
)
picture(
    "an EPS called .jpg",
    "quarantined",
    "not a picture in a supported format",  # Pillow would start Ghostscript
    lambda: encoded(scene(), "EPS"),
)
picture(
    "an SVG called .png",
    "quarantined",
    "not a picture in a supported format",
    lambda: b"<svg onload='x()'/>",
    ending="png",
)
picture(
    "CMYK JPEG",
    "used",
    "turned to RGB",
    lambda: encoded(scene().convert("CMYK"), "JPEG", quality=95),
    like=scene(),
)
picture("16-bit grey PNG", "used", "scaled to 8 bits", sixteen_bit, like=grey(scene()).convert("RGB"), ending="png")
picture("16-bit colour PNG", "used", "scaled to 8 bits", deep_rgb, like=scene(), ending="png")
picture("palette with transparency", "used", "over white", palette, like=over_white(), ending="png")
picture(
    "half transparent PNG",
    "used",
    "over white",
    half_through,
    like=Image.blend(Image.new("RGB", (48, 48), (255, 255, 255)), scene(), 128 / 255),
    ending="png",
)
picture("animated GIF", "used", "first frame", lambda: frames("GIF"), like=scene(), ending="gif")
picture("animated WebP", "used", "first frame", lambda: frames("WEBP"), like=scene(), ending="webp")
picture("animated PNG", "used", "first frame", lambda: frames("PNG"), like=scene(), ending="png")
picture("TIFF with three pages", "used", "first page", lambda: frames("TIFF"), like=scene(), ending="tif")
picture(
    "TIFF of floating-point samples",
    "quarantined",
    "picture has floating-point samples; convert it to 8 bits",
    lambda: encoded(Image.fromarray(np.ones((8, 8), np.float32)), "TIFF"),
    ending="tif",
)
for number, turn in ((3, Image.Transpose.ROTATE_180), (6, Image.Transpose.ROTATE_270), (8, Image.Transpose.ROTATE_90)):
    picture(
        f"EXIF orientation {number}",
        "used",
        "turned upright",
        lambda number=number: with_exif(number),  # type: ignore[misc]
        like=scene(64, 32).transpose(turn),
    )
picture(
    "EXIF orientation 6 among damaged tags",
    "used",
    "turned upright",
    damaged_exif,
    like=scene(64, 32).transpose(Image.Transpose.ROTATE_270),
)
picture(
    "EXIF that is no EXIF",
    "used",
    "as stored",
    lambda: encoded(scene(), "JPEG", quality=95, exif=b"Exif\0\0" + b"\xff" * 40),
    like=scene(),
)
picture("bomb: 20000 x 20000 in 50 kB", "quarantined", "too many pixels; the limit is", lambda: bomb(20_000))
picture("bomb: 12000 x 12000", "quarantined", "12000x12000 pixels; the limit is 100000000", lambda: bomb(12_000))
picture(
    "PNG whose comment unpacks to 100 MB",
    "used",
    "without the comment",
    lambda: png(
        4, 4, 8, 0, (b"\0" + bytes(4)) * 4, png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(100 << 20), 9))
    ),
)
picture("1 x 1", "used", "enlarged", lambda: encoded(Image.new("RGB", (1, 1), (200, 60, 20))), finds="tiny picture")
picture("1 x 20000", "used", "its middle", lambda: encoded(STRIP), like=STRIP.crop((0, 0, 1, 1)), ending="png")
picture("20000 x 1", "used", "its middle", lambda: encoded(STRIP.transpose(Image.Transpose.ROTATE_90)), ending="png")
picture(
    "ICC profile",
    "used",
    "as stored: the encoders were trained on such pixels",
    lambda: encoded(scene(), icc_profile=icc()),
    like=scene(),
    ending="png",
)
picture("damaged ICC profile", "used", "as stored", lambda: encoded(scene(), icc_profile=b"\xff" * 99), like=scene())
picture("bytes behind the end", "used", "left unread", lambda: encoded(scene()) + b"PK\3\4" + bytes(999), like=scene())


def larger_than_the_limit(data: Path) -> None:
    with (data / f"{ODD}.jpg").open("r+b") as file:
        file.truncate(MAX_BYTES + 1)  # sparse: takes no room


def odd_ending(name: str) -> Callable[[Path], None]:
    def change(data: Path) -> None:
        (data / f"{ODD}.jpg").write_bytes(encoded(scene(), "JPEG", quality=95))
        (data / f"{ODD}.{name}").write_bytes(encoded(Image.new("RGB", (9, 9))))

    return change


def instead(ending: str, make: Callable[[Path], object]) -> Callable[[Path], Path]:
    """The odd post's file with this ending is something else."""

    def change(data: Path) -> None:
        (data / f"{ODD}.{ending}").unlink()
        make(data / f"{ODD}.{ending}")

    return guid(change)


LARGE = f"it has {MAX_BYTES + 1} bytes; the limit is {MAX_BYTES}"
add("picture", "larger than 256 MiB", "quarantined", LARGE, guid(larger_than_the_limit), finds="picture too large")
add("picture", "two for one id", "used", "the JPEG", guid(odd_ending("png")), like=scene(), finds="two pictures")
add("picture", "none", "quarantined", r"no file /in/data/odd\.\*", instead("jpg", lambda path: None))
add("picture", "a folder", "quarantined", "picture cannot be read: Is a directory", instead("jpg", Path.mkdir))
add("picture", "a pipe", "quarantined", "not a regular file but a pipe, socket or device", instead("jpg", os.mkfifo))


# --- texts


def text(
    name: str, outcome: Outcome, says: str, raw: bytes, becomes: str | None = None, set_is: str = "utf-8", **more: Any
) -> None:
    def change(data: Path) -> None:
        (data / f"{ODD}.txt").write_bytes(raw)

    add("text", name, outcome, says, guid(change, set_is), becomes=becomes, **more)


for codec, words in TEXTS.items():
    title = {"utf-8": "UTF-8", "gb18030": "GB18030", "big5": "Big5", "shift_jis": "Shift-JIS", "euc_kr": "EUC-KR"}
    title |= {"cp1251": "Windows-1251", "cp1252": "Windows-1252"}
    text(f"all in {title[codec]}", "used", f"read as {codec}", words.encode(codec), becomes=words, set_is=codec)
HELLO = "schöner Tag 好 😀"
for mark, codec, title_ in (
    (codecs.BOM_UTF8, "utf-8", "UTF-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le", "UTF-16-LE"),
    (codecs.BOM_UTF16_BE, "utf-16-be", "UTF-16-BE"),
    (codecs.BOM_UTF32_LE, "utf-32-le", "UTF-32-LE"),
):
    text(f"{title_} with a byte order mark, among UTF-8", "used", "the mark decides", mark + HELLO.encode(codec), HELLO)
text(
    "UTF-16 cut in a character", "quarantined", "text is not utf-16", codecs.BOM_UTF16_LE + "好".encode("utf-16-le")[:1]
)
text(
    "UTF-16 without a mark, among UTF-8",
    "quarantined",
    "text holds NUL characters.*UTF-16",
    "a day".encode("utf-16-le"),
)
text("GB18030 among UTF-8", "quarantined", "text is not utf-8", "今天天气很好".encode("gb18030"))
text("a NUL inside", "quarantined", "text holds NUL characters", b"a\0b")
text("half a surrogate pair (CESU-8)", "quarantined", "text is not utf-8", b"a \xed\xa0\xbd b")
RTL = "\u202eevil\u202c \u200fשלום\u200f مرحبا \u2066x\u2069"
text("right-to-left marks", "used", "as it is", RTL.encode(), RTL)
LONG = ("sunny " * 200_000)[: 1 << 20].strip()
text("1 MB in one line", "used", "cut at the encoder's length, and counted", LONG.encode(), LONG)
text("1 MB in one word", "used", "cut at the encoder's length", b"x" * (1 << 20), "x" * (1 << 20))
text(
    "larger than 16 MiB",
    "quarantined",
    f"it has {MAX_TEXT_BYTES + 1} bytes; the limit is {MAX_TEXT_BYTES}",
    b"x" * (MAX_TEXT_BYTES + 1),
)
text("empty", "used", "as an empty text", b"", "", finds="empty text")
text("blanks only", "used", "as an empty text", b" \r\n\t \n", "", finds="empty text")
text("emoji only", "used", "as it is", "😀👨‍👩‍👧🏳️‍🌈".encode(), "😀👨‍👩‍👧🏳️‍🌈", finds="bare text")
text("a formula", "used", "as it is; tables escape it", b"=cmd|' /C calc'!A0", "=cmd|' /C calc'!A0")
text("markup", "used", "as it is; pages escape it", b"<script>alert(1)</script>", "<script>alert(1)</script>")
text("terminal escapes", "used", "as it is", b"\x1b[31mred\x07", "\x1b[31mred\x07")
text("a character reference of 5000 digits", "used", "as it is", b"&#" + b"1" * 5000 + b";", "&#" + "1" * 5000 + ";")
add(
    "text", "none", "quarantined", r"no file /in/data/odd\.txt", instead("txt", lambda path: None), finds="missing text"
)
add("text", "a folder", "quarantined", "text cannot be read: Is a directory", instead("txt", Path.mkdir))
add("text", "a pipe", "quarantined", "not a regular file but a pipe, socket or device", instead("txt", os.mkfifo))


# --- lists


def listed(
    name: str, outcome: Outcome, says: str, form: Callable[[str], bytes], odd: str | None = ODD, **more: Any
) -> None:
    """form: from the sound list of the posts and the odd one, "guid,tag" lines, to the bytes of train.txt."""

    def build(folder: Path) -> Path:
        rows = sound(folder, ids=(odd,) if odd is not None else (ODD,))
        lines = "".join(f'"{a}",{b}\n' if "," in a else f"{a},{b}\n" for a, b in rows)
        (folder / "train.txt").write_bytes(form("guid,tag\n" + lines))
        return folder

    add("list", name, outcome, says, build, odd=odd, **more)


def plus(line: str) -> Callable[[str], bytes]:
    return lambda lines: (lines + line).encode()


listed("CRLF", "used", "as LF; predictions.txt has CRLF too", lambda s: s.replace("\n", "\r\n").encode())
listed("CR alone", "used", "as LF", lambda s: s.replace("\n", "\r").encode())
listed("UTF-8 with a byte order mark", "used", "without the mark", lambda s: codecs.BOM_UTF8 + s.encode())
listed("UTF-16 with a byte order mark", "used", "the mark decides", lambda s: s.encode("utf-16"))
listed(
    "UTF-16 without a mark",
    "refused",
    "NUL characters.*UTF-16 without a byte order mark",
    lambda s: s.encode("utf-16-le"),
)
listed("blank lines", "used", "skipped", lambda s: s.replace("\n", "\n\n  \n,\n").encode())
listed("no header, no last line end", "used", "as with them", lambda s: s.removeprefix("guid,tag\n").rstrip().encode())
listed("blanks around fields", "used", "stripped", lambda s: s.replace(",", " ,  ").replace("\n", " \n").encode())
listed("every field quoted", "used", "unquoted", lambda s: re.sub(r"([^,\n]+)", r'"\1"', s).encode())
listed("a comma in a quoted id", "used", "part of the id", str.encode, odd="a,b")
listed("duplicate id", "refused", "this id stands twice in its list", plus("odd,neutral\n"), odd=None)
for marks, shown_as in ((";", "semicolons"), ("\t", "tabs")):
    listed(f"{shown_as} for commas", "used", "as commas", lambda s, marks=marks: s.replace(",", marks).encode())
listed("empty fields at the ends", "used", "left out", lambda s: s.replace("\n", ",,\n").encode())
listed("three fields", "refused", "expected 'guid,tag', got 3 fields", plus("x,neutral,y\n"), odd=None)
listed("one field", "refused", "expected 'guid,tag', got 1 field", plus("x\n"), odd=None)
listed(
    "a quote that never ends", "refused", "expected 'guid,tag', got 1 field", plus('"x,neutral\ny,neutral\n'), odd=None
)
listed("unknown label", "refused", "label 'joyful' is not one of", plus("13,joyful\n"), odd=None)
listed("a training row without a label", "refused", "a training row has no label", plus("13,null\n"), odd=None)
listed("a NUL in an id", "refused", "holds a control character", plus("1\x003,neutral\n"), odd=None)
listed("empty", "refused", "holds no posts", lambda s: b"", odd=None)
listed("header only", "refused", "holds no posts", lambda s: b"guid,tag\n", odd=None)
listed(
    "not text at all",
    "refused",
    r"is not utf-8 text: .*; pass --text-encoding",
    lambda s: bytes(range(1, 256)) * 9,
    odd=None,
)


def both_splits(folder: Path) -> Path:
    write_list(folder, sound(folder, ids=(ODD,)))
    (folder / "test_without_label.txt").write_text("odd,null\n")
    return folder


add("list", "an id in both splits", "used", "with a warning", both_splits, finds="id in both splits")


# --- ids


def identified(name: str, outcome: Outcome, says: str, odd: str, files: bool = True, layout: str = "guid") -> None:
    def in_guid(folder: Path) -> Path:
        rows = sound(folder, ids=(odd,) if files else ())
        return write_list(folder, rows if files else [*rows, (odd, "neutral")])

    def in_manifest(folder: Path) -> Path:
        return manifest_of(folder, {"id": odd})

    where = " in a manifest" if layout == "manifest" else ""
    add("id", name + where, outcome, says, in_guid if layout == "guid" else in_manifest, odd=odd)


def manifest_of(folder: Path, change: dict[str, Any], ending: str = "jsonl") -> Path:
    """A manifest of the sound posts, and of the odd post with some cells changed."""
    rows: list[dict[str, Any]] = [
        {"id": a, "image": f"data/{a}.jpg", "text": TEXTS["utf-8"] + a, "label": b}
        for a, b in sound(folder, ids=(ODD,))
    ]
    rows[-1] |= change
    path = folder / f"posts.{ending}"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


for bad in ("../../x", "a/b", "a\\b", ".."):
    identified(f"`{bad}`", "refused", "holds a path separator", bad, files=False)
identified("10 kB long", "refused", "is longer than 255 bytes", "x" * 10_240, files=False)
identified("right-to-left override", "refused", "holds a control character", "a\u202eb", files=False)
identified("empty", "refused", "is empty", "", files=False)
for fine in ("con", ".hidden", "-rf", "$(x)", "=1+1", "好 😀"):
    identified(f"`{fine}`", "used", "as it is", fine)
for fine in ("../../x", "a/b", "con", "=1+1"):
    identified(f"`{fine}`", "used", "names no file there", fine, layout="manifest")
identified("10 kB long", "refused", "is longer than 255 bytes", "x" * 10_240, layout="manifest")
identified("half a surrogate pair", "refused", "half a surrogate pair", "a\ud83d", layout="manifest")


# --- manifests


def manifest(
    name: str, outcome: Outcome, says: str, raw: bytes | Callable[[Path], bytes], ending: str, **more: Any
) -> None:
    """raw: the file's bytes, written beside data/; the odd post's picture is data/odd.jpg."""

    def build(folder: Path) -> Path:
        sound(folder, ids=(ODD,))
        path = folder / f"posts.{ending}"
        path.write_bytes(raw if isinstance(raw, bytes) else raw(folder))
        return path

    add("manifest", name, outcome, says, build, **more)


def table(odd: str, delimiter: str = ",", newline: str = "\n") -> str:
    """A CSV of the sound posts, and a last line for the odd one."""
    head = ["id", "image", "text", "label"]
    lines = [head, *([str(i), f"data/{i}.jpg", f"a day {i}", LABELS[i % 3]] for i in range(1, 13))]
    return newline.join([*(delimiter.join(line) for line in lines), odd]) + newline


MARKED = codecs.BOM_UTF8 + table("odd,data/odd.jpg,a day,neutral", newline="\r\n").encode()
manifest("CSV with a byte order mark and CRLF", "used", "without them", MARKED, "csv", becomes="a day")
manifest(
    "CSV with commas, quotes and line ends in a cell",
    "used",
    "part of the text",
    table('odd,data/odd.jpg,"a, ""b""\r\nc\rd",neutral').encode(),
    "csv",
    becomes='a, "b"\r\nc\rd',
)
manifest(
    "CSV with a column that stands twice",
    "refused",
    "column 'text' stands twice",
    b"id,text,text\n1,a,b\n",
    "csv",
    odd=None,
)
manifest(
    "CSV with semicolons and empty cells at the ends, as spreadsheets save it",
    "used",
    "as with commas",
    table("odd,data/odd.jpg,a day,neutral").replace("\n", ",,\n").replace(",", ";").encode(),
    "csv",
    becomes="a day",
)
manifest(
    "CSV columns in other case and with blanks",
    "used",
    "as `id`, `image`, `text` and `label`",
    table("odd,data/odd.jpg,a day,neutral").replace("id,image,text,label", "ID, Image,text ,LABEL").encode(),
    "csv",
    becomes="a day",
)
manifest(
    "TSV with a quote at the start of one row and the end of another",
    "used",
    "as characters",
    table('odd\tdata/odd.jpg\t"a day\tneutral\n13\tdata/1.jpg\tlast"\tneutral', "\t").encode(),
    "tsv",
    becomes='"a day',
)
manifest(
    "JSON array",
    "used",
    "as JSON lines",
    json.dumps(list(csv.DictReader(table("odd,data/odd.jpg,a day,neutral").splitlines())), indent=1).encode(),
    "json",
    becomes="a day",
)
manifest(
    "JSON object with a key that stands twice",
    "refused",
    "'text' stands twice in one object",
    b'{"id": 1, "text": "a", "text": "b"}\n',
    "jsonl",
    odd=None,
)
manifest("CSV row of five cells", "refused", "fields differs", table("odd,x,a,neutral,e").encode(), "csv", odd=None)
manifest("CSV quote that never ends", "refused", "not readable as CSV", table('odd,x,"a').encode(), "csv", odd=None)
manifest("CSV without the column id", "refused", "no column 'id'", b"key,text\n1,a\n", "csv", odd=None)
manifest("CSV in UTF-16 without a mark", "refused", "NUL characters", table("").encode("utf-16-le"), "csv", odd=None)
manifest(
    "JSON lines nested 100,000 deep", "refused", "not a JSON object", b'{"id":' + b"[" * 100_000, "jsonl", odd=None
)
manifest("JSON array of numbers", "refused", "expected a JSON object, got int", b"[1]\n", "jsonl", odd=None)


def changed(name: str, outcome: Outcome, says: str, change: dict[str, Any], **more: Any) -> None:
    add("manifest", name, outcome, says, lambda folder: manifest_of(folder, change), **more)


changed("half a surrogate pair in a text", "quarantined", "half a surrogate pair", {"text": "a \ud83d"})
changed("a NUL in a text", "quarantined", "text holds NUL characters", {"text": "a\0b"})
changed("a list as a text", "refused", "column 'text' holds a list; expected a text", {"text": ["a"]}, odd=None)
changed("no text", "half post", "no text", {"text": None}, finds="posts with no text")
changed("a label that is half a surrogate pair", "refused", "is not one of", {"label": "\ud83d"}, odd=None)
changed("an unknown split", "refused", "split 'fold2' is neither 'train' nor 'test'", {"split": "fold2"}, odd=None)
changed("no picture", "half post", "no picture", {"image": None}, finds="posts with no picture")
changed("a picture path to nowhere", "quarantined", r"no file /in/data/even\.jpg", {"image": "data/even.jpg"})
changed("a picture path in capitals", "used", "read where it lies", {"image": "data/odd.JPG"})
changed("a picture path without its ending", "used", "read where it lies", {"image": "data/odd"})
changed("a picture path of 10 kB", "quarantined", "no file …x+", {"image": "x" * 10_240})
changed("a picture path with a NUL", "quarantined", "picture cannot be read: no such path", {"image": "data/odd\0.jpg"})
for written, shown_as in (
    ("data\\odd.jpg", "with backslashes"),
    (" data/odd.jpg ", "with blanks around it"),
    ("data/%6Fdd.jpg", "percent-encoded"),
):
    changed(f"a picture path {shown_as}", "used", "read where it lies", {"image": written})
changed("blanks around a label", "used", "stripped", {"label": " neutral "})
changed("a label in capitals", "used", "as `neutral`, with a note", {"label": "NEUTRAL"})
changed(
    "a picture that is a URL",
    "refused",
    "is at a URL; --remote https allows",
    {"image": "https://example.org/x.jpg"},
    odd=None,
)
changed("a picture path with ..", "used", "read where it lies", {"image": "../in/data/odd.jpg"})


def parquet(rows: list[dict[str, Any]], cut: int | None = None) -> Callable[[Path], bytes]:
    def make(folder: Path) -> bytes:
        import pyarrow as pa
        from pyarrow import parquet as pq

        out = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), out)
        return out.getvalue()[:cut]

    return make


ROW = {"id": "odd", "image": "data/odd.jpg", "text": "a day", "label": "neutral"}
manifest("Parquet cut in the middle", "refused", "not readable as Parquet", parquet([ROW], 300), "parquet", odd=None)
manifest(
    "Parquet with pictures as bytes, which are none",
    "quarantined",
    "not a picture in a supported format",
    parquet([ROW | {"image": {"bytes": b"x", "path": "x.jpg"}}]),
    "parquet",
)


# --- links


def linked(name: str, outcome: Outcome, says: str, ending: str, target: str, **more: Any) -> None:
    """The odd post's file is a link; OUTSIDE is a folder beside the data set, with outside.jpg and outside.txt."""

    def make(path: Path) -> None:
        outside = path.parent.parent.parent / "outside"
        outside.mkdir()
        (outside / "outside.jpg").write_bytes(encoded(scene(), "JPEG", quality=95))
        (outside / "outside.txt").write_bytes(b"from outside")
        path.symlink_to(target.replace("OUTSIDE", str(outside)))

    add("link", name, outcome, says, instead(ending, make), **more)


def data_elsewhere(folder: Path) -> Path:
    """data/ is itself a link, to another disk say."""
    rows = sound(folder, ids=(ODD,))
    (folder / "data").rename(folder.parent / "elsewhere")
    (folder / "data").symlink_to(folder.parent / "elsewhere")
    return write_list(folder, rows)


linked("a picture, to a file inside", "used", "followed", "jpg", "1.jpg")
linked(
    "a picture, to a file outside", "used", "followed, with a warning", "jpg", "OUTSIDE/outside.jpg",
    like=scene(), finds="link to outside",
)  # fmt: skip
linked(
    "a text, to a file outside", "used", "followed, with a warning", "txt", "OUTSIDE/outside.txt",
    becomes="from outside", finds="link to outside",
)  # fmt: skip
add("link", "data/, to another folder", "used", "followed", data_elsewhere)
linked("a picture, to nowhere", "quarantined", "picture cannot be read: No such file", "jpg", "nowhere.jpg")
linked("a picture, to itself", "quarantined", "picture cannot be read: Too many levels", "jpg", "odd.jpg")
linked("a picture, to /dev/zero", "quarantined", "not a regular file but a pipe, socket or device", "jpg", "/dev/zero")
linked("a text, to /dev/zero", "quarantined", "not a regular file but a pipe, socket or device", "txt", "/dev/zero")
linked("a picture, to a folder", "quarantined", "picture cannot be read: Is a directory", "jpg", "OUTSIDE")


# --- running an item


@dataclass(frozen=True)
class Seen:
    """What became of an item. findings: the kinds that `mmsent check` names; problems: what must not be."""

    outcome: Outcome
    message: str
    check: int
    findings: tuple[str, ...]
    problems: tuple[str, ...]


def snapshot(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Everything below a folder but what lies in its out/: kind, size, time and content; links as links."""
    found = {}
    for place, folders, files in os.walk(folder):
        if Path(place) == folder:
            folders[:] = [name for name in folders if name != "out"]
        for name in [*folders, *files]:
            path = Path(place) / name
            about = path.lstat()
            content: Any = os.readlink(path) if path.is_symlink() else None
            if content is None and path.is_file() and about.st_size < 32 << 20:
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            found[str(path.relative_to(folder))] = (about.st_mode, about.st_size, about.st_mtime_ns, content)
    return found


def run(*arguments: str) -> tuple[int, str, str]:
    """The command line in this process: exit status, standard output, standard error."""
    out, err = io.StringIO(), io.StringIO()
    status: Any = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as stopped:
            status = stopped.code
    return int(status or 0), out.getvalue(), err.getvalue()


@contextlib.contextmanager
def fakes() -> Iterator[None]:
    """mmsent with the encoders of fake.py, and its parser built once: that takes longer than most commands."""
    with (
        mock.patch("mmsent.features.extract.open_encoders", side_effect=lambda _: fake_encoders()),
        mock.patch("mmsent.cli.main.program", return_value=parser()),
    ):
        yield


@functools.cache
def parser() -> Any:
    return typer.main.get_command(whole_program())


def observe(item: Item, folder: Path) -> Seen:
    """Make an item's data set in `folder`/in and run check, extract and prepare on it, with output in `folder`/out."""
    (folder / "in").mkdir(parents=True)
    (folder / "work").mkdir()
    data = str(item.build(folder / "in"))
    out = folder / "out"
    before = snapshot(folder)
    with fakes(), contextlib.chdir(folder / "work"):
        cache = ["--cache", str(out / "cache"), "--views", "0", "--max-bad", "1", "--workers", "1"]
        checked, report, check_words = run("check", "--data", data, "--no-tokens", "--json")
        _, _, table_words = run("check", "--data", data, "--no-tokens")
        extracted, told, words = run("extract", "--data", data, *cache)
        _, _, prepared = run("prepare", "--data", data, "--out", str(out / "copy"))
    every = (check_words, table_words, words, prepared)
    problems = [w for w in every if "Traceback" in w or "this is a bug" in w]
    after = snapshot(folder)
    problems += [f"changed: {k}" for k in before.keys() | after.keys() if before.get(k) != after.get(k)]
    findings = tuple(f["kind"] for f in json.loads(report)["findings"]) if report else ()
    if extracted:
        return Seen("refused", shown(words, folder), checked, findings, tuple(problems))
    stored = Cache.open(next((out / "cache").glob("*.h5")))
    index = stored.index("train")
    good = [i for i in range(len(index)) if index.good[i]]
    if item.odd is None:
        return Seen("used", "", checked, findings, tuple(problems))
    row = index.ids.index(item.odd)
    if len(good) + (row not in good) < len(index):
        problems.append("a sound post was set aside")
    if row not in good:
        lost: Outcome = "half post" if "heads train on their other half" in told else "quarantined"
        return Seen(lost, shown(index.reason(row), folder), checked, findings, tuple(problems))
    if item.becomes is not None and index.text_hashes[row] != text_hash(item.becomes):
        problems.append(f"the text is not {item.becomes[:60]!r}")
    if item.like is not None:
        want = FakeImageEncoder().encode(as_pixels(fit_square(item.like, PREPROCESS))[None])[0]
        apart = float(np.abs(stored.embeddings("train", [row])[0][0, 0] - want).max())
        if apart > 0.03:
            problems.append(f"the picture is {apart:.2f} away from what it should look like")
    return Seen("used", item.says, checked, findings, tuple(problems))


# Words of Pillow, Python and Arrow that differ from version to version.
FOREIGN = re.compile(
    r"(picture cannot be decoded|not a JSON (?:object|array)|not readable as (?:Parquet|CSV)): .*", re.DOTALL
)


def shown(words: str, folder: Path) -> str:
    """A message without its program name and without the folder's place."""
    lines = [line for line in words.splitlines() if line]
    text = (lines[-1] if lines else "").removeprefix("mmsent: ")
    text = text.replace(str(folder.resolve()), "").replace(str(folder), "")
    return FOREIGN.sub(r"\1: …", text).strip()


# --- the table


def cell(words: str, longest: int = 220) -> str:
    """A message as a cell of a Markdown table."""
    cut = words if len(words) <= longest else words[: longest - 1] + "…"
    plain = "".join(c if c.isprintable() else "?" for c in cut)
    return plain.replace("|", "\\|").replace("<", "&lt;")


INTRO = """# Odd and hostile input

Written by `python -m tests.helpers.corpus --write docs/robustness.md`, which makes each input in a data set of
twelve sound posts and runs `mmsent check`, `mmsent extract` and `mmsent prepare` on it; a test does the same and
compares.

- **used**: the post is encoded, in the way that the last column says.
- **half post**: the half that is there is encoded; the last column says what the row does not name.
- **quarantined**: the post is set aside with the reason in the last column, and all others are used. More than
  `--max-bad` of them (1%) is an error.
- **refused**: nothing is encoded; the last column is the error. `mmsent check` lists all of them at once.

None ends in a traceback or hangs, and nothing is written but into the output folders.

Not to be told: UTF-16 without a byte order mark whose characters are all beyond Latin-1 may be valid in another
encoding; `--text-encoding utf-16-le` reads it. Of several encodings that decode every text, charset-normalizer chooses
the likeliest; `mmsent check` names the others. Links are followed, for data sets often keep their files elsewhere; look
at `mmsent check` before you publish a report on a data set of strangers.

"""


def document(seen: list[tuple[Item, Seen]]) -> str:
    """docs/robustness.md."""
    lines = ["| | input | outcome | message, or what is done |", "|---|---|---|---|"]
    lines += [f"| {i.kind} | {cell(i.name)} | {s.outcome} | {cell(s.message)} |" for i, s in seen]
    counts = {o: sum(s.outcome == o for _, s in seen) for o in get_args(Outcome)}
    total = ", ".join(f"{n} {o}" for o, n in counts.items())
    return INTRO + "\n".join(lines) + f"\n\n{len(seen)} inputs: {total}.\n"


def observe_all(folder: Path) -> list[tuple[Item, Seen]]:
    """Run the whole corpus below a folder."""
    return [(item, observe(item, folder / item.slug)) for item in ITEMS]


def command() -> None:
    words = argparse.ArgumentParser(description="The corpus of odd and hostile input.")
    words.add_argument("--write", type=Path, metavar="FILE", help="run every item and write the table")
    words.add_argument("--make", type=Path, metavar="FOLDER", help="only make the data sets")
    given = words.parse_args()
    if given.make:
        for item in ITEMS:
            (given.make / item.slug / "in").mkdir(parents=True)
            item.build(given.make / item.slug / "in")
    if given.write:
        with tempfile.TemporaryDirectory() as folder:
            seen = observe_all(Path(folder).resolve())
        given.write.write_text(document(seen), encoding="utf-8")
        wrong = [(i, s) for i, s in seen if s.outcome != i.outcome or s.problems]
        for item, one in wrong:
            print(f"{item.kind} {item.name}: {one.outcome}, not {item.outcome}; {one.message} {one.problems}")
        print(f"{given.write}: {len(seen)} inputs, {len(wrong)} not as stated")
        sys.exit(bool(wrong))


if __name__ == "__main__":
    command()
