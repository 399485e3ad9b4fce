"""Picture decoding."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from mmsent.data import images as images_module
from mmsent.data.images import Pixels, as_pixels, is_blank, is_mended, open_rgb, opened_rgb, read_image
from mmsent.errors import DataError


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def smooth(width: int, height: int) -> Image.Image:
    """Two ramps: red grows to the right, green downwards."""
    red, green = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([red, green, np.full_like(red, 90)], axis=-1).astype(np.uint8))


def test_read_picture(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"abc")
    assert read_image(tmp_path / "a.jpg") == b"abc"
    with pytest.raises(DataError, match=r"^no picture$"):
        read_image(None)
    with pytest.raises(DataError, match=r"^no file .*b\.jpg$"):
        read_image(tmp_path / "b.jpg")


def test_plain_picture_is_unchanged() -> None:
    image = noise(7, 5)
    opened = open_rgb(encode(image))
    assert opened.mode == "RGB"
    np.testing.assert_array_equal(as_pixels(opened), as_pixels(image))
    assert as_pixels(opened).shape == (5, 7, 3)


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: np.rot90(a, -1)),
        (8, lambda a: np.rot90(a)),
    ],
)
def test_exif_orientation(orientation: int, turn: Callable[[Pixels], Pixels]) -> None:
    image = noise(6, 4)
    exif = Image.Exif()
    exif[0x0112] = orientation
    opened = open_rgb(encode(image, exif=exif))
    np.testing.assert_array_equal(as_pixels(opened), turn(as_pixels(image)))


def test_exif_orientation_of_a_jpeg() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert open_rgb(encode(noise(16, 8), "JPEG", exif=exif)).size == (8, 16)


def test_a_picture_whose_exif_cannot_be_read_is_used_as_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Image.Image) -> None:
        raise SyntaxError("not a TIFF file")

    exif = Image.Exif()
    exif[0x0112] = 6
    raw = encode(noise(16, 8), "JPEG", exif=exif)
    monkeypatch.setattr(Image.Image, "getexif", fail)
    assert open_rgb(raw).size == (16, 8)


def test_cmyk_jpeg() -> None:
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    pixel = as_pixels(open_rgb(encode(red, "JPEG", quality=95)))[4, 4].astype(int)
    assert np.abs(pixel - (255, 0, 0)).max() <= 6


def test_transparency_lies_over_white() -> None:
    half = Image.new("RGBA", (2, 1), (200, 0, 0, 0))
    half.putpixel((1, 0), (0, 0, 0, 255))
    np.testing.assert_array_equal(as_pixels(open_rgb(encode(half))), [[[255, 255, 255], [0, 0, 0]]])
    grey = Image.new("LA", (1, 1), (100, 51))  # 51/255 = a fifth: 0.2 * 100 + 0.8 * 255 = 224
    np.testing.assert_array_equal(as_pixels(open_rgb(encode(grey))), [[[224, 224, 224]]])


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_palette_with_transparency(kind: str) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([0, 1, 2])
    opened = open_rgb(encode(image, kind, transparency=1))
    np.testing.assert_array_equal(as_pixels(opened), [[[10, 20, 30], [255, 255, 255], [70, 80, 90]]])


def test_sixteen_bit_grey_is_scaled() -> None:
    values = np.array([[0, 255, 256, 0x8000, 0xFFFF]], dtype=np.uint16)
    opened = as_pixels(open_rgb(encode(Image.fromarray(values))))
    np.testing.assert_array_equal(opened[0, :, 0], [0, 0, 1, 128, 255])
    np.testing.assert_array_equal(opened[..., 0], opened[..., 2])


def test_bilevel_and_first_frame() -> None:
    np.testing.assert_array_equal(as_pixels(open_rgb(encode(Image.new("1", (1, 1), 1))))[0, 0], [255] * 3)
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    opened = open_rgb(encode(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    np.testing.assert_array_equal(as_pixels(opened)[0, 0], [255, 0, 0])


def test_floating_point_samples_are_refused() -> None:
    raw = encode(Image.fromarray(np.ones((2, 2), dtype=np.float32)), "TIFF")
    with pytest.raises(DataError, match="floating-point samples"):
        open_rgb(raw)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF"])
def test_truncated_pictures_are_errors(kind: str) -> None:
    raw = encode(noise(64, 64), kind)
    assert open_rgb(raw).size == (64, 64)
    with pytest.raises(DataError, match="picture cannot be decoded"):
        open_rgb(raw[: len(raw) // 2])


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 20}])
def test_a_jpeg_without_its_end_is_used_if_no_pixel_is_missing(options: dict[str, Any]) -> None:
    for size in (48, 50, 96):
        raw = encode(noise(size, size), "JPEG", **options)
        whole = open_rgb(raw)
        assert not is_mended(whole)
        for cut in (1, 2):
            image = open_rgb(raw[:-cut])
            assert is_mended(image)
            np.testing.assert_array_equal(as_pixels(image), as_pixels(whole))
        for cut in (3, 4, 6, 9, 12, 40):  # pixels are missing, unless these bytes are but padding
            with contextlib.suppress(DataError):
                np.testing.assert_array_equal(as_pixels(open_rgb(raw[:-cut])), as_pixels(whole))
        with pytest.raises(DataError, match=r"(?i)truncated"):
            open_rgb(raw[: len(raw) // 2])


def test_metadata_too_large_to_unpack_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_MEMORY", 4_000_000)  # Pillow's limit for all texts is 64 MB
    image, info = noise(40, 30), PngImagePlugin.PngInfo()
    info.add_text("c", "x" * 2_000_000, zip=True)
    info.add_itxt("d", "y" * 2_000_000, zip=True)
    exif = Image.Exif()
    exif[0x0112] = 3
    plain = PngImagePlugin.PngInfo()
    for key in "abc":
        plain.add_text(key, "x" * 1_500_000)
    for options in ({"icc_profile": bytes(2_000_000)}, {"pnginfo": info, "exif": exif}, {"pnginfo": plain}):
        with pytest.raises(DataError, match="40x30 pixels; the limit is 1199"):
            open_rgb(encode(image, **options), max_pixels=1199)
        turned = as_pixels(image)[::-1, ::-1] if "exif" in options else as_pixels(image)
        np.testing.assert_array_equal(as_pixels(open_rgb(encode(image, **options))), turned)
    raw = encode(image, pnginfo=info)
    behind = raw.index(b"zTXt") - 4, raw.index(b"IDAT") - 4  # texts may stand behind the pixels too
    moved = raw[: behind[0]] + raw[behind[1] : -12] + raw[behind[0] : behind[1]] + raw[-12:]
    np.testing.assert_array_equal(as_pixels(open_rgb(moved)), as_pixels(image))
    with pytest.raises(DataError, match="cannot be decoded"):
        open_rgb(raw[: behind[1] + 30])


def test_integers_of_32_bits_are_used_as_they_look_or_refused() -> None:
    grey = np.arange(64, dtype=np.int32).reshape(8, 8) * 4
    np.testing.assert_array_equal(as_pixels(open_rgb(encode(Image.fromarray(grey), "TIFF")))[:, :, 1], grey)
    for other in (grey * 2, grey - 1, grey << 20):
        with pytest.raises(DataError, match=r"32-bit samples beyond 0\.\.255; convert it to 8 bits per channel"):
            open_rgb(encode(Image.fromarray(other), "TIFF"))


def test_threads_share_a_budget_of_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight threads, each with an image that takes more than a third of the memory: two at a time are decoded."""
    image = noise(100, 100)
    image.putalpha(200)
    raw, memory = encode(image), images_module._Memory(2 * 160_000)
    monkeypatch.setattr(images_module, "_memory", memory)
    most: list[int] = []

    def use(_: int) -> None:
        with opened_rgb(raw) as opened:
            most.append(memory.used)
            time.sleep(0.01)
            assert opened.mode == "RGB"

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(16)))
    assert max(most) == 2 * 160_000
    assert memory.used == 0
    memory.most = 1  # a single image larger than all of it is decoded alone
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(use, range(4)))
    assert most[-4:] == [160_000] * 4
    with pytest.raises(DataError), opened_rgb(encode(noise(99, 99))[:-900]):
        pass
    assert memory.used == 0


