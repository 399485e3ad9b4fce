"""The log of test openings: each time `mmsent evaluate --split test` opens test labels, or `mmsent fit --folds-from`
scores test rows, a line is added to a log beside the runs.

One JSON object per line in `<runs>/test-openings.jsonl`. An opening is written down before any score is computed, and
its scores in a second line of the same number, so that an interrupted evaluation is on record too.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mmsent.errors import RunError
from mmsent.features.cache import Cache
from mmsent.system.provenance import command
from mmsent.training.runs import Run, cache_facts

LOG = "test-openings.jsonl"
WAIT = 30  # seconds for another writer


@dataclass(frozen=True)
class Opening:
    """One opening of test labels. time: ISO 8601, UTC; runs: name and SHA-256 of each head; scores: by evaluation, None
    where the evaluation did not finish."""

    key: str
    time: str
    command: list[str]
    data: str
    fingerprint: str
    runs: list[dict[str, str]]
    rows: int
    scores: dict[str, dict[str, float]] | None


def record_opening(runs: Sequence[Run], data: Path, rows: int, cache: Cache | None = None) -> str:
    """Write down, beside each of the runs, that their test labels are opened now. Returns the opening's key.

    rows: labelled test rows; cache: where they are encoded, if in another than the runs'. Raises RunError where that
    cannot be written: then nothing may be opened.
    """
    heads = [{"name": run.name, "head_sha256": run.info["head_sha256"]} for run in runs]
    facts = cache_facts(cache) if cache else runs[0].info["cache"]
    return _open(homes(runs), heads, data, rows, facts)


def record_folds(folder: Path, heads: Sequence[str], data: Path, rows: int, cache: Cache) -> str:
    """Write down in the folder of the runs that heads, named in words, are tested on the folds of a published protocol.
    Arguments, result and errors as of `record_opening`."""
    return _open([folder], [{"name": name, "head_sha256": ""} for name in heads], data, rows, cache_facts(cache))


def homes(runs: Sequence[Run]) -> list[Path]:
    """The folders whose logs tell of these runs."""
    return list(dict.fromkeys(run.home.resolve() for run in runs))


def _open(folders: Sequence[Path], heads: list[dict[str, str]], data: Path, rows: int, facts: Mapping[str, Any]) -> str:
    key = uuid.uuid4().hex
    entry = {
        "opening": key,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command(),
        "data": str(data),
        "data_name": facts["data_name"],
        "fingerprint": facts["fingerprint"],
        "runs": heads,
        "rows": rows,
    }
    _append(folders, entry)
    return key


def record_scores(folders: Sequence[Path], key: str, scores: dict[str, dict[str, float]]) -> None:
    """Write down what an opening showed: scores by evaluation. folders: those that tell of it."""
    _append(folders, {"opening": key, "scores": scores})


def _append(folders: Sequence[Path], entry: dict[str, Any]) -> None:
    line = json.dumps(entry, ensure_ascii=True) + "\n"
    for folder in folders:
        path = folder / LOG
        try:
            with FileLock(f"{path}.lock", timeout=WAIT), path.open("ab+") as file:
                if file.tell() and not _ends_line(path):
                    file.write(b"\n")  # a line that was cut short stays alone
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
        except (OSError, Timeout) as error:
            reason = getattr(error, "strerror", None) or error
            raise RunError(f"{path} cannot be written ({reason}), so the test labels stay closed") from error


def _ends_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def read_openings(folders: Sequence[Path], cache: Cache | None = None) -> list[Opening]:
    """The openings in these folders' logs, oldest first, each once; cache: only those of its data set.

    Raises RunError where a log is there and cannot be read. Lines that a crash cut short are skipped.
    """
    found: dict[str, dict[str, Any]] = {}
    for folder in dict.fromkeys(folder.resolve() for folder in folders):
        path = folder / LOG
        try:
            lines = path.read_bytes().splitlines() if path.exists() else []
        except OSError as error:
            raise RunError(f"{path} cannot be read: {error.strerror or error}") from error
        for line in lines:
            try:
                entry = json.loads(line)
                found.setdefault(str(entry["opening"]), {}).update(entry)
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
    out = []
    for key, entry in found.items():
        if "time" not in entry or (cache is not None and entry.get("data_name") != cache.data_name):
            continue
        fields = (entry.get(name) for name in ("command", "data", "fingerprint", "runs", "rows", "scores"))
        out.append(Opening(key, str(entry["time"]), *fields))  # type: ignore[arg-type]
    return sorted(out, key=lambda opening: opening.time)


def ordinal(n: int) -> str:
    """1st, 2nd, 3rd, 4th, ... 11th, ... 21st."""
    ending = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"
