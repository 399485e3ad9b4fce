"""Posts to look through and to label: with the predictions of a whole run, or with none."""

from __future__ import annotations

import csv
import functools
import io
import json
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmsent.data.corrections import correctable, corrected_list
from mmsent.data.dataset import Dataset, Post
from mmsent.data.images import image_bytes, open_rgb, read_image, shrunk
from mmsent.errors import DataError, MmsentError
from mmsent.evaluation.agreement import Agreement, agreement, majority
from mmsent.features.cache import NO_LABEL, Cache
from mmsent.inference.tally import Way, tally
from mmsent.inference.useful import useful_order
from mmsent.inference.vote import averages, vote_split
from mmsent.report.gallery import THUMBNAIL, Row, kept_under, rows_json
from mmsent.report.landscape import features_of
from mmsent.system.files import read_file
from mmsent.system.safe_csv import plain
from mmsent.training.runs import Run

FETCHING = 15.0  # seconds for an image at a URL, for somebody waits for it
VALIDATION = "validation.csv"
FORMS = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png", b"GIF8": "image/gif"}  # sent as they are
PEOPLE = 50  # who may label at once
USEFUL = 500  # posts in the order of their use, enough for an evening
TEXT = 600  # characters of a text that are shown
OWN_COLUMNS = {"id", "label", "predicted", "confidence", "agreeing", "problem", "fold", "vote", "twins"}
OWN_COLUMNS |= {"voted", "decision", "manifest", "read_with"}


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
        heads = {run.name: tables[run.name][name].predicted or "" for run in shared}
        rows.append(Row(name, tables[shared[0].name][name].label, said, shares[said], shares, heads))
    return rows, shared


def unlabelled_rows(dataset: Dataset) -> list[Row]:
    """All posts of a data set, with nothing predicted."""
    return [Row(post.id, post.label, None, 0.0, {}, {}) for post in dataset.posts]


def waiting_rows(
    cache: Cache, runs: Sequence[Run], dataset: Dataset | None, *, tie: str | None = None, soft: bool = False
) -> list[Row]:
    """The posts of a cache that have no label and can get one, with the vote on them; none where the runs cannot label
    them. tie, soft: as the service votes."""
    allowed = correctable(dataset) if dataset is not None else set()
    rows = []
    for split in cache.rows:
        index = cache.index(split)
        bare = {i for i in np.flatnonzero(index.good & (index.labels == NO_LABEL)).tolist() if index.ids[i] in allowed}
        try:
            found = vote_split(runs, cache, split, tie=tie, soft=averages(runs, soft)) if bare else None
        except MmsentError:
            found = None
        if found is None:
            continue
        for i in sorted(bare - {*found.fallback}):
            shares = dict(zip(found.labels, found.probabilities[i].tolist(), strict=True))
            heads = {run.name: said[i] for run, said in zip(found.runs, found.choices, strict=True) if said[i]}
            rows.append(Row(found.ids[i], None, found.predicted[i], shares[found.predicted[i]], shares, heads))
    return rows


