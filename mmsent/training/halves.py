"""Posts that lack a half: how many there are, which heads learn from them, and what is said of those left out.

N rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmsent.config import HALF_DROPOUT, HALF_POSTS, FitSettings, Fusion
from mmsent.features.cache import IMAGE_BAD, NO_LABEL, TEXT_BAD, Columns, RowIndex

Missing = NDArray[np.bool_]

# What posts are called by what they have, by the outcome of their row.
KINDS = {0: "both halves", TEXT_BAD: "image only", IMAGE_BAD: "text only"}
LACKS = {IMAGE_BAD: "image", TEXT_BAD: "text"}
LACKING = ("image", "text", "both")  # the order of `half_posts`


def missing_halves(outcome: NDArray[np.uint8]) -> Missing:
    """(N, 2) bool from a cache's outcomes: which rows lack the image, which the text."""
    return np.stack([(outcome & IMAGE_BAD) > 0, (outcome & TEXT_BAD) > 0], axis=1)


def lackable(settings: FitSettings) -> tuple[int, ...]:
    """The halves, as bits of a row's outcome, that posts may lack from which a head learns: the one that it does not
    read; either, where modality dropout teaches it to do without."""
    if settings.fusion in (Fusion.image, Fusion.text):
        return (TEXT_BAD if settings.fusion is Fusion.image else IMAGE_BAD,)
    return (IMAGE_BAD, TEXT_BAD) if settings.modality_dropout else ()


def taken(outcome: NDArray[np.uint8], lacking: Sequence[int]) -> NDArray[np.bool_]:
    """(N,) rows that are whole, or lack a half that they may lack."""
    found: NDArray[np.bool_] = np.isin(outcome, (0, *lacking))
    return found


def half_posts(index: RowIndex | Columns) -> dict[int, int]:
    """How many labelled rows lack the image alone, the text alone, by the bit, and both, by both bits."""
    of = index.outcome[index.labels != NO_LABEL]
    return {bits: int((of == bits).sum()) for bits in (IMAGE_BAD, TEXT_BAD, IMAGE_BAD | TEXT_BAD)}


def left_out(index: RowIndex | Columns, lacking: Sequence[int] = ()) -> str:
    """How many labelled rows lack a half that they may not lack, in words; empty where none does."""
    n = {bits: count for bits, count in half_posts(index).items() if bits not in lacking and count}
    if not n:
        return ""
    words = {IMAGE_BAD: "lack an image", TEXT_BAD: "lack a text", IMAGE_BAD | TEXT_BAD: "lack both"}
    shown = ", ".join(f"{count} {words[bits]}" for bits, count in n.items())
    hint = ""
    if n.keys() & LACKS.keys() and not lacking:
        hint = "; --fusion image and --fusion text train on every row that has their half, --modality-dropout on all"
    return f" (of {int((index.labels != NO_LABEL).sum())} labelled rows {shown}{hint})"


def with_half_posts(wanted: Sequence[FitSettings], index: RowIndex | Columns) -> tuple[list[FitSettings], str]:
    """Settings for these training rows where nobody chose modality dropout, and what to say of it: it is on for heads
    that read both halves where more than HALF_POSTS of the rows lack one, and not all the same one."""
    n, total = half_posts(index), int((index.labels != NO_LABEL).sum())
    neither = n[IMAGE_BAD | TEXT_BAD]
    few = n[IMAGE_BAD] + n[TEXT_BAD] <= HALF_POSTS * total
    if few or max(n[IMAGE_BAD], n[TEXT_BAD]) + neither == total or all(map(lackable, wanted)):
        return list(wanted), ""
    on = {"modality_dropout": HALF_DROPOUT}
    return [one if lackable(one) else one.model_copy(update=on) for one in wanted], (
        f"{n[IMAGE_BAD]} of {total} training posts have no image and {n[TEXT_BAD]} no text, so modality dropout "
        f"{HALF_DROPOUT:g} is on: heads train on them and label such posts; --modality-dropout 0 leaves them out"
    )
