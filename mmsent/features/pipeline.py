"""Decoding and encoding of images at the same time: a pool of threads decodes a few blocks ahead, one thread encodes,
and the caller stores the results. Queues are bounded, so the memory does not depend on the number of posts.

Threads suffice, because Pillow and torch release the interpreter while they work; nothing is copied or forked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from mmsent.data.images import Pixels
from mmsent.encoders.base import Embeddings

DECODED = 3  # blocks decoded ahead of the encoder
ENCODED = 1  # blocks encoded ahead of the caller

Loaded = tuple[bytes, Pixels | None, str, bool]  # content hash, views (V, H, W, 3), why there are none, blank
Block = tuple[range, dict[int, Loaded]]


def encoded_blocks(
    todo: Iterable[range],
    needed: NDArray[np.bool_],
    load: Callable[[int], Loaded],
    encode: Callable[[Pixels], Embeddings],
    shape: tuple[int, ...],
    workers: int,
) -> Generator[tuple[range, dict[int, Loaded], Embeddings], None, None]:
    """Blocks of rows in order: the rows, what was loaded of the needed ones (N,), and the embeddings (n * V, D) of all
    the block's images.

    shape: of one row's views, (V, H, W, 3). Rows that are not needed, or have no image, are replaced by black images,
    so that the batch keeps its shape. Close the generator to stop early; errors of the stages are raised here.
    """

    spare: list[Pixels] = []  # buffers are reused, because allocating large ones again and again fragments the heap

    def pixel_block(block: range, loaded: dict[int, Loaded]) -> Pixels:
        pixels = spare.pop() if spare and len(spare[-1]) >= len(block) else np.empty((len(block), *shape), np.uint8)
        for i in block:
            picture = loaded[i][1] if i in loaded else None
            pixels[i - block.start] = 0 if picture is None else picture
        return pixels

    def run(pixels: Pixels, n: int) -> Embeddings:
        return encode(pixels[:n].reshape(-1, *shape[1:]))

    decoders, encoder = ThreadPoolExecutor(workers), ThreadPoolExecutor(1)
    try:
        decoding: deque[tuple[range, dict[int, Future[Loaded]]]] = deque()
        encoding: deque[tuple[Block, Pixels, Future[Embeddings]]] = deque()
        blocks = iter(todo)
        while True:
            for block in islice(blocks, DECODED + 1 - len(decoding)):
                decoding.append((block, {i: decoders.submit(load, i) for i in block if needed[i]}))
            if decoding:
                block, futures = decoding.popleft()
                loaded = {i: future.result() for i, future in futures.items()}
                pixels = pixel_block(block, loaded)
                encoding.append(((block, loaded), pixels, encoder.submit(run, pixels, len(block))))
            if not encoding:
                return
            if len(encoding) > ENCODED or not decoding:
                (block, loaded), pixels, done = encoding.popleft()
                found = done.result()
                spare.append(pixels)
                yield block, loaded, found
    finally:
        for pool in (decoders, encoder):
            pool.shutdown(wait=False, cancel_futures=True)