def test_not_a_picture() -> None:
    with pytest.raises(DataError, match="picture file is empty"):
        open_rgb(b"")
    with pytest.raises(DataError, match="not a picture in a supported format"):
        open_rgb(b"<html>gone</html>")


@pytest.mark.filterwarnings("ignore")  # Pillow's own, about the damage
def test_damaged_bytes_raise_nothing_but_data_errors() -> None:
    rng = np.random.default_rng(0)
    refused = 0
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"):
        sound = encode(noise(20, 24), kind)
        for _ in range(60):
            raw = bytearray(sound)
            for place in rng.integers(0, min(len(raw), 200), 3):
                raw[place] = rng.integers(256)
            try:
                open_rgb(bytes(raw))
            except DataError:
                refused += 1
    assert refused > 100


def test_any_error_of_a_reader_is_a_data_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Image.Image, mode: str) -> None:
        raise NotImplementedError("no such pixel format")

    monkeypatch.setattr(Image.Image, "convert", fail)
    with pytest.raises(DataError, match="picture cannot be decoded: no such pixel format"):
        open_rgb(encode(noise(4, 4), "BMP"))


@pytest.mark.parametrize("kind", ["EPS", "TGA", "DDS", "PCX", "ICNS"])
def test_only_a_few_formats_are_read(kind: str) -> None:
    with pytest.raises(DataError, match=r"not a picture in a supported format \(JPEG, PNG"):
        open_rgb(encode(noise(16, 16), kind))


