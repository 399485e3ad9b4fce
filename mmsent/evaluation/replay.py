"""Replay: fit a run again from what it recorded, and compare. On the same machine and versions the head must repeat to
the bit; elsewhere its predictions must stay within a stated tolerance, and what differs is named.

Shapes: N validation rows, C classes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmsent.errors import CacheError, UsageError
from mmsent.features.cache import Cache, Features
from mmsent.features.cache.finding import list_caches
from mmsent.inference.logits import head_logits
from mmsent.inference.tuned import Texts, blocks_from
from mmsent.metrics import scores
from mmsent.system.provenance import Difference, differences
from mmsent.training.calibration import apply_temperature
from mmsent.training.fit import Training, data_facts, fit, read_history
from mmsent.training.halves import LACKS
from mmsent.training.runs import Run
from mmsent.training.sides import Sides, sides

# What a run fitted elsewhere may differ by on its validation rows: other orders of summation move the last bits, and
# training amplifies them. See docs/notes.md for what was measured.
SAME_LABELS = 0.99  # at least this share of the labels is the same
MEAN_PROBABILITY = 1e-3  # at most this mean absolute difference of the probabilities


@dataclass(frozen=True)
class HeadDistance:
    """How far two heads are apart on the validation rows. labels: share of rows with the same label; mean and largest
    absolute difference of the calibrated probabilities; largest of the logits; f1: the new weighted F1 less the old."""

    rows: int
    labels: float
    mean_probability: float
    largest_probability: float
    largest_logit: float
    f1: float

    @property
    def within(self) -> bool:
        """Whether that is within the tolerance for another machine or other versions."""
        return self.labels >= SAME_LABELS and self.mean_probability <= MEAN_PROBABILITY


@dataclass(frozen=True)
class Replay:
    """A run and the run fitted again. parts: what was compared byte by byte, with its outcome; apart: None where the
    head is the same to the bit; differences: what is not as recorded."""

    run: Run
    again: Run
    parts: dict[str, bool]
    apart: HeadDistance | None
    differences: list[Difference]

    @property
    def identical(self) -> bool:
        """Whether head, history and validation predictions repeat to the bit."""
        return all(self.parts.values())

    @property
    def ok(self) -> bool:
        """Identical; or within the tolerance, where something that may move numbers differs or was not recorded."""
        return self.identical or bool(self.differences and (self.apart is None or self.apart.within))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        apart = None
        if self.apart is not None:
            apart = {name: round(value, 8) for name, value in vars(self.apart).items()} | {"within": self.apart.within}
        return {
            "run": str(self.run.path),
            "ok": self.ok,
            "identical": self.identical,
            "parts": self.parts,
            "apart": apart,
            "differences": [difference.to_json() for difference in self.differences],
        }


def cache_of(run: Run, where: Path | None, folder: Path) -> Cache:
    """The cache that a run was fitted on: `where` (a file, or a folder to look in), else where the run found it, else
    in `folder`. Raises CacheError where it is gone or holds other features."""
    recorded = run.info["cache"]
    if where is not None and not where.exists():
        raise CacheError(f"there is no cache at {where}; name the cache of run {run.name} or its folder with --cache")
    wanted = recorded["fingerprint"]
    first = where if where is not None else Path(recorded["path"])
    if first.is_file():
        cache = Cache.open(first)
        if cache.fingerprint == wanted:
            return cache
        raise CacheError(
            f"run {run.name} was fitted on features {wanted[:8]}, and {first} holds {cache.fingerprint[:8]} of "
            f"{cache.encoder}; a replay needs the same settings, weights and versions (`mmsent cache explain`)"
        )
    for place in [where] if where is not None else [first.parent, folder]:
        for cache in list_caches(place) if place.is_dir() else ():
            if cache.fingerprint == wanted and cache.data_name == recorded["data_name"]:
                return cache
    looked = where if where is not None else f"{recorded['path']} and {folder}"
    raise CacheError(
        f"the cache of run {run.name} ({recorded['data_name']}, {recorded['encoder']}, {wanted[:8]}) is not in "
        f"{looked}; name its file or folder with --cache, or make it again with `mmsent extract`"
    )


def replay(run: Run, cache: Cache, out: Path, *, features: Features | None = None) -> Replay:
    """Fit `run` again on `cache`, with the recorded settings and number of threads, into the folder `out`; compare.

    features: the train split, where the caller has loaded it. Raises CacheError where the cache's rows are no longer
    those of the run, RunError where the run's own files are damaged.
    """
    run.head()  # damaged weights are reported before a minute is spent
    device = _device(run)
    memory = run.info.get("memory")
    if memory is not None:
        features = None  # the run's rows were read from disk, and so they are again
    elif features is None:
        features = cache.load("train")
    with _threads(run.info.get("machine", {}).get("threads")):
        kept, named = run.validation_ids(), run.info.get("lacking", ())  # early runs left out posts that lack a half
        lacking = tuple(bit for bit, half in LACKS.items() if half in named)
        given = sides(cache, run.split, device=device, features=features, memory=memory, kept=kept, lacking=lacking)
        _require_rows(run, cache, given)
        blocks = blocks_from(cache)
        how = Training(run.info["recipe"], device, memory, lacking=lacking, kept=kept, blocks=blocks)
        (again,) = fit(cache, out, [run.fit], run.split, how, features=features)
    parts = {
        "head": run.info["head_sha256"] == again.info["head_sha256"],
        "history": _same_history(run, again),
        "validation": (run.path / "validation.csv").read_bytes() == (again.path / "validation.csv").read_bytes(),
    }
    if run.tune:
        parts["blocks"] = run.info["blocks_sha256"] == again.info["blocks_sha256"]
    if run.calibrated:
        parts["temperature"] = run.temperature == again.temperature
    apart = None if parts["head"] else _apart(run, again, cache, features)
    return Replay(run, again, parts, apart, _named(run, again))


def _device(run: Run) -> str:
    """The run's device, or the CPU if this machine does not have it."""
    from mmsent.system.devices import pick_device

    try:
        return pick_device(run.info.get("device", "cpu"))
    except UsageError:
        return "cpu"


