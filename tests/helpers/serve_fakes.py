"""`mmsent serve` with the encoders of fake.py, which take some time a batch.

python -m tests.helpers.serve_fakes SECONDS_A_BATCH ARGUMENTS...
"""

from __future__ import annotations

import sys
import time
from typing import Any

import mmsent.inference.predict
from mmsent.cli.main import main
from mmsent.data.images import Pixels
from mmsent.encoders.base import Embeddings, Encoders
from tests.helpers.fake import FakeImageEncoder, FakeTextEncoder

if __name__ == "__main__":
    pause = float(sys.argv[1])

    class Image(FakeImageEncoder):
        def encode(self, pixels: Pixels) -> Embeddings:
            time.sleep(pause)
            return super().encode(pixels)

    def opened(_: Any) -> Encoders:
        return Encoders(Image(), FakeTextEncoder())

    mmsent.inference.predict.open_encoders = opened
    sys.argv[1:] = ["serve", *sys.argv[2:]]
    main()
