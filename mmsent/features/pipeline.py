"""Pictures through decoding and encoding, overlapped: a pool of threads decodes a few blocks ahead, one thread encodes,
and the caller stores what comes out meanwhile. Queues are bounded, so memory stays flat however many posts there are.

Threads, not processes: Pillow and torch let go of the interpreter while they work, and nothing is copied or forked.
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

Loaded = tuple[bytes, Pixels | None, str]  # content hash, views (V, H, W, 3), why there are none
Block = tuple[range, dict[int, Loaded]]


def encoded_blocks(
    todo: Iterable[range],
    needed: NDArray[np.bool_],
    load: Callable[[int], Loaded],
    encode: Callable[[Pixels], Embeddings],
    shape: tuple[int, ...],
    workers: int,
) -> Generator[tuple[range, dict[int, Loaded], Embeddings], None, None]:
    """Blocks of rows in order: which rows, what was loaded of those that are needed (N,), and the embeddings (n * V, D)
    of all the block's pictures.

    shape: of one row's views, (V, H, W, 3). Rows that need nothing, or have no picture, keep their place as black
    pictures: the batch keeps its shape. Close the generator to stop early; errors of the stages come out here.
    """

    spare: list[Pixels] = []  # used again: large buffers that come and go leave the heap full of holes

    def picture_block(block: range, loaded: dict[int, Loaded]) -> Pixels:
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
                pixels = picture_block(block, loaded)
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
