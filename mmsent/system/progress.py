"""Progress: a bar on a terminal, elsewhere a line per minute."""

from __future__ import annotations

import sys
import time
from typing import Any, Self

from tqdm import tqdm

FORMAT = "{desc}: {bar} {n_fmt}/{total_fmt} {unit}s, {remaining} left{postfix}"


MINUTE = 60.0


class Lines:
    """What a bar is where standard error is no terminal: a line per minute, in a log that somebody may watch. It takes
    what a bar takes."""

    def __init__(self, total: int, what: str, unit: str, initial: int) -> None:
        self.n, self._total, self._what, self._unit = initial, total, what, unit
        self._first, self._began, self._told = initial, time.monotonic(), time.monotonic()

    def update(self, n: float | None = 1) -> None:
        """n more are done."""
        self.n += int(n or 0)
        now = time.monotonic()
        if now < self._told + MINUTE:
            return
        self._told = now
        left = (self._total - self.n) * (now - self._began) / max(1, self.n - self._first)
        text = f"{self._what}: {self.n} of {self._total} {self._unit}s, about {max(1, round(left / MINUTE))} min left"
        print(text, file=sys.stderr, flush=True)

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        """Of a bar alone."""

    def close(self) -> None:
        """Nothing is left to do."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def bar(total: int, what: str, unit: str, *, initial: int = 0, show: bool = True) -> Any:
    """A tqdm bar with the remaining time on standard error; lines if that is not a terminal, none if `show` is off. On
    a narrow terminal the bar itself shrinks, and its text stays whole."""
    if show and not sys.stderr.isatty():
        return Lines(total, what, unit, initial)
    return tqdm(
        total=total,
        initial=initial,
        desc=what,
        unit=unit,
        disable=not show,
        dynamic_ncols=True,
        leave=False,
        bar_format=FORMAT,
    )


def tell(text: str) -> None:
    """A line on standard error that leaves a bar as it is."""
    tqdm.write(text, file=sys.stderr)
