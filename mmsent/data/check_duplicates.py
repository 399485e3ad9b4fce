"""Posts of a data set with the same image or text, or with ones that look or read alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmsent.config import Clean
from mmsent.data.check_images import ImageFacts, image_facts
from mmsent.data.check_report import Finding, finding_of
from mmsent.data.dataset import Dataset, Post
from mmsent.data.duplicates import HASH_BITS, Pairs, joined, like_hashes, linked_groups, most_rows
from mmsent.data.text import clean_text, says_nothing, text_hash
from mmsent.errors import DataError

COMPARED = 100_000  # the most images that are compared with each other; the time grows with the square of their number


def duplicate_findings(
    posts: Sequence[Post], images: Sequence[ImageFacts], texts: Sequence[str | None]
) -> list[Finding]:
    """All of a data set's posts; a text is None where it is unusable."""
    text_hashes = [b"" if t is None or says_nothing(t) else text_hash(t) for t in texts]
    image_hashes = [b"" if image.blank else image.hash for image in images]
    return [
        *_duplicates("picture", posts, image_hashes),
        *_similar_images(posts, images),
        *_duplicates("text", posts, text_hashes),
        *_similar("text", "have the same words", posts, text_hashes, _text_groups(texts)),
    ]


def _duplicates(what: str, posts: Sequence[Post], hashes: Sequence[bytes], alike: str = "") -> list[Finding]:
    """Groups of exact duplicates: all, those in both splits, and those whose training rows have different labels.
    alike: for near-duplicates, what the members of a group have in common."""
    groups_by: dict[bytes, list[Post]] = defaultdict(list)
    for post, value in zip(posts, hashes, strict=True):
        if value:
            groups_by[value].append(post)
    groups = [group for group in groups_by.values() if len({post.id for post in group}) > 1]
    spanning = [group for group in groups if len({post.split for post in group}) > 1]
    disagreeing = [
        group for group in groups if len({post.label for post in group if post.split == "train"} - {None}) > 1
    ]
    rows = sum(map(len, groups))

    def names(found: list[list[Post]]) -> list[str]:
        return ["=".join(post.id for post in group[:3]) + "=…" * (len(group) > 3) for group in found]

    kind, groups_of = (f"{what}s", f"groups of {what}s") if alike else (f"identical {what}s", f"groups of one {what}")
    sharing = f"groups of different {what.split()[-1]}s that {alike}" if alike else f"groups that share one {what}"
    return [
        *finding_of("note", kind, names(groups), f"{sharing}; {rows} rows in all"),
        *finding_of(
            "warning", f"{what} in both splits", names(spanning), f"{groups_of} have rows in both train and test"
        ),
        *finding_of("note", f"{what} with two labels", names(disagreeing), f"{groups_of} have different labels"),
    ]


def _similar_images(posts: Sequence[Post], images: Sequence[ImageFacts]) -> list[Finding]:
    if len(images) > COMPARED:
        message = f"{len(images):,} pictures are too many to compare; only identical files were looked for"
        return finding_of("note", "similar pictures", [""], message)
    try:
        groups = _image_groups(posts, images)
    except DataError:  # too many pairs
        return finding_of("note", "similar pictures", [""], "too many pictures look alike to list them")
    return _similar("picture", "look alike", posts, [image.hash for image in images], groups)


def _image_groups(posts: Sequence[Post], images: Sequence[ImageFacts]) -> list[int]:
    """The group of each image, by its perceptual hash, or by its bytes if it has none; -1: no image."""
    keys = [b"" if image.blank else image.perceptual_hash or image.hash for image in images]
    first: dict[bytes, int] = {}
    for i, key in enumerate(keys):
        if key:
            first.setdefault(key, i)
    hashed = [i for i in first.values() if images[i].perceptual_hash]
    pairs = like_hashes(
        np.array([list(images[i].perceptual_hash) for i in hashed], np.uint8).reshape(-1, HASH_BITS // 8)
    )
    where = np.array(hashed, np.int64)
    linked = Pairs(where[pairs.a], where[pairs.b], pairs.similarity)
    own = np.array([first.get(key, len(keys)) for key in keys], np.int64)
    groups, _ = joined(own, linked, [post.id for post in posts], most_rows(len(posts)))
    return [int(group) if key else -1 for group, key in zip(groups, keys, strict=True)]


def near_groups(dataset: Dataset, posts: Sequence[Post]) -> NDArray[np.int64]:
    """(N,) the group of each post: those whose images look alike or whose texts have the same words, also indirectly.
    A half that is missing or says nothing groups nothing."""
    images = [image_facts(post) for post in posts]
    pictures = np.array(_image_groups(posts, images), np.int64) + 1
    pictures[[image.blank or not image.hash for image in images]] = 0
    texts: list[str | None] = []
    for post in posts:
        try:
            texts.append(dataset.text_of(post))
        except DataError:
            texts.append(None)
    words = np.array(_text_groups(texts), np.int64) + 1
    return linked_groups(pictures.astype(np.uint64), words.astype(np.uint64))


def _text_groups(texts: Sequence[str | None]) -> list[int]:
    """The group of each text, by its letters and digits, ignoring case, links and mentions; -1: it has none."""
    numbers: dict[str, int] = {}
    out = []
    for text in texts:
        plain = clean_text(text or "", (Clean.links, Clean.mentions, Clean.retweet)).casefold()
        words = "".join(c for c in plain if c.isalnum())
        out.append(numbers.setdefault(words, len(numbers)) if words else -1)
    return out


def _similar(
    what: str, how: str, posts: Sequence[Post], hashes: Sequence[bytes], groups: Sequence[int]
) -> list[Finding]:
    """Groups of near-duplicates with at least two different contents, and those in both splits or with two labels."""
    contents: dict[int, set[bytes]] = defaultdict(set)
    for value, group in zip(hashes, groups, strict=True):
        contents[group].add(value)
    keys = [b"%d" % g if g >= 0 and len(contents[g]) > 1 else b"" for g in groups]
    return _duplicates(f"similar {what}", posts, keys, how)
