"""Progress bars: shown on a terminal, silent elsewhere."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm


def bar(total: int, what: str, unit: str, *, initial: int = 0, show: bool = True) -> Any:
    """A tqdm bar with rate and remaining time on standard error; none if that is not a terminal or `show` is off."""
    return tqdm(
        total=total,
        initial=initial,
        desc=what,
        unit=unit,
        disable=None if show else True,
        dynamic_ncols=True,
        leave=False,
    )
