"""A process that extracts through the command line with encoders that are slow on purpose and log what they encode.

    python -m tests.helpers.stub_extract LOG SECONDS_A_BATCH ARGUMENTS...

Every line of LOG is one batch: the SHA-256 of each picture's pixels, or the texts. `ready` is its first.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from typing import Any

import mmsent.features.batches
import mmsent.features.cache.journal
import mmsent.features.extract
from mmsent.cli.main import main
from mmsent.data.images import Pixels
from mmsent.encoders.base import Embeddings, Encoders
from tests.helpers.fake import FakeImageEncoder, FakeTextEncoder

BATCH = 8  # rows of a batch of texts


def key(pixels: Any) -> str:
    """What stands for a picture in the log."""
    return hashlib.sha256(pixels.tobytes()).hexdigest()


def stub(log: int, seconds: float) -> Encoders:
    def say(half: str, keys: list[str]) -> None:
        os.write(log, (json.dumps([half, keys]) + "\n").encode())
        time.sleep(seconds)

    class Image(FakeImageEncoder):
        def encode(self, pixels: Pixels) -> Embeddings:
            say("image", [key(picture) for picture in pixels if picture.any()])  # black ones hold a place
            return super().encode(pixels)

    class Text(FakeTextEncoder):
        def encode(self, texts: list[str]) -> Embeddings:
            say("text", texts)
            return super().encode(texts)

    return Encoders(Image(), Text())


if __name__ == "__main__":
    handle, pause = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND), float(sys.argv[2])

    def opened(_: Any) -> Encoders:
        encoders = stub(handle, pause)
        os.write(handle, b'["ready", []]\n')
        return encoders

    mmsent.features.batches.TEXT_BATCH = BATCH
    mmsent.features.cache.journal.COMMIT_SECONDS = 0.0  # so that a batch is in flight or committed
    mmsent.features.extract.open_encoders = opened
    sys.argv[1:] = sys.argv[3:]
    main()
