"""Engines encode posts into journal entries. The local one is here; mmsent.features.ray_engine has another. Which rows
share a batch depends only on their order (see mmsent.features.batches), so all engines give the same bytes as long as
they encode whole windows of texts and whole blocks of images.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mmsent.config import EncoderSettings
from mmsent.data.dataset import Dataset, Post, Split
from mmsent.data.text import says_nothing, text_hash
from mmsent.encoders.base import Embeddings, Encoders
from mmsent.errors import DataError
from mmsent.features.batches import (
    block_rows,
    blocks,
    load_views,
    read_rows,
    scaled,
    text_batches,
    text_windows,
)
from mmsent.features.cache import NO_HASH, RowTable
from mmsent.features.cache.fingerprint import FeatureSettings
from mmsent.features.cache.journal import Entry, Half
from mmsent.features.pipeline import Loaded, encoded_blocks
from mmsent.system import provenance
from mmsent.system.progress import bar


@dataclass(frozen=True)
class Work:
    """What must be encoded of one split: its posts in list order, what was read of them, and (N,) whose text and whose
    image is needed."""

    split: Split
    posts: Sequence[Post]
    rows: RowTable
    texts: NDArray[np.bool_]
    images: NDArray[np.bool_]


@dataclass(frozen=True)
class Plan:
    """What an engine must encode of a data set, and how. batch_size: images per forward pass; workers: threads that
    decode images."""

    dataset: Dataset
    works: Sequence[Work]
    settings: FeatureSettings
    batch_size: int
    workers: int


Encoded = tuple[Split, Half, list[Entry]]


class Engine(Protocol):
    """Encodes what is missing of a data set."""

    def open(self, encoder: EncoderSettings) -> Encoders:
        """The encoders' cards and the batch size that suits them. Raises EncoderError if they cannot be opened."""

    def rows(self, dataset: Dataset, posts: Sequence[Post], workers: int) -> RowTable:
        """Ids, labels and content hashes of posts, in order; every text and image is read."""

    def entries(
        self,
        plan: Plan,
        show: bool,
    ) -> Generator[Encoded, None, None]:
        """Every missing entry once, in any order. Close the generator to stop early."""

    def environment(self, device: str | None) -> dict[str, Any]:
        """Versions, machine and code of the encoding process, for the cache's record."""


class LocalEngine:
    """This process, its threads and its device."""

    def __init__(self, encoders: Encoders) -> None:
        self._encoders = encoders

    def open(self, encoder: EncoderSettings) -> Encoders:
        return self._encoders

    def rows(self, dataset: Dataset, posts: Sequence[Post], workers: int) -> RowTable:
        return read_rows(dataset, posts, workers)

    def entries(
        self,
        plan: Plan,
        show: bool,
    ) -> Generator[Encoded, None, None]:
        for work in plan.works:
            n, pair = len(work.posts), self._encoders
            if work.texts.any():
                texts = text_entries(plan.dataset, work.posts, work.texts, pair, plan.settings)
                with closing(texts), bar(n, f"{work.split} texts", "text", show=show) as progress:
                    for entries, passed in texts:
                        if entries:
                            yield work.split, "text", entries
                        progress.update(passed)
            if work.images.any():
                done = n - int(work.images.sum())
                images = image_entries(work.posts, work.images, pair, plan.settings, plan.batch_size, plan.workers)
                with (
                    closing(images),
                    bar(n, f"{work.split} images", "post", initial=done, show=show) as progress,
                ):
                    for entries, passed in images:
                        yield work.split, "image", entries
                        progress.update(passed)

    def environment(self, device: str | None) -> dict[str, Any]:
        return provenance.environment(device)


def text_entries(
    dataset: Dataset, posts: Sequence[Post], needed: NDArray[np.bool_], encoders: Encoders, settings: FeatureSettings
) -> Generator[tuple[list[Entry], int], None, None]:
    """The entries of needed texts, batch by batch, each with the number of positions that it covers.

    posts: N, whole windows; needed: (N,). Texts that are not needed keep their place in a batch.
    """
    encoder = encoders.text
    for window in text_windows(len(posts)):
        if not needed[window.start : window.stop].any():
            yield [], len(window)
            continue
        texts: dict[int, str] = {}
        unread: list[Entry] = []
        for i in window:
            try:
                texts[i] = dataset.text_of(posts[i])
            except DataError as error:
                if needed[i]:
                    unread.append(Entry(posts[i].id, NO_HASH, None, str(error)))
        if unread:
            yield unread, 0
        lengths, batches = text_batches(texts, encoder)
        for batch in batches:
            if not needed[batch].any():
                yield [], len(batch)
                continue
            vectors = scaled(encoder.encode([texts[i] for i in batch]), settings.normalize)
            found = [
                _entry(
                    posts[i].id, text_hash(texts[i]), vectors[j], settings.storage, says_nothing(texts[i]), lengths[i]
                )
                for j, i in enumerate(batch)
                if needed[i]
            ]
            yield found, len(batch)


def image_entries(
    posts: Sequence[Post],
    needed: NDArray[np.bool_],
    encoders: Encoders,
    settings: FeatureSettings,
    batch_size: int,
    workers: int,
) -> Generator[tuple[list[Entry], int], None, None]:
    """The entries of needed images, block by block, each with their number.

    posts: N, whole blocks; needed: (N,). workers: threads that decode.
    """
    how, views = settings.image.preprocess, settings.views.count + 1
    todo = (b for b in blocks(len(posts), block_rows(batch_size, views)) if needed[b.start : b.stop].any())

    def load(i: int) -> Loaded:
        return load_views(posts[i], how, settings.views)

    shape = (views, how.size, how.size, 3)
    with closing(encoded_blocks(todo, needed, load, encoders.image.encode, shape, workers)) as stream:
        for block, loaded, encoded in stream:
            vectors = scaled(encoded, settings.normalize).reshape(len(block), views, -1)
            found = [
                _entry(posts[i].id, digest, vectors[i - block.start], settings.storage, blank)
                if picture is not None
                else Entry(posts[i].id, digest, None, reason)
                for i, (digest, picture, reason, blank) in loaded.items()
            ]
            yield found, len(found)


def _entry(row_id: str, digest: bytes, vector: Embeddings, storage: str, empty: bool, tokens: int = 0) -> Entry:
    stored = vector.astype(storage)
    if not np.isfinite(stored).all():
        return Entry(row_id, digest, None, "the encoder gave values that are not finite", tokens)
    return Entry(row_id, digest, stored, "", tokens, empty)
