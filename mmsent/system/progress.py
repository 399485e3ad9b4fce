"""Progress bars: shown on a terminal, silent elsewhere."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm

FORMAT = "{desc}: {bar} {n_fmt}/{total_fmt} {unit}s, {remaining} left{postfix}"


def bar(total: int, what: str, unit: str, *, initial: int = 0, show: bool = True) -> Any:
    """A tqdm bar with the remaining time on standard error; none if that is not a terminal or `show` is off. On a
    narrow terminal the bar itself shrinks, and its text stays whole."""
    return tqdm(
        total=total,
        initial=initial,
        desc=what,
        unit=unit,
        disable=None if show else True,
        dynamic_ncols=True,
        leave=False,
        bar_format=FORMAT,
    )
