"""Rows and batches of an extraction: content hashes, decoded views, and which rows are encoded together."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from mmsent.config import ViewSettings
from mmsent.data.dataset import Dataset, Post
from mmsent.data.images import Pixels, image_hash, is_blank, lacks_end, opened_rgb, read_image
from mmsent.data.preprocess import Preprocess
from mmsent.data.text import text_hash
from mmsent.data.vectors import unit_length
from mmsent.data.views import make_views
from mmsent.encoders.base import Embeddings, TextEncoder
from mmsent.errors import DataError
from mmsent.features.cache import NO_HASH, NO_LABEL, RowTable
from mmsent.system.packed import Strings

TEXT_WINDOW = 2048  # rows whose texts are sorted by length together
TEXT_BATCH = 64
READ_AHEAD = 64  # posts that a thread reads at a time for their hashes


def text_windows(n: int) -> Iterator[range]:
    """The windows of consecutive positions within which texts are sorted by length."""
    return blocks(n, TEXT_WINDOW)


def text_batches(texts: dict[int, str], encoder: TextEncoder) -> tuple[dict[int, int], list[list[int]]]:
    """Token counts of a window's texts by position, and the positions in batches of similar length."""
    lengths = dict(zip(texts, encoder.lengths(list(texts.values())), strict=True)) if texts else {}
    order = sorted(texts, key=lambda i: (lengths[i], i))
    return lengths, [order[run.start : run.stop] for run in blocks(len(order), TEXT_BATCH)]


def scaled(vectors: Embeddings, normalize: bool) -> Embeddings:
    """The embeddings (..., D) as they are, or scaled to length 1."""
    return unit_length(vectors) if normalize else vectors


def block_rows(batch_size: int, views: int) -> int:
    """How many rows with V views make one batch of images."""
    return max(1, batch_size // views)


def load_views(post: Post, how: Preprocess, views: ViewSettings) -> tuple[bytes, Pixels | None, str, bool]:
    """An image's content hash, its views, or None and the reason why it is bad, and whether it is blank."""
    try:
        raw = read_image(post.image)
    except DataError as error:
        return NO_HASH, None, str(error), False
    digest = image_hash(raw)
    try:
        with opened_rgb(raw) as image:
            return digest, make_views(image, post.id, how, views), "", is_blank(image)
    except DataError as error:
        return digest, None, str(error), False


def read_rows(dataset: Dataset, posts: Sequence[Post], workers: int) -> RowTable:
    """Ids, label indices and content hashes of posts, in order. Unreadable content has the hash NO_HASH."""
    numbers = {label: i for i, label in enumerate(dataset.settings.labels)}
    _ = dataset.decoding  # decided here, before threads need it
    ids, labels = Strings(), np.full(len(posts), NO_LABEL, np.int32)
    mended: list[str] = []
    images, texts = (np.zeros((len(posts), 32), np.uint8) for _ in range(2))

    def read(some: range) -> list[str]:
        names = []
        for i in some:
            post = posts[i]
            try:
                raw = read_image(post.image)
                image = image_hash(raw)
                if lacks_end(raw):
                    mended.append(post.id)
            except DataError:
                image = NO_HASH
            try:
                text = text_hash(dataset.text_of(post))
            except DataError:
                text = NO_HASH
            images[i], texts[i] = np.frombuffer(image, np.uint8), np.frombuffer(text, np.uint8)
            if post.label is not None:
                labels[i] = numbers[post.label]
            names.append(post.id)
        return names

    with ThreadPoolExecutor(workers) as pool:
        reading: deque[Future[list[str]]] = deque()
        for some in blocks(len(posts), READ_AHEAD):
            reading.append(pool.submit(read, some))
            if len(reading) > 2 * workers:
                _extend(ids, reading.popleft().result())
        for left in reading:
            _extend(ids, left.result())
    table = RowTable(ids, labels, images, texts)
    table.mended = sorted(mended)
    return table


def _extend(ids: Strings, names: Iterable[str]) -> None:
    for name in names:
        ids.append(name)


def blocks(n: int, size: int) -> Iterator[range]:
    """Consecutive positions in fixed blocks, so that batches depend only on the order of rows."""
    for start in range(0, n, size):
        yield range(start, min(start + size, n))
