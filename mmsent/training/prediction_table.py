"""Tables of predictions: one row per post, as `mmsent vote`, predict and fit write them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsent.system.safe_csv import csv_text


def predictions_csv(
    ids: Sequence[str],
    labels: Sequence[str],
    probabilities: NDArray[np.float64],
    truth: Sequence[str | None] | None = None,
    predicted: Sequence[str] | None = None,
    extra: dict[str, Sequence[Any]] | None = None,
    answers: Sequence[str] | None = None,
) -> str:
    """A table of predictions as CSV text: id, label (where known), predicted, confidence, p_<label>..., extras.

    predicted: N labels, where they are not simply the likeliest; empty: no label. answers: what is written in their
    place (see mmsent.inference.abstain); they follow as `voted`. The confidence is the predicted label's probability.
    Cells that a spreadsheet would take for a formula are escaped (see mmsent.system.safe_csv).
    """
    columns = ["id", *(["label"] if truth is not None else []), "predicted", "confidence"]
    numbers: dict[str, int | None] = {name: i for i, name in enumerate(labels)} | {"": None}
    best: list[Any] = (
        [numbers[name] for name in predicted] if predicted is not None else probabilities.argmax(axis=1).tolist()
    )

    def rows() -> Iterator[list[Any]]:
        yield [*columns, *(f"p_{name}" for name in labels), *(["voted"] if answers is not None else []), *(extra or {})]
        for i, row_id in enumerate(ids):
            known = [truth[i] or ""] if truth is not None else []
            more = [values[i] for values in (extra or {}).values()]
            label = "" if best[i] is None else labels[best[i]]
            told = label if answers is None else answers[i]
            more = more if answers is None else [label, *more]
            if best[i] is None:
                yield [row_id, *known, told, *[""] * (1 + len(labels)), *more]
                continue
            row = probabilities[i]
            shown = [told, f"{row[best[i]]:.6f}"]
            yield [row_id, *known, *shown, *(f"{p:.6f}" for p in row), *more]

    return csv_text(rows())
