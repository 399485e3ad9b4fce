"""What to do where a device's memory is full: smaller passes, by one way for all that need it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

from mmsent.errors import MmsentError

T = TypeVar("T")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of the machine or of its accelerator is used up; each says so in its own
    way."""
    text = str(error).lower()
    named = type(error).__name__ == "OutOfMemoryError" or "out of memory" in text or "can't allocate memory" in text
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and named)


def free_memory() -> None:
    """Give back what torch keeps of a GPU's memory for later. Call it where the error is no longer held, for with it
    everything is held that was computed."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


class Halving:
    """Passes that fit into memory: after one that does not, it and all later ones are halved. refusal: the error where
    not even one of what a pass takes fits."""

    def __init__(self, refusal: Callable[[], MmsentError]) -> None:
        self._refusal = refusal
        self.most: int | None = None  # of one pass, once a larger one has failed

    def __call__(self, run: Callable[[int], T], n: int) -> T:
        """run(size): does all that is left to do, at most `size` a pass. It is called again with half of that where
        memory is short, so it should keep what it has done. n: the size to begin with."""
        size = min(n, self.most or n)
        while True:
            try:
                return run(size)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                if size <= 1:
                    raise self._refusal() from error
            size = self.most = size // 2
            free_memory()
