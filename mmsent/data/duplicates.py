"""Near-duplicates: a perceptual hash for images, pairs of similar vectors, and groups of linked rows of limited size.

N rows, D width. Vectors are compared tile by tile, so no N x N matrix is in memory; the time grows with N squared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmsent.data.vectors import unit_length
from mmsent.errors import DataError

Ints = NDArray[np.int64]

HASH_BITS = 64
HASH_LIMIT = 6  # differing bits up to which two images are near-duplicates; docs/notes.md says why
GIANT = 0.05  # share of the rows above which a group is too large
SMALL = 8  # rows that any group may have
MAX_PAIRS = 5_000_000
_TILE = 2048
_MARGIN = 1e-4  # of a cosine in float32, which is then computed again in float64
_EXACT_VALUES = 1 << 22  # float64 values at a time when pairs are computed again


def perceptual_hash(image: Image.Image) -> NDArray[np.uint8]:
    """The 64 bits of an image's perceptual hash, packed into (8,) bytes: ImageHash's pHash, the signs of the lowest
    frequencies of its 32 x 32 grey thumbnail. Resizing and recompression hardly change it; cropping does."""
    import imagehash

    return np.packbits(imagehash.phash(image).hash.ravel())


@dataclass(frozen=True)
class Pairs:
    """Pairs of similar rows: a < b (P,) int64 positions and their similarity (P,) float64."""

    a: Ints
    b: Ints
    similarity: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.a)


def like_hashes(hashes: NDArray[np.uint8], limit: int = HASH_LIMIT) -> Pairs:
    """Pairs of packed hashes (N, 8) that differ in at most `limit` bits; similarity: the share of bits that agree."""
    signs = np.unpackbits(hashes, axis=1).astype(np.float32) * 2 - 1
    found = like_vectors(signs, 1 - 2 * limit / HASH_BITS)
    return Pairs(found.a, found.b, (1 + found.similarity) / 2)


def like_vectors(vectors: NDArray[Any], least: float, on_tile: Callable[[int], None] | None = None) -> Pairs:
    """Pairs of rows of (N, D) whose cosine is at least `least`; zero vectors are in no pair.

    The pairs do not depend on the order of the rows. on_tile: called with the number of tiles done since the last call,
    of `tiles(N)`. Raises DataError if there are more than MAX_PAIRS pairs.
    """
    unit = vectors.astype(np.float32)
    unit_length(unit, out=unit)
    n, total = len(unit), 0
    parts: list[Ints] = [np.zeros((0, 2), np.int64)]
    for start in range(0, n, _TILE):
        rows = unit[start : start + _TILE]
        for other in range(start, n, _TILE):
            close = rows @ unit[other : other + _TILE].T >= least - _MARGIN
            if other == start:
                close = np.triu(close, 1)
            found = np.argwhere(close) + np.array([start, other], np.int64)
            total += len(found)
            if total > MAX_PAIRS:
                raise DataError(
                    f"more than {MAX_PAIRS:,} pairs have a cosine of {least:g} or more, so it does not separate "
                    "duplicates from other rows; raise it"
                )
            parts.append(found)
            if on_tile:
                on_tile(1)
    pairs = np.concatenate(parts)
    exact = np.zeros(len(pairs))
    step = max(1, _EXACT_VALUES // max(1, vectors.shape[1]))
    for start in range(0, len(pairs), step):
        left, right = (vectors[pairs[start : start + step, side]].astype(np.float64) for side in (0, 1))
        size = np.sqrt((left * left).sum(axis=1) * (right * right).sum(axis=1))
        exact[start : start + step] = np.divide(
            (left * right).sum(axis=1), size, out=np.zeros(len(size)), where=size > 0
        )
    exact = exact.round(9)  # so that a cosine equal to the bound stays equal
    kept = exact >= least
    return Pairs(pairs[kept, 0], pairs[kept, 1], exact[kept])


def tiles(n: int) -> int:
    """How many tiles `like_vectors` compares for n rows."""
    side = -(-n // _TILE)
    return side * (side + 1) // 2


def most_rows(n: int) -> int:
    """The largest size of a group of near-duplicates among n rows."""
    return max(SMALL, int(GIANT * n))


def joined(groups: Ints, pairs: Pairs, ids: Sequence[Any] | NDArray[Any], most: int) -> tuple[Ints, int]:
    """Groups (N,) after joining the groups of each pair of rows, and how many pairs are in different groups
    nevertheless.

    Joining is transitive, so chains of slightly different rows could link everything. If a group would have more than
    `most` rows, its pairs are joined in order of similarity, and joins that would exceed that size are skipped; groups
    that are larger from the start stay as they are. The result depends on the ids, not on the order of the rows.
    Groups are numbered in order of appearance.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    part: Ints = np.unique(groups, return_inverse=True)[1].astype(np.int64)
    count = int(part.max()) + 1 if len(part) else 0
    a, b = part[pairs.a], part[pairs.b]
    graph = coo_array((np.ones(len(a), np.int8), (a, b)), shape=(count, count))
    whole: Ints = connected_components(graph, directed=False)[1].astype(np.int64) if count else part
    size = np.bincount(part, minlength=count)
    sizes = np.bincount(whole, weights=size).astype(np.int64)
    root = np.arange(count)
    giant = sizes[whole] > most  # per given group: whether it would end in one that is too large
    cut = 0
    if giant.any():
        inside = np.flatnonzero(giant[a])
        names = [sorted((ids[int(pairs.a[k])], ids[int(pairs.b[k])])) for k in inside]
        order = sorted(range(len(inside)), key=lambda k: (-pairs.similarity[inside[k]], names[k]))

        def find(x: int) -> int:
            while root[x] != x:
                root[x] = root[root[x]]
                x = int(root[x])
            return x

        ends = [(int(a[inside[k]]), int(b[inside[k]])) for k in order]
        for x, y in ends:
            x, y = find(x), find(y)
            if x != y and size[x] + size[y] <= most:
                root[y], size[x] = x, size[x] + size[y]
        cut = sum(find(x) != find(y) for x, y in ends)
        whole = np.where(giant, count + np.array([find(x) for x in range(count)]), whole)
    named = whole[part]
    _, first, inverse = np.unique(named, return_index=True, return_inverse=True)
    place = np.empty(len(first), np.int64)
    place[np.argsort(first)] = np.arange(len(first))
    return place[inverse], cut


