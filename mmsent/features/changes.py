"""Posts that are no longer what was encoded: their files tell by size and time, and their content for certain."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mmsent.data.containers import file_of
from mmsent.data.dataset import Dataset, Post, Split
from mmsent.data.images import image_hash, read_image
from mmsent.data.text import text_hash
from mmsent.errors import DataError
from mmsent.features.cache import Cache

SAMPLE = 256  # posts that are compared where nothing says which ones may have changed


@dataclass(frozen=True)
class Changes:
    """ids: posts with another image or text than a cache holds; compared: posts that were read for it; elsewhere: the
    cache was made from a data set at another place, so a sample was compared."""

    ids: list[str]
    compared: int
    elsewhere: bool


def changed_posts(cache: Cache, dataset: Dataset, split: Split) -> Changes:
    """The posts of a split that are no longer what the cache holds, as far as they can be read.

    Files that were written since the extraction are read and compared. Of images whose data alone are older (as after a
    copy or a change of rights) a sample is read first. A manifest's texts are compared if it was written since.
    """
    index = cache.index(split)
    places = {name: i for i, name in enumerate(index.ids)}
    posts = [post for post in dataset.posts.of(split) if post.id in places]
    since = _read_at(cache, split)
    elsewhere = Path(cache.provenance["data"]) != dataset.root.resolve()

    def differs(post: Post) -> bool:
        i = places[post.id]
        return _other_image(post, index.image_hashes[i]) or _other_text(dataset, post, index.text_hashes[i])

    if elsewhere:
        some = _sample(posts)
        return Changes([post.id for post in some if differs(post)], len(some), True)
    table_is_new = any(max(_times(path)) >= since for path in dataset.lists)
    texts = [p for p in posts if max(_times(p.text)) >= since or (isinstance(p.text, str) and table_is_new)]
    written = [p for p in posts if _times(file_of(p.image))[0] >= since]
    touched = [p for p in posts if _times(file_of(p.image))[0] < since <= _times(file_of(p.image))[1]]

    def other(post: Post) -> bool:
        return _other_image(post, index.image_hashes[places[post.id]])

    if any(map(other, _sample(touched))):
        written += touched
    found = {p.id for p in texts if _other_text(dataset, p, index.text_hashes[places[p.id]])}
    found |= {p.id for p in written if other(p)}
    return Changes([p.id for p in posts if p.id in found], len({p.id for p in (*texts, *written)}), False)


def _read_at(cache: Cache, split: str) -> int:
    """When the posts of a split were read, in seconds; 0 where the cache does not say."""
    said = cache.provenance.get("read", {}).get(split) or cache.provenance.get("written")
    return int(datetime.fromisoformat(said).timestamp()) if said else 0


def _times(content: Path | str | None) -> tuple[int, int]:
    """When a file's data and when anything of it last changed, in seconds; 0 for what is no file."""
    try:
        found = os.stat(content) if isinstance(content, Path) else None
    except (OSError, ValueError):
        found = None
    return (int(found.st_mtime), int(found.st_ctime)) if found else (0, 0)


def _sample(posts: Sequence[Post]) -> Sequence[Post]:
    return posts[:: max(1, -(-len(posts) // SAMPLE))]


def _other_image(post: Post, known: bytes) -> bool:
    return file_of(post.image) is not None and _differs(lambda: image_hash(read_image(post.image)), known)


def _other_text(dataset: Dataset, post: Post, known: bytes) -> bool:
    return post.text is not None and _differs(lambda: text_hash(dataset.text_of(post)), known)


def _differs(read: Callable[[], bytes], known: bytes) -> bool:
    try:
        return read() != known
    except DataError:  # what cannot be read now cannot be compared
        return False
