"""The posts of a gallery: predictions beside their posts, as the pages' script reads them. One form for the server's
review, the audit's page and the report's errors."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mmsent.data.corrections import correctable
from mmsent.data.dataset import Dataset
from mmsent.inference.tally import decision
from mmsent.report.figures.style import label_colours

THUMBNAIL = 420  # pixels of the longer side of an image in a page: large enough to read a meme


@dataclass(frozen=True)
class Row:
    """A post and what is predicted for it. label: the one that is known, None where none is; predicted: None where
    nothing is, and then there is neither confidence nor probabilities; heads: each head's label; marked: by the
    audit."""

    id: str
    label: str | None
    predicted: str | None
    confidence: float
    probabilities: dict[str, float]
    heads: dict[str, str]
    marked: bool = False

    @property
    def decision(self) -> str:
        """Why the prediction is not the label with the highest probability; empty where it is."""
        return "" if self.predicted is None else decision(self.predicted, list(self.heads.values()), self.probabilities)


def rows_json(rows: Sequence[Row], dataset: Dataset | None) -> list[dict[str, Any]]:
    """Each row with its place, and whether its label can be corrected."""
    allowed = correctable(dataset) if dataset is not None else set()
    return [
        {"row": i, **vars(row), "decision": row.decision, "correctable": row.id in allowed}
        for i, row in enumerate(rows)
    ]


def kept_under(dataset: Dataset | None, otherwise: str) -> str:
    """What a browser keeps a data set's corrected labels under: the same for every page about it."""
    named = f"data set {os.path.realpath(dataset.root)}" if dataset is not None else otherwise
    return hashlib.sha256(named.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def gallery_json(
    rows: Sequence[Row],
    labels: Sequence[str],
    dataset: Dataset | None,
    text: Callable[[str], str | None],
    picture: Callable[[str], str | None],
    **more: Any,
) -> str:
    """A whole gallery for a page that is one file, as JSON that may stand in HTML. text, picture: of a post by its id;
    the picture as a data URL. more: what else the script is told."""
    posts = [{**row, "text": text(row["id"]) or "", "picture": picture(row["id"])} for row in rows_json(rows, dataset)]
    info = {"labels": list(labels), "colours": label_colours(labels), "heads": []}
    known = {"info": info, "digest": kept_under(dataset, str(labels)), "posts": dataset is not None, "rows": posts}
    return as_script(known | more)


def as_script(value: dict[str, Any]) -> str:
    """JSON that may stand in a script element of HTML."""
    return json.dumps(value, ensure_ascii=False).replace("<", "\\u003c")