Keys = NDArray[np.uint64]


def duplicate_groups(image_hashes: Sequence[bytes], text_hashes: Sequence[bytes]) -> Ints:
    """Group number of each row, (N,): rows that share an identical image or text, also indirectly.

    A hash that is empty or all zero bytes means "absent" and links nothing. Raises ValueError on unequal lengths.
    """
    if len(image_hashes) != len(text_hashes):
        raise ValueError(f"image and text hashes must be equally many; got {len(image_hashes)} and {len(text_hashes)}")

    def keys(hashes: Sequence[bytes]) -> Keys:
        numbers: dict[bytes, int] = {}
        return np.array(
            [numbers.setdefault(bytes(value), len(numbers) + 1) if any(value) else 0 for value in hashes], np.uint64
        )

    return linked_groups(keys(image_hashes), keys(text_hashes))


def linked_groups(image_keys: Keys, text_keys: Keys) -> Ints:
    """Group number of each row, (N,), numbered in order of appearance: rows that share an image's or a text's key,
    also indirectly. Key 0 means "absent" and links nothing."""
    n = len(image_keys)
    first = np.arange(n, dtype=np.int64)  # the first row of each row's group
    shared = [_shared(keys) for keys in (image_keys, text_keys)]
    linked = np.flatnonzero(shared[0] | shared[1])
    if len(linked):
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        # A graph of the linked rows and of the keys that they share; its components are the groups.
        rows, nodes, total = [], [], len(linked)
        for keys, more in zip((image_keys, text_keys), shared, strict=True):
            members = np.flatnonzero(more[linked])
            values, inverse = np.unique(keys[linked[members]], return_inverse=True)
            rows.append(members)
            nodes.append(total + inverse)
            total += len(values)
        edges = np.concatenate(rows), np.concatenate(nodes)
        graph = coo_array((np.ones(len(edges[0]), np.int8), edges), shape=(total, total))
        part = connected_components(graph, directed=False)[1][: len(linked)]
        lowest = np.full(int(part.max()) + 1, n, np.int64)
        np.minimum.at(lowest, part, linked)
        first[linked] = lowest[part]
    return np.unique(first, return_inverse=True)[1].astype(np.int64)


def _shared(keys: Keys) -> NDArray[np.bool_]:
    """(N,) which rows have a key, other than 0, that another row has too."""
    order = np.argsort(keys, kind="stable")
    same = keys[order][1:] == keys[order][:-1]
    out = np.zeros(len(keys), np.bool_)
    out[order[1:][same]] = True
    out[order[:-1][same]] = True
    return np.asarray(out & (keys != 0), np.bool_)
