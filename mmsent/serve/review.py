"""The predictions of a whole run beside its posts: filtered, sorted, and corrected into a list."""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmsent.data.corrections import correctable, corrected_list
from mmsent.data.dataset import Dataset, Post
from mmsent.data.images import image_bytes, open_rgb, read_image, shrunk
from mmsent.errors import DataError
from mmsent.inference.tally import Way, decision, tally
from mmsent.inference.vote import averages
from mmsent.serve.schemas import Only, Order
from mmsent.system.files import read_file
from mmsent.system.safe_csv import plain
from mmsent.training.runs import Run

THUMBNAIL = 360
FETCHING = 15.0  # seconds for an image at a URL, for somebody waits for it
VALIDATION = "validation.csv"
TEXT = 600  # characters of a text that are shown
OWN_COLUMNS = {"id", "label", "predicted", "confidence", "agreeing", "problem", "fold", "vote", "twins"}
OWN_COLUMNS |= {"voted", "decision", "manifest", "read_with"}


@dataclass(frozen=True)
class Row:
    """One prediction. label: the one that is known, None where none is; heads: each head's label."""

    id: str
    label: str | None
    predicted: str
    confidence: float
    probabilities: dict[str, float]
    heads: dict[str, str]

    @property
    def agreeing(self) -> int | None:
        """How many heads are behind the prediction; None where the heads are not known."""
        return sum(label == self.predicted for label in self.heads.values()) if self.heads else None

    @property
    def decision(self) -> str:
        """Why the prediction is not the label with the highest probability; empty where it is."""
        return decision(self.predicted, list(self.heads.values()), self.probabilities)

    @property
    def disagreement(self) -> float:
        """The share of heads that say something else."""
        return 1 - (self.agreeing or 0) / len(self.heads) if self.heads else 0.0

    @property
    def doubt(self) -> float:
        """The probability that the known label is wrong; -1 without one."""
        return 1 - self.probabilities.get(self.label, 0.0) if self.label is not None else -1.0


def read_table(path: Path, labels: Sequence[str]) -> list[Row]:
    """The rows of a table that mmsent wrote: validation.csv, oof.csv, predictions.csv, `predict --out`. Rows without a
    prediction are left out. Raises DataError where it is no such table or knows other labels."""
    try:
        text = read_file(path).decode("utf-8")
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        names = reader.fieldnames or ()
        wanted = ["id", "predicted", "confidence", *(f"p_{label}" for label in labels)]
        if absent := [name for name in wanted if name not in names]:
            raise DataError(f"{path} is not a table of predictions for these labels: it has no column {absent[0]!r}")
        numbers = {f"p_{label}" for label in labels}
        heads = [name for name in names if name not in OWN_COLUMNS | numbers]
        rows = []
        for given in reader:
            row = {name: plain(value or "") for name, value in given.items() if name is not None}
            row["predicted"] = row.get("voted", row["predicted"])  # a vote that abstained
            if not row["predicted"]:
                continue
            if row["predicted"] not in labels:
                raise DataError(f"{path}: post {row['id'][:60]!r} has the unknown label {row['predicted'][:60]!r}")
            shares = {label: float(row[f"p_{label}"]) for label in labels}
            confidence = float(row["confidence"])
            if not all(map(math.isfinite, (confidence, *shares.values()))):
                raise ValueError(f"post {row['id'][:60]!r} has a probability that is not a number")
            rows.append(
                Row(
                    row["id"],
                    row.get("label") or None,
                    row["predicted"],
                    confidence,
                    shares,
                    {name: row[name] for name in heads if row[name] in labels},
                )
            )
        return rows
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a table of predictions: {error}") from error


def source_of(path: Path) -> tuple[Path, dict[str, Any]] | None:
    """The manifest whose posts a table of `mmsent predict --manifest` holds, and the settings that were given to read
    it; None where it names none. Raises DataError where these are no settings."""
    with path.open(encoding="utf-8", newline="") as file:
        first = next(csv.DictReader(file), {})
    if not first.get("manifest"):
        return None
    try:
        given = json.loads(first.get("read_with") or "{}")
        if not isinstance(given, dict):
            raise ValueError(f"expected an object, got {type(given).__name__}")
    except ValueError as error:
        raise DataError(f"{path}: how its manifest was read cannot be read: {error}") from error
    return path.parent / plain(first["manifest"]), given


def validation_rows(runs: Sequence[Run], *, tie: str | None = None, soft: bool = False) -> tuple[list[Row], list[Run]]:
    """The vote of the runs on their validation rows, and the runs that share the rows of the first. tie, soft: as the
    service votes. Raises DataError where a table cannot be read."""
    labels = runs[0].labels
    tables = {run.name: {row.id: row for row in read_table(run.path / VALIDATION, labels)} for run in runs}
    ids = tables[runs[0].name].keys()
    shared = [run for run in runs if tables[run.name].keys() == ids]
    if not ids:
        return [], shared
    each = [[[tables[run.name][name].probabilities[x] for x in labels] for name in ids] for run in shared]
    probabilities = np.array(each, np.float64)  # (R, N, C)
    found = tally(probabilities, Way.of(labels, tie, averages(runs, soft)))
    rows = []
    for i, name in enumerate(ids):
        shares = dict(zip(labels, found.probabilities[i].tolist(), strict=True))
        said = labels[found.labels[i]]
        heads = {run.name: tables[run.name][name].predicted for run in shared}
        rows.append(Row(name, tables[shared[0].name][name].label, said, shares[said], shares, heads))
    return rows, shared


