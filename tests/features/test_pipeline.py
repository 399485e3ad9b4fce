"""The stages of an extraction: order, overlap, bounded queues, and what an error does."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from mmsent.data.images import Pixels
from mmsent.encoders.base import Embeddings
from mmsent.features.batches import blocks
from mmsent.features.pipeline import DECODED, ENCODED, Loaded, encoded_blocks

SHAPE = (2, 3, 3, 3)  # two views


def load(i: int) -> Loaded:
    if i == 5:
        return b"5", None, "broken", False
    return bytes([i]), np.full(SHAPE, i + 1, np.uint8), "", False


def encode(pixels: Pixels) -> Embeddings:
    return pixels[:, 0, 0, :1].astype(np.float32)


@pytest.mark.parametrize("workers", [1, 4])
def test_blocks_come_in_order_and_keep_their_shape(workers: int) -> None:
    needed = set(range(23)) - {2, 12, 13, 14, 15}
    todo = [b for b in blocks(23, 4) if not needed.isdisjoint(b)]
    flags = np.array([i in needed for i in range(23)])
    found = list(encoded_blocks(todo, flags, load, encode, SHAPE, workers))
    assert [block for block, _, _ in found] == todo
    assert range(12, 16) not in todo
    for block, loaded, vectors in found:
        assert set(loaded) == needed & set(block)
        black = {2, 5}  # needs nothing; has no picture
        assert vectors[:, 0].tolist() == [0 if i in black else i + 1 for i in block for _ in range(2)]
    assert found[1][1][5] == (b"5", None, "broken", False)


def test_nothing_to_do() -> None:
    assert list(encoded_blocks([], np.zeros(0, bool), load, encode, SHAPE, 1)) == []


def test_queues_are_bounded_and_stages_overlap() -> None:
    """However slow the caller is, only a few blocks are loaded ahead; and the encoder works while the caller does."""
    loaded: list[int] = []
    encoding = threading.Event()

    def slow_load(i: int) -> Loaded:
        loaded.append(i)
        return load(i)

    def told(pixels: Pixels) -> Embeddings:
        encoding.set()
        return encode(pixels)

    stream = encoded_blocks(blocks(400, 4), np.ones(400, bool), slow_load, told, SHAPE, 2)
    for taken in range(1, 20):
        next(stream)
        time.sleep(0.01)
        assert len(loaded) <= 4 * (taken + DECODED + 1 + ENCODED)
    encoding.clear()
    next(stream)
    assert encoding.wait(5)  # the next block, though nobody has asked for it
    stream.close()
    after = len(loaded)
    time.sleep(0.05)
    assert len(loaded) <= after + 2  # what was being loaded when the stream was closed


@pytest.mark.parametrize("where", ["load", "encode"])
def test_an_error_of_a_stage_comes_out_after_what_was_finished(where: str) -> None:
    def bad_load(i: int) -> Loaded:
        if where == "load" and i == 13:
            raise OSError("disk gone")
        return load(i)

    def bad_encode(pixels: Pixels) -> Embeddings:
        if where == "encode" and (pixels == 14).any():
            raise OSError("disk gone")
        return encode(pixels)

    stream = encoded_blocks(blocks(40, 4), np.ones(40, bool), bad_load, bad_encode, SHAPE, 2)
    done: list[range] = []
    with pytest.raises(OSError, match="disk gone"):
        done.extend(block for block, _, _ in stream)
    assert done == list(blocks(12, 4))[: len(done)]
    assert len(done) >= 3 - ENCODED
