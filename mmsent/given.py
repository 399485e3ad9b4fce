"""Posts as programs have them: texts, and pictures as paths, bytes, Pillow images or arrays."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmsent.errors import InputError
from mmsent.predict import NewPost

if TYPE_CHECKING:
    from PIL import Image

    Picture = str | Path | bytes | Image.Image | NDArray[np.uint8] | None


def posts_of(
    texts: str | Sequence[str | None], images: Picture | Sequence[Picture], ids: Sequence[str] | None
) -> list[NewPost]:
    """N posts. texts, images: as many of each, or one of each; None for a half that is missing. An image is a path, the
    bytes of a picture file, a Pillow image or an array (H, W, 3) of bytes. ids: by default 0, 1, ... Raises InputError
    where they do not go together or there is none."""
    given = [texts] if texts is None or isinstance(texts, str) else list(texts)
    single = images is None or isinstance(images, (str, Path, bytes)) or _is_array(images) or _is_pillow(images)
    pictures: list[Any] = [images] if single else list(images)  # type: ignore[arg-type]
    if images is None:
        pictures = [None] * len(given)
    if len(given) != len(pictures):
        raise InputError(
            f"as many texts as images are needed, None where one is missing; got {len(given)} and {len(pictures)}"
        )
    names = [str(i) for i in range(len(given))] if ids is None else [str(name) for name in ids]
    if len(names) != len(given):
        raise InputError(f"ids must be as many as the posts; got {len(names)} for {len(given)}")
    if not given:
        raise InputError("no posts were given")
    if strange := [text for text in given if not (text is None or isinstance(text, str))]:
        raise InputError(f"a text is a str, or None where it is missing; got {type(strange[0]).__name__}")
    return [NewPost(*post) for post in zip(names, given, map(_picture, pictures), strict=True)]


def _is_array(images: object) -> bool:
    """One picture as an array. What has one axis, a table's column of paths say, or four is a sequence."""
    return hasattr(images, "shape") and len(images.shape) not in (1, 4)


def _is_pillow(image: object) -> bool:
    from PIL import Image

    return isinstance(image, Image.Image)


def _picture(image: Any) -> Path | bytes | None:
    """A picture as NewPost has it; what lies in memory becomes a PNG file's bytes, which loses nothing."""
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
        image.save(out, "PNG", exif=image.info.get("exif", b""))  # which way is up
    except (OSError, ValueError) as error:
        raise InputError(f"a Pillow image in mode {image.mode} cannot be used: {error}") from error
    return out.getvalue()
