"""New posts: texts, and images as paths, bytes, Pillow images or arrays; checked, prepared and encoded."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmsent.config import Clean
from mmsent.data.images import MAX_PIXELS, MENDED, Pixels, as_pixels, is_mended, opened_rgb, read_image
from mmsent.data.preprocess import Preprocess, fit_square
from mmsent.data.reading import reading_problems
from mmsent.data.text import clean_text, require_text
from mmsent.encoders.base import Encoders
from mmsent.errors import DataError, InputError
from mmsent.features.batches import scaled

if TYPE_CHECKING:
    from PIL import Image

    AnyImage = str | Path | bytes | Image.Image | NDArray[np.uint8] | None


def posts_of(
    texts: str | Sequence[str | None], images: AnyImage | Sequence[AnyImage], ids: Sequence[str] | None
) -> list[NewPost]:
    """N posts. texts, images: N of each, or one of each; None for a missing half. An image is a path, the bytes of an
    image file, a Pillow image or an array (H, W, 3) of bytes. ids: by default 0, 1, ... Raises InputError if the
    numbers differ or there are no posts."""
    all_texts = [texts] if texts is None or isinstance(texts, str) else list(texts)
    single = images is None or isinstance(images, (str, Path, bytes)) or _is_array(images) or _is_pillow(images)
    all_images: list[Any] = [images] if single else list(images)  # type: ignore[arg-type]
    if images is None:
        all_images = [None] * len(all_texts)
    if len(all_texts) != len(all_images):
        raise InputError(
            f"texts and images must be equally many, None for a missing one; got {len(all_texts)} and {len(all_images)}"
        )
    names = [str(i) for i in range(len(all_texts))] if ids is None else [str(name) for name in ids]
    if len(names) != len(all_texts):
        raise InputError(f"there must be one id per post; got {len(names)} for {len(all_texts)}")
    if not all_texts:
        raise InputError("no posts were given")
    if strange := [text for text in all_texts if not (text is None or isinstance(text, str))]:
        raise InputError(f"a text is a str, or None where it is missing; got {type(strange[0]).__name__}")
    return [NewPost(*post) for post in zip(names, all_texts, map(_image, all_images), strict=True)]


def _is_array(images: object) -> bool:
    """Whether this is one image as an array. One axis (such as a column of paths) or four mean a sequence."""
    return hasattr(images, "shape") and len(images.shape) not in (1, 4)


def _is_pillow(image: object) -> bool:
    from PIL import Image

    return isinstance(image, Image.Image)


def _image(image: Any) -> Path | bytes | None:
    """An image as NewPost holds it; Pillow images and arrays become the bytes of a PNG file, which is lossless."""
    if image is None or isinstance(image, bytes):
        return image
    if isinstance(image, (str, Path)):
        return Path(image)
    from PIL import Image

    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3):
            raise InputError(f"an image array holds bytes, (H, W, 3); got {image.dtype} of shape {image.shape}")
        try:
            image = Image.fromarray(image)
        except TypeError as error:
            raise InputError(f"an image array holds bytes, (H, W, 3); got shape {image.shape}") from error
    if not isinstance(image, Image.Image):
        raise InputError(f"an image is a path, bytes, a Pillow image or an array; got {type(image).__name__}")
    if image.mode in ("CMYK", "YCbCr", "HSV", "LAB", "RGBX"):
        image = image.convert("RGB")
    out = io.BytesIO()
    try:
        image.save(out, "PNG", exif=image.info.get("exif", b""))  # keeps its orientation
    except (OSError, ValueError) as error:
        raise InputError(f"a Pillow image in mode {image.mode} cannot be used: {error}") from error
    return out.getvalue()


BATCH = 64


@dataclass(frozen=True)
class NewPost:
    """A post to label. Either half may be None if the heads allow it. image: a file, a URL, or the bytes of an image
    file; no_image, no_text: why there is none, where that is known."""

    id: str
    text: str | None
    image: Path | str | bytes | None
    no_image: str = ""
    no_text: str = ""


@dataclass(frozen=True)
class Prepared:
    """A post as the encoders need it: pixels (size, size, 3) and the cleaned text, None for a missing half; problem:
    why it is missing, or what is odd about it."""

    pixels: Pixels | None
    text: str | None
    problem: str = ""


def prepare_post(post: NewPost, how: Preprocess, clean: Sequence[Clean], max_pixels: int = MAX_PIXELS) -> Prepared:
    """Decode a post's image and clean its text. An unusable half is None, and `problem` says why, as
    it says of an image whose file was not whole."""
    pixels, text, problems = None, None, []
    try:
        with opened_rgb(read_image(post.image), max_pixels) as image:
            pixels = as_pixels(fit_square(image, how))
            problems += [MENDED] * is_mended(image)
    except DataError as error:
        problems.append(post.no_image or str(error))
    try:
        if post.text is None:
            raise DataError(post.no_text or "no text")
        text = clean_text(require_text(post.text.strip()), clean)
    except DataError as error:
        problems.append(str(error))
    return Prepared(pixels, text, "; ".join(problems))


def encode_prepared(
    prepared: Sequence[Prepared], encoders: Encoders, normalize: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], list[str]]:
    """One batch through the encoders: image (N, D_image), text (N, D_text), missing (N, 2), and N reasons for what is
    missing or not read to its end."""
    image = np.zeros((len(prepared), encoders.image.card.width), np.float32)
    text = np.zeros((len(prepared), encoders.text.card.width), np.float32)
    missing = np.array([[p.pixels is None, p.text is None] for p in prepared]).reshape(-1, 2)
    problems = [p.problem for p in prepared]
    pixels = [p.pixels for p in prepared if p.pixels is not None]
    texts = [p.text for p in prepared if p.text is not None]
    if pixels:
        image[~missing[:, 0]] = encoders.image.encode(np.stack(pixels))
    if texts:
        text[~missing[:, 1]] = encoders.text.encode(texts)
        read = reading_problems(texts, encoders.text.lengths, encoders.text.card.max_tokens)
        for i, why in zip(np.flatnonzero(~missing[:, 1]).tolist(), read, strict=True):
            problems[i] = "; ".join(filter(None, (problems[i], why)))
    image, text = scaled(image, normalize), scaled(text, normalize)
    for half, vectors in enumerate((image, text)):
        for i in np.flatnonzero(~np.isfinite(vectors).all(axis=1)).tolist():  # extraction would quarantine such rows
            vectors[i], missing[i, half] = 0, True
            problems[i] = "; ".join(filter(None, (problems[i], "the encoder gave values that are not finite")))
    return image, text, missing, problems
