"""A process that extracts through the command line with the encoders of fake.py, and says how much memory it took.

    python -m tests.helpers.fake_extract PEAK KILL_AFTER ARGUMENTS...

PEAK is the file that gets the largest resident size in bytes. KILL_AFTER: images after which it kills itself; 0: never.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

import mmsent.features.extract
from mmsent.cli.main import main
from mmsent.data.images import Pixels
from mmsent.encoders.base import Embeddings, Encoders
from tests.helpers.fake import FakeImageEncoder, FakeTextEncoder


def peak() -> int:
    """VmHWM, which begins with this program; getrusage also counts what the parent had when it forked."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found.group(1)) * 1024


if __name__ == "__main__":
    file, kill_after = Path(sys.argv[1]), int(sys.argv[2])

    class Image(FakeImageEncoder):
        def encode(self, pixels: Pixels) -> Embeddings:
            if kill_after and self.seen >= kill_after:
                file.write_text(str(peak()))
                os.kill(os.getpid(), signal.SIGKILL)
            return super().encode(pixels)

    encoders = Encoders(Image(), FakeTextEncoder())
    mmsent.features.extract.open_encoders = lambda _: encoders
    sys.argv[1:] = sys.argv[3:]
    try:
        main()
    finally:
        file.write_text(str(peak()))
