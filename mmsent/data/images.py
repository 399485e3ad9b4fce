"""Images: safe decoding, and small copies for pages. Pillow and NumPy only, no torch."""

from __future__ import annotations

import functools
import hashlib
import io
import math
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from mmsent.data.containers import is_inside, read_inside
from mmsent.errors import DataError
from mmsent.system.files import fetch, open_file, read_file, unreadable
from mmsent.system.markup import data_url

# Larger images are refused before decoding: they are decompression bombs, or scans that nobody posts.
MAX_PIXELS = 100_000_000
MAX_BYTES = 256 << 20  # of an image file
IN_FLIGHT = 1 << 30  # bytes of decoded images that all threads together hold; a larger image is decoded alone
# The formats of posts. Pillow knows dozens more, each with its own parser; EPS would even run Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")

Pixels = NDArray[np.uint8]
_ORIENTATION = 0x0112  # EXIF's tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(path: Path | str | bytes | None, seconds: float = 60.0) -> bytes:
    """The bytes of an image: of a file (Path), a URL (str), which is given up after so many seconds, or a name of
    `containers` (str); bytes are returned as they are. Raises DataError with the reason if there is no such image or it
    cannot be read."""
    if path is None:
        raise DataError("no picture")
    if isinstance(path, bytes):
        return path
    if isinstance(path, str) and is_inside(path):
        return read_inside(path, MAX_BYTES)
    try:
        return fetch(path, MAX_BYTES, seconds) if isinstance(path, str) else read_file(path, MAX_BYTES)
    except OSError as error:
        raise DataError(unreadable("picture", Path(path), error)) from error


def is_image(path: Path) -> bool:
    """Whether a file begins as an image in a supported format does."""
    try:
        with open_file(path) as file, Image.open(file, formats=_formats()):
            return True
    except Exception:  # Pillow's readers raise almost anything
        return False


def image_hash(raw: bytes) -> bytes:
    """The content hash of an image file: the SHA-256 of its bytes, 32 bytes."""
    return hashlib.sha256(raw).digest()


