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

from mmsent.encoders import Embeddings
from mmsent.images import Pixels

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

    def picture_block(block: range, loaded: dict[int, Loaded]) -> Pixels:
        pixels = np.zeros((len(block), *shape), np.uint8)
        for i, (_, picture, _) in loaded.items():
            if picture is not None:
                pixels[i - block.start] = picture
        return pixels.reshape(-1, *shape[1:])

    decoders, encoder = ThreadPoolExecutor(workers), ThreadPoolExecutor(1)
    try:
        decoding: deque[tuple[range, dict[int, Future[Loaded]]]] = deque()
        encoding: deque[tuple[Block, Future[Embeddings]]] = deque()
        blocks = iter(todo)
        while True:
            for block in islice(blocks, DECODED + 1 - len(decoding)):
                decoding.append((block, {i: decoders.submit(load, i) for i in block if needed[i]}))
            if decoding:
                block, futures = decoding.popleft()
                loaded = {i: future.result() for i, future in futures.items()}
                encoding.append(((block, loaded), encoder.submit(encode, picture_block(block, loaded))))
            if not encoding:
                return
            if len(encoding) > ENCODED or not decoding:
                (block, loaded), done = encoding.popleft()
                yield block, loaded, done.result()
    finally:
        for pool in (decoders, encoder):
            pool.shutdown(wait=False, cancel_futures=True)