@dataclass(frozen=True)
class Wanted:
    """A filter. only: wrong, whose label is not the predicted one; split, on which heads differ. find: a part of an id
    or a text. None and the empty text take any."""

    label: str | None = None
    predicted: str | None = None
    only: Only = "all"
    least: float = 0.0
    most: float = 1.0
    find: str = ""

    def takes(self, row: Row) -> bool:
        """Whether a row passes, its text aside."""
        return (
            self.label in (None, row.label)
            and self.predicted in (None, row.predicted)
            and self.least <= row.confidence <= self.most
            and (self.only != "wrong" or row.label not in (None, row.predicted))
            and (self.only != "split" or len({*row.heads.values(), row.predicted}) > 1)
        )


EVERY_ROW = Wanted()


class Review:
    """Predictions to look through. dataset: None where the posts are not available; ids and numbers are all there is
    then, and nothing can be corrected. table, runs: where the predictions come from, for the page."""

    def __init__(
        self, rows: Sequence[Row], dataset: Dataset | None, *, table: str = "", runs: Sequence[str] = ()
    ) -> None:
        self._rows, self.dataset, self._table, self._runs = list(rows), dataset, table, list(runs)
        wanted = {row.id for row in rows}
        self._posts = {post.id: post for post in dataset.posts if post.id in wanted} if dataset else {}
        said = "\n".join([table, *runs, *(f"{row.id}\t{row.predicted}" for row in rows)])
        self._digest = hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def page(
        self, wanted: Wanted = EVERY_ROW, *, order: Order = "unsure", offset: int = 0, limit: int = 24
    ) -> dict[str, Any]:
        """The rows that pass a filter, sorted, a part of them; see `schemas.ReviewPage`."""
        keep = [i for i, row in enumerate(self._rows) if wanted.takes(row)]
        if wanted.find:
            sought = wanted.find.casefold()
            keep = [i for i in keep if sought in self._rows[i].id.casefold() or sought in self._every_text[i]]
        rows = self._rows
        if order == "unsure":
            keep.sort(key=lambda i: rows[i].confidence)
        elif order == "sure":
            keep.sort(key=lambda i: -rows[i].confidence)
        elif order == "disagreement":
            keep.sort(key=lambda i: (-rows[i].disagreement, rows[i].confidence))
        elif order == "doubtful":
            keep.sort(key=lambda i: -rows[i].doubt)
        return {
            "digest": self._digest,
            "table": self._table,
            "runs": self._runs,
            "total": len(rows),
            "matching": len(keep),
            "rows": [self._shown(i) for i in keep[offset : offset + limit]],
        }

    def picture(self, row: int) -> bytes:
        """A row's picture as a small WebP. Raises DataError where there is none."""
        post = self._post(row)
        if post is None:
            raise DataError("the data set of this post is not available")
        return image_bytes(shrunk(open_rgb(read_image(post.image, FETCHING)), THUMBNAIL), "WEBP", quality=75)

    def corrected(self, labels: Mapping[str, str]) -> tuple[str, str, bytes]:
        """The data set's list with corrected labels: file name, media type, bytes. Raises DataError as corrected_list,
        and where the posts are not available."""
        if self.dataset is None:
            raise DataError("the data set is not available; start mmsent serve with --data")
        return corrected_list(self.dataset, labels)

    def about(self, ids: Collection[str]) -> dict[str, dict[str, Any]]:
        """Of those of these posts that are in the review: row, text, and whether there is a picture."""
        found = {}
        for i, row in enumerate(self._rows):
            if row.id in ids:
                text, post = self._text(i) or "", self._posts.get(row.id)
                shown = text if len(text) <= TEXT else text[:TEXT] + "…"
                found[row.id] = {"row": i, "text": shown, "picture": post is not None and post.has_image}
        return found

    def _post(self, row: int) -> Post | None:
        if not 0 <= row < len(self._rows):
            raise DataError(f"there is no row {row}; the table has {len(self._rows)}")
        return self._posts.get(self._rows[row].id)

    @functools.cached_property
    def _correctable(self) -> set[str]:
        return correctable(self.dataset) if self.dataset is not None else set()

    def _text(self, row: int) -> str | None:
        post = self._post(row)
        try:
            return self.dataset.text_of(post) if self.dataset and post else None
        except DataError:
            return None

    @functools.cached_property
    def _every_text(self) -> list[str]:
        return [(self._text(i) or "").casefold() for i in range(len(self._rows))]

    def _shown(self, i: int) -> dict[str, Any]:
        row, post, text = self._rows[i], self._post(i), self._text(i)
        return {
            "row": i,
            "id": row.id,
            "label": row.label,
            "predicted": row.predicted,
            "confidence": row.confidence,
            "probabilities": row.probabilities,
            "heads": row.heads,
            "agreeing": row.agreeing,
            "decision": row.decision,
            "text": text if text is None or len(text) <= TEXT else text[:TEXT] + "…",
            "picture": post is not None and post.has_image,
            "correctable": row.id in self._correctable,
        }
