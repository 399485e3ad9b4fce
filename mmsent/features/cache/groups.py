"""Which rows of a cache are duplicates: exact ones by their hashes, near-duplicates by the cosine of their embeddings
(images with images on the clean view, texts with texts). Splits and folds keep such groups together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mmsent.config import Group, SplitSettings, near_cosine
from mmsent.data.duplicates import Pairs, duplicate_groups, joined, like_vectors, linked_groups, most_rows, tiles
from mmsent.errors import UsageError
from mmsent.features.cache.reading import Cache, Columns, Features, RowIndex

Ints = NDArray[np.int64]
_READ_ROWS = 4096

What = Literal["picture", "text", "either"]


def with_thresholds(split: SplitSettings, encoder: str) -> SplitSettings:
    """The settings with the cosines for near-duplicates, if these are grouped: those set, or else the encoder's own."""
    if split.group is not Group.near:
        return split
    own = {name: near_cosine(encoder, name) for name in ("near_image", "near_text")}
    return split.model_copy(update={k: v for k, v in own.items() if getattr(split, k) is None})


def row_groups(
    index: RowIndex | Columns, rows: Ints, split: SplitSettings, features: Features | None = None
) -> Ints | None:
    """Group number (n,) of each of the good rows at positions `rows` (n,), or None if the split does not group.

    split: with thresholds if it groups near-duplicates. features: the embeddings, only needed for these. Raises
    UsageError if they are not in memory.
    """
    if split.group is Group.none:
        return None
    if isinstance(index, Columns):
        groups = linked_groups(index.image_keys[rows], index.text_keys[rows])
    else:
        images, texts = ([contents[i] for i in rows] for contents in index.contents())
        groups = duplicate_groups(images, texts)
    if split.group is Group.exact:
        return groups
    if features is None or isinstance(index, Columns):
        raise UsageError(
            "near-duplicates are found by comparing all rows, whose embeddings must be in memory; raise --memory, or "
            "use --group exact"
        )
    if split.near_image is None or split.near_text is None:
        raise UsageError("grouping near-duplicates needs the cosines near_image and near_text")
    ids = [index.ids[i] for i in rows]
    found = [
        _near(features.image[rows, 0], images, ids, split.near_image),
        _near(features.text[rows], texts, ids, split.near_text),
    ]
    return joined(groups, _both(*found), ids, most_rows(len(rows)))[0]


def _near(
    vectors: NDArray[np.float32],
    hashes: Sequence[bytes],
    ids: Sequence[Any],
    least: float,
    on_tile: Callable[[int], None] | None = None,
) -> Pairs:
    """Pairs of similar rows, with one row (of the smallest id) per content, so that thousands of copies do not make
    millions of pairs; an empty content is in none."""
    seen: dict[bytes, int] = {}
    for i, value in enumerate(hashes):
        if any(value) and (value not in seen or ids[i] < ids[seen[value]]):
            seen[value] = i
    first = np.array(list(seen.values()), np.int64)
    found = like_vectors(vectors[first], least, on_tile)
    return Pairs(first[found.a], first[found.b], found.similarity)


def _both(one: Pairs, other: Pairs) -> Pairs:
    similarity = np.concatenate((one.similarity, other.similarity))
    return Pairs(np.concatenate((one.a, other.a)), np.concatenate((one.b, other.b)), similarity)


@dataclass(frozen=True)
class Groups:
    """Groups of rows that share an image, a text or either: identical ones, or with `near` also near-duplicates.

    rows: in all groups; largest: rows of the largest group; spanning: groups with training and test rows; disagreeing:
    groups whose labelled rows have two labels; parted: similar pairs in different groups, because one group would be
    too large; members: the (split, id) of each group's rows.
    """

    what: What
    near: bool
    cosine: float | None
    groups: int
    rows: int
    largest: int
    spanning: int
    disagreeing: int
    parted: int
    members: list[list[tuple[str, str]]]