class Review:
    """Posts to look through and to label, for one or several people. dataset: None where the posts are not available;
    ids and numbers are all there is then, and nothing can be corrected. table, runs: where the predictions come from,
    for the page; cache: of the heads, where it is at hand. People's labels stay in memory here and in their
    browsers."""

    def __init__(
        self,
        rows: Sequence[Row],
        dataset: Dataset | None,
        *,
        table: str = "",
        runs: Sequence[str] = (),
        cache: Cache | None = None,
    ) -> None:
        self._cache = cache
        self._rows, self.dataset, self._table, self._runs = list(rows), dataset, table, list(runs)
        wanted = {row.id for row in rows}
        self._posts = {post.id: post for post in dataset.posts if post.id in wanted} if dataset else {}
        self._people: dict[str, dict[str, str]] = {}

    def page(self) -> dict[str, Any]:
        """All rows, without their texts; see `page_schemas.ReviewPage`."""
        rows = rows_json(self._rows, self.dataset)
        for row in rows:
            post = self._posts.get(row["id"])
            row["picture"] = post is not None and post.has_image
        digest = kept_under(self.dataset, "\n".join([self._table, *self._runs]))
        known = {"digest": digest, "table": self._table, "runs": self._runs, "posts": self.dataset is not None}
        fresh = self.dataset is not None and self.dataset.layout == "folder"
        return {**known, "fresh": fresh, "useful": bool(self.waiting), "rows": rows}

    @functools.cached_property
    def _correctable(self) -> set[str]:
        return correctable(self.dataset) if self.dataset else set()

    @functools.cached_property
    def waiting(self) -> list[Row]:
        """Posts that can be labelled and have no label, with what the heads say of them; none without a cache."""
        allowed = self._correctable if self._cache else set()
        return [row for row in self._rows if row.label is None and row.probabilities and row.id in allowed]

    @functools.cached_property
    def useful(self) -> list[str]:
        """Ids of the waiting posts, the most useful to label first, by their features in the cache; at most USEFUL."""
        if self._cache is None or not self.waiting:
            return []
        places, features = features_of(self._cache, [row.id for row in self.waiting])
        known = [self.waiting[i] for i in places]
        if not known:
            return []
        shares = np.array([list(row.probabilities.values()) for row in known])
        return [known[i].id for i in useful_order(shares, features, USEFUL).tolist()]

    def texts(self, rows: Sequence[int], *, whole: bool = False) -> list[str]:
        """The beginnings of the texts of some rows, or all of them; empty where there is none."""
        found = [self._text(row) for row in rows]
        return [text if whole or len(text) <= TEXT else text[:TEXT] + "…" for text in found]

    def examples(self) -> list[int]:
        """Rows to show somebody first, all with image and text: for each label the surest of those that are right, and
        one on which the heads differ."""
        sure = sorted(range(len(self._rows)), key=lambda i: -self._rows[i].confidence)
        known = [i for i in sure if self._rows[i].predicted is not None]
        right = [i for i in known if self._rows[i].label == self._rows[i].predicted]
        right = right or [i for i in known if self._rows[i].label is None]
        clear = [[i for i in right if self._rows[i].predicted == label] for label in sorted({*self._predicted(right)})]
        split = [i for i in reversed(known) if len({*self._rows[i].heads.values()}) > 1]
        found = [next(filter(self._whole, places), None) for places in [*clear, split]]
        return list(dict.fromkeys(i for i in found if i is not None))

    def _predicted(self, rows: Sequence[int]) -> list[str]:
        return [self._rows[i].predicted or "" for i in rows]

    def _whole(self, row: int) -> bool:
        post = self._post(row)
        return post is not None and post.has_image and bool(self._text(row))

    def find(self, text: str) -> list[int]:
        """The rows with this text in their post's text or id."""
        sought = text.casefold()
        return [i for i, one in enumerate(self._every_text) if sought in one or sought in self._rows[i].id.casefold()]

    def picture(self, row: int, *, whole: bool = False) -> tuple[bytes, str]:
        """A row's image as a small WebP, or whole as it is, with its media type. Raises DataError where there is
        none."""
        post = self._post(row)
        if post is None:
            raise DataError("the data set of this post is not available")
        raw = read_image(post.image, FETCHING)
        if not whole:
            return image_bytes(shrunk(open_rgb(raw), THUMBNAIL), "WEBP", quality=75), "image/webp"
        media = next((one for start, one in FORMS.items() if raw.startswith(start)), None)
        return (raw, media) if media else (image_bytes(open_rgb(raw), "PNG"), "image/png")

    def share(self, person: str, labels: Mapping[str, str]) -> Agreement:
        """Keep somebody's labels, in place of those they gave before; how far all people agree. Raises DataError where
        there are too many people, and on labels that could not stand in the list, which would be nobody's then."""
        if person not in self._people and len(self._people) >= PEOPLE:
            raise DataError(f"{PEOPLE} people label here already")
        if self.dataset is not None:
            for name, label in labels.items():
                if name not in self._correctable or label not in self.dataset.settings.labels:
                    raise DataError(f"post {name[:60]!r} cannot be labelled {label[:60]!r} here; nothing was kept")
        self._people[person] = dict(labels)
        self._people = {name: given for name, given in self._people.items() if given or name == person}
        return agreement(self._people)

    def corrected(self, labels: Mapping[str, str]) -> tuple[str, str, bytes]:
        """The data set's list with corrected labels: file name, media type, bytes. Where several people label, with
        what most of them say, and else with these. Raises DataError as corrected_list, and where the posts are not
        available."""
        if self.dataset is None:
            raise DataError("the data set is not available; start mmsent serve with --data")
        return corrected_list(self.dataset, majority(self._people) if len(self._people) > 1 else labels)

    def about(self, ids: Collection[str]) -> dict[str, dict[str, Any]]:
        """Of those of these posts that are in the review: row, text, and whether there is a picture."""
        found = {}
        for i, row in enumerate(self._rows):
            if row.id in ids:
                post = self._posts.get(row.id)
                (text,) = self.texts([i])
                found[row.id] = {"row": i, "text": text, "picture": post is not None and post.has_image}
        return found

    def _post(self, row: int) -> Post | None:
        if not 0 <= row < len(self._rows):
            raise DataError(f"there is no row {row}; the table has {len(self._rows)}")
        return self._posts.get(self._rows[row].id)

    def _text(self, row: int) -> str:
        post = self._post(row)
        try:
            return self.dataset.text_of(post) if self.dataset and post else ""
        except DataError:
            return ""

    @functools.cached_property
    def _every_text(self) -> list[str]:
        return [self._text(i).casefold() for i in range(len(self._rows))]
