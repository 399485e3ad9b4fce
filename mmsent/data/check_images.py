"""What is known of each image of a data set after it was decoded once."""

from __future__ import annotations

from dataclasses import dataclass

from mmsent.data.duplicates import perceptual_hash
from mmsent.data.images import image_hash, is_blank, is_mended, opened_rgb, read_image
from mmsent.data.posts import Post
from mmsent.errors import DataError

LIMIT = "; the limit is"  # part of the message about a file that is too large


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What is known of one image after decoding. hash: empty if it could not be read; problem: the kind of problem that
    makes it unusable; perceptual_hash: empty for a blank image, which is a duplicate of none; mended: as
    `is_mended`."""

    hash: bytes = b""
    problem: str | None = None
    reason: str = ""
    width: int = 0
    height: int = 0
    blank: bool = False
    perceptual_hash: bytes = b""
    mended: bool = False


def image_facts(post: Post) -> ImageFacts:
    """Decode the image of a post."""
    try:
        raw = read_image(post.image)
    except DataError as error:
        problem = "picture too large" if LIMIT in str(error) else "missing picture"
        return ImageFacts(problem=problem, reason=str(error))
    digest = image_hash(raw)
    try:
        with opened_rgb(raw) as image:
            width, height, blank, mended = image.width, image.height, is_blank(image), is_mended(image)
            known = b"" if blank else perceptual_hash(image).tobytes()
    except DataError as error:
        problem = "picture too large" if LIMIT in str(error) else "broken picture"
        return ImageFacts(digest if raw else b"", problem, str(error))
    return ImageFacts(digest, "", "", width, height, blank, known, mended)