def test_bomb_limit_holds_before_decoding() -> None:
    raw = encode(Image.new("1", (30, 20)))
    assert open_rgb(raw, max_pixels=600).size == (30, 20)
    with pytest.raises(DataError, match="picture has 30x20 pixels; the limit is 599"):
        open_rgb(raw, max_pixels=599)
    huge = encode(Image.new("1", (20_000, 10_000)))  # 25 MB of bits in 24 kB, 200 megapixels
    with pytest.raises(DataError, match="too many pixels; the limit is 100000000"):
        open_rgb(huge)


def test_blank() -> None:
    assert is_blank(Image.new("RGB", (50, 70), (12, 200, 40)))
    assert not is_blank(smooth(50, 70))
    halves = Image.new("RGB", (40, 80))
    halves.paste((9, 9, 9), (0, 0, 40, 40))
    assert not is_blank(halves)
    noise = np.random.default_rng(0).normal(100, 3, (120, 400, 3)).round().astype(np.uint8)
    assert is_blank(Image.fromarray(noise))  # it looks flat
    assert not is_blank(Image.fromarray(noise[:40, :40]))
    assert is_blank(Image.new("RGB", (1, 1), (255, 255, 255)))
    assert is_blank(Image.new("RGB", (3000, 2), (255, 0, 255)))


@pytest.mark.mvsa
def test_mvsa_blank_picture(mvsa: Path) -> None:
    assert is_blank(open_rgb(read_image(mvsa / "data" / "4719.jpg")))
    assert not is_blank(open_rgb(read_image(mvsa / "data" / "1.jpg")))


def test_heic_is_read_by_pillow_heif_or_names_what_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    heif = pytest.importorskip("pillow_heif")
    out = io.BytesIO()
    heif.from_pillow(Image.new("RGB", (64, 48), (200, 30, 40))).save(out, quality=95)
    image = open_rgb(out.getvalue())
    assert image.size == (64, 48)
    assert np.abs(as_pixels(image).astype(int).mean((0, 1)) - (200, 30, 40)).max() < 4
    monkeypatch.setattr(images_module, "_formats", lambda: ("JPEG", "PNG"))
    with pytest.raises(DataError, match=r"HEIC pictures need pillow-heif: pip install 'mmsent\[heic\]'"):
        open_rgb(out.getvalue())
    with pytest.raises(DataError, match="not a picture in a supported format"):
        open_rgb(b"\0\0\0\x18ftypisom" + bytes(100))