@contextmanager
def _threads(wanted: int | None) -> Iterator[None]:
    """Run torch with this number of threads, which decides the order of sums; restore the old number at the end."""
    import torch

    before = torch.get_num_threads()
    if wanted:
        torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)


_ROWS = {"rows": "their number", "ids": "ids", "labels": "labels", "contents": "pictures or texts"}


def _require_rows(run: Run, cache: Cache, given: Sides) -> None:
    """Raise CacheError unless the cache still gives the rows that a run was fitted on, in the same order."""
    then, now = run.info.get("data"), data_facts(cache, given)
    moved = [shown for name, shown in _ROWS.items() if then is not None and then.get(name) not in (None, now[name])]
    if not moved and given.val_ids != run.validation_ids():
        moved = ["which of them validate"]
    if moved:
        raise CacheError(
            f"the training rows of {cache.path} are no longer those of run {run.name}: {', '.join(moved)} changed; "
            "restore the data set and run `mmsent extract`, or train new heads"
        )


def _same_history(run: Run, again: Run) -> bool:
    """Whether each value that the old run recorded per epoch is the same in the new one, to the bit."""
    then, now = read_history(run), read_history(again)
    return len(then) == len(now) and all(
        json.dumps(value) == json.dumps(new.get(name))
        for old, new in zip(then, now, strict=True)
        for name, value in old.items()
    )


def _apart(run: Run, again: Run, cache: Cache, features: Features | None) -> HeadDistance:
    """How far apart the two heads are on the validation rows, both asked on this machine."""
    index = cache.index("train")
    position = {row_id: i for i, row_id in enumerate(index.ids)}
    rows = [position[row_id] for row_id in again.validation_ids()]
    if features is not None:
        image, text = features.image[rows, 0], features.text[rows]
    else:
        stored = cache.embeddings("train", rows)
        image, text = stored[0][:, 0].astype(np.float32), stored[1].astype(np.float32)
    truth = index.labels[rows]
    texts = Texts.at(np.array(rows), (run, again), cache, "train", text)
    logits = [head_logits(r, image, texts) for r in (run, again)]
    labels = [values.argmax(axis=1).astype(np.int64) for values in logits]
    probabilities = [apply_temperature(v, r.temperature) for v, r in zip(logits, (run, again), strict=True)]
    gap = np.abs(probabilities[0] - probabilities[1])
    f1 = [scores(truth, chosen, len(cache.labels))["f1_weighted"] for chosen in labels]
    return HeadDistance(
        len(rows),
        float((labels[0] == labels[1]).mean()),
        float(gap.mean()),
        float(gap.max()),
        float(np.abs(logits[0] - logits[1]).max()),
        f1[1] - f1[0],
    )


def _named(run: Run, again: Run) -> list[Difference]:
    """What is not as the run recorded it: settings, data, cache, versions, code, machine."""
    then, now = run.info, again.info
    # As they are read, not as they stand: earlier versions wrote some values otherwise.
    wanted = [
        {**one.fit.model_dump(mode="json"), **_prefixed(one.split.model_dump(mode="json"))} for one in (run, again)
    ]
    found = differences("settings", *wanted)
    data = then.get("data")
    found += differences("data", data and {"split": data["split"]}, {"split": now["data"]["split"]})
    embeddings = [(info.get("data") or {}).get("features") for info in (then, now)]
    if all(embeddings):
        found += differences("cache", {"embeddings": embeddings[0]}, {"embeddings": embeddings[1]})
    else:  # not hashed: a cache that was written again may hold other embeddings
        found += differences("cache", {"written": then["cache"].get("written")}, {"written": now["cache"]["written"]})
    found += differences("versions", then.get("versions"), now["versions"])
    code = then.get("code")
    if code is None or code["sha256"] != now["code"]["sha256"]:
        found += differences("code", code, now["code"])
    return found + differences("machine", then.get("machine"), now["machine"])


def _prefixed(split: dict[str, Any]) -> dict[str, Any]:
    return {f"split {name}": value for name, value in split.items()}