def open_rgb(raw: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode an image to RGB: first frame, upright by its EXIF tag, transparency over white, 16 bit to 8.

    The bytes determine the format, not the file's name. Colour profiles are not applied, because the encoders were
    trained on pixels as they are stored. `is_mended` tells of an image whose file lacks its end but no pixel. Raises
    DataError with the reason: empty, not an image, truncated, too many pixels, samples of 32 bits.
    """
    with opened_rgb(raw, max_pixels) as image:
        return image


@contextmanager
def opened_rgb(raw: bytes, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """The image of `open_rgb` for a with block, inside which it counts as memory that threads share: others wait where
    all together would hold more than IN_FLIGHT bytes. Do not open another inside."""
    if not raw:
        raise DataError("picture file is empty")
    with _reasons(max_pixels):
        image = _header(raw)
        if image.width * image.height > max_pixels:
            raise DataError(f"picture has {image.width}x{image.height} pixels; the limit is {max_pixels}")
    with _memory.taken(image.width * image.height * (16 if _has_alpha(image) else 6)):
        with _reasons(max_pixels):
            form = image.format
            image = _to_rgb(_upright(_loaded(image, raw)), form)
        yield image


class _Memory:
    """Bytes that threads hold together, at most `most`, or one thread alone."""

    def __init__(self, most: int) -> None:
        self.most, self.used = most, 0
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, n: int) -> Iterator[None]:
        """Hold n bytes inside the with block, once they are free."""
        with self._changed:
            self._changed.wait_for(lambda: not self.used or self.used + n <= self.most)
            self.used += n
        try:
            yield
        finally:
            with self._changed:
                self.used -= n
                self._changed.notify_all()


_memory = _Memory(IN_FLIGHT)


@contextmanager
def _reasons(max_pixels: int) -> Iterator[None]:
    """Whatever Pillow raises, as DataError with the reason."""
    try:
        yield
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"not a picture in a supported format ({', '.join(FORMATS)})") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"picture has too many pixels; the limit is {max_pixels}") from error
    except Exception as error:  # Pillow's readers raise almost anything on damaged bytes, even RuntimeError
        raise DataError(f"picture cannot be decoded: {error}") from error


def _header(raw: bytes) -> Image.Image:
    """The image without its pixels. A PNG whose profile or texts are too large to unpack is read without them."""
    try:
        return Image.open(io.BytesIO(raw), formats=_formats())
    except UnidentifiedImageError as error:
        if "HEIF" in _formats() or raw[4:8] != b"ftyp" or raw[8:12] not in _HEIF:
            raise
        raise DataError("HEIC pictures need pillow-heif: pip install 'mmsent[heic]'") from error
    except ValueError:
        if not raw.startswith(_PNG):
            raise
        return Image.open(io.BytesIO(_without_texts(raw)), formats=("PNG",))


def _loaded(image: Image.Image, raw: bytes) -> Image.Image:
    """The image with its pixels. A JPEG that lacks only its end is used if what could stand there changes no pixel."""
    try:
        image.load()
    except ValueError:  # texts may stand behind the pixels too
        if image.format != "PNG":
            raise
        image = Image.open(io.BytesIO(_without_texts(raw)), formats=("PNG",))
        image.load()
    except OSError as error:
        if image.format != "JPEG" or "truncated" not in str(error):
            raise
        image = _closed(raw, b"")
        if any(_closed(raw, fill).tobytes() != image.tobytes() for fill in _FILLS):
            raise
        image.info[_MENDED] = True
    return image


_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")  # brands
_PNG = b"\x89PNG\r\n\x1a\n"
_MENDED = "mmsent: the end was missing"
MENDED = "the image's file lacks its end, but no pixel; it is used"
_FILLS = [hashlib.sha256(bytes([i])).digest().replace(b"\xff", b"\x7f") for i in range(16)]


def _closed(raw: bytes, fill: bytes) -> Image.Image:
    """A JPEG file with some bytes more, and its end."""
    whole = raw.removesuffix(b"\xff") + fill + b"\xff\xd9"
    image: Image.Image = Image.open(io.BytesIO(whole), formats=("JPEG",))
    image.load()
    return image


def is_mended(image: Image.Image) -> bool:
    """Whether an image of `open_rgb` is of a JPEG file that lacks its last bytes, but no pixel."""
    return _MENDED in image.info


def lacks_end(raw: bytes) -> bool:
    """Whether bytes are of a JPEG file that lacks its end, but no pixel; only where no end is near is it decoded."""
    if not raw.startswith(b"\xff\xd8") or b"\xff\xd9" in raw[-1024:]:
        return False
    try:
        with opened_rgb(raw) as image:
            return is_mended(image)
    except DataError:
        return False


def _without_texts(raw: bytes) -> bytes:
    """A PNG file without its colour profile and texts, which are no pixels."""
    kept, at = [_PNG], len(_PNG)
    while at + 12 <= len(raw):
        end = at + 12 + int(struct.unpack(">I", raw[at : at + 4])[0])
        if raw[at + 4 : at + 8] not in (b"iCCP", b"tEXt", b"zTXt", b"iTXt"):
            kept.append(raw[at:end])
        at = end
    return b"".join(kept)


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those of FORMATS that this Pillow was built with; HEIF is read by pillow-heif."""
    Image.init()
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF tag says. Unreadable EXIF is ignored, because the pixels do not depend on it."""
    try:
        turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # Pillow raises almost anything on damaged EXIF
        return image
    return image if turn is None else image.transpose(turn)


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in image.info


def _to_rgb(image: Image.Image, form: str | None) -> Image.Image:
    if image.mode == "F":
        raise DataError("picture has floating-point samples; convert it to 8 bits per channel")
    if image.mode == "I" and form != "PNG":  # 32 bits, whose range no file tells
        values = np.asarray(image)
        if values.size and not 0 <= values.min() <= values.max() <= 255:
            raise DataError("picture has 32-bit samples beyond 0..255; convert it to 8 bits per channel")
        image = Image.fromarray(values.astype(np.uint8))
    if image.mode.startswith("I"):  # 16-bit grey; convert("RGB") would clip instead of scaling
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if _has_alpha(image):
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def as_pixels(image: Image.Image) -> Pixels:
    """An RGB image as (H, W, 3) bytes."""
    return np.asarray(image, dtype=np.uint8)


def shrunk(image: Image.Image, side: int) -> Image.Image:
    """The image with its longer side at most `side` pixels; it is changed in place where it is larger."""
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return image


def image_bytes(image: Image.Image, form: str, **options: Any) -> bytes:
    """The bytes of an image file in a format of Pillow's; options: of Pillow's `save`."""
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def image_url(image: Image.Image, form: str, **options: Any) -> str:
    """The image as a data URL; arguments as for `image_bytes`."""
    return data_url(image_bytes(image, form, **options), f"image/{form.lower()}")


def thumbnail_url(image: Image.Image, side: int) -> str:
    """A small copy for a page, as a data URL, its longer side at most `side` pixels."""
    return image_url(shrunk(image, side), "WEBP", quality=70)


def is_blank(image: Image.Image, spread: float = 2.0) -> bool:
    """Whether an RGB image has one flat colour: every channel's standard deviation stays below `spread` grey levels."""
    small = image.reduce((math.ceil(image.width / 64), math.ceil(image.height / 64)))  # noise is averaged
    shares = np.array(small.histogram(), np.float64).reshape(3, 256) / (small.width * small.height)
    levels = np.arange(256.0)
    variances = shares @ levels**2 - (shares @ levels) ** 2
    return bool(variances.max() < spread**2)


# Pillow's process-wide switch stays off: a truncated image must be an error, not a half-grey embedding.
ImageFile.LOAD_TRUNCATED_IMAGES = False