@dataclass(frozen=True)
class Duplicates:
    """All duplicates of a cache, exact and near, by image, by text, and by either of them."""

    rows: int
    found: list[Groups]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def table(self) -> list[list[str]]:
        """A table without the groups' members, header first."""
        head = ["same", "how", "groups", "rows", "largest", "train and test", "two labels"]
        out = [head]
        for g in self.found:
            how = "exact" if not g.near else "exact or near" + (f" (cosine {g.cosine:g})" if g.cosine else "")
            counts = [g.groups, g.rows, g.largest, g.spanning, g.disagreeing]
            out.append([{"either": "picture or text"}.get(g.what, g.what), how, *map(str, counts)])
        return out


def comparisons(cache: Cache) -> int:
    """How many tiles `find_duplicates` compares at most."""
    return 2 * tiles(sum(cache.rows.values()))


def find_duplicates(
    cache: Cache,
    near_image: float | None = None,
    near_text: float | None = None,
    on_tile: Callable[[int], None] | None = None,
) -> Duplicates:
    """Every group of duplicates among the good halves of all splits of a cache. Only the labels of training rows are
    read.

    near_image, near_text: cosines; None: the encoder pair's own. The clean view of every row is read into memory.
    """
    near_image = near_image or near_cosine(cache.encoder, "near_image")
    near_text = near_text or near_cosine(cache.encoder, "near_text")
    places: list[tuple[str, str]] = []
    labels: list[int] = []
    hashes: tuple[list[bytes], list[bytes]] = ([], [])
    halves: tuple[list[NDArray[Any]], list[NDArray[Any]]] = ([], [])
    for split in sorted(cache.rows, reverse=True):  # train first
        index = cache.index(split)
        places += [(split, row_id) for row_id in index.ids]
        labels += index.labels.tolist() if split == "train" else [-1] * len(index)
        for known, more in zip(hashes, index.contents(), strict=True):
            known.extend(more)
        with cache.reader(split) as read:
            for start in range(0, len(index), _READ_ROWS):
                views, vectors = read(start, min(start + _READ_ROWS, len(index)))
                halves[0].append(views[:, 0].copy())
                halves[1].append(vectors)
    n = len(places)
    nothing = [b""] * n
    exact = [duplicate_groups(hashes[0], nothing), duplicate_groups(nothing, hashes[1]), duplicate_groups(*hashes)]
    cosines = (near_image, near_text)
    pairs = [
        _near(np.concatenate(vectors), known, places, least, on_tile)
        for vectors, known, least in zip(halves, hashes, cosines, strict=True)
    ]
    linked = [*pairs, _both(*pairs)]
    names: tuple[What, ...] = ("picture", "text", "either")
    found = [_groups(name, groups, None, 0, places, labels) for name, groups in zip(names, exact, strict=True)]
    for name, groups, links, cosine in zip(names, exact, linked, (*cosines, None), strict=True):
        wider, parted = joined(groups, links, places, most_rows(n))
        found.append(_groups(name, wider, cosine, parted, places, labels, near=True))
    return Duplicates(n, found)


def _groups(
    what: What,
    groups: Ints,
    cosine: float | None,
    parted: int,
    places: list[tuple[str, str]],
    labels: list[int],
    *,
    near: bool = False,
) -> Groups:
    order = np.argsort(groups, kind="stable")
    bounds = np.flatnonzero(np.diff(groups[order])) + 1
    several = [part.tolist() for part in np.split(order, bounds) if len(part) > 1]
    spanning = sum(len({places[i][0] for i in part}) > 1 for part in several)
    disagreeing = sum(len({labels[i] for i in part} - {-1}) > 1 for part in several)
    sizes = [len(part) for part in several]
    members = [[places[i] for i in part] for part in sorted(several, key=len, reverse=True)]
    largest = max(sizes, default=0)
    return Groups(what, near, cosine, len(several), sum(sizes), largest, spanning, disagreeing, parted, members)
