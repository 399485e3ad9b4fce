"""A whole sweep: all trials, the best ones repeated on other splits, and the winners fitted again and saved as runs
in the sweep's own folder, where no command takes them by itself."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from mmsent.config import SplitSettings, fit_settings
from mmsent.errors import DataError, RunError, UsageError
from mmsent.features.cache import Cache, digests
from mmsent.features.cache.groups import with_thresholds
from mmsent.sweep.database import file_url, shown_url
from mmsent.sweep.finish import Progress, Watch, conclude, earlier_end, record, save_winners, up_to_date
from mmsent.sweep.ledger import Entry, Ledger
from mmsent.sweep.pruning import SuccessiveHalving
from mmsent.sweep.results import Sweep, write_sweep
from mmsent.sweep.sampling import Sampling
from mmsent.sweep.settings import SweepSettings
from mmsent.sweep.shared_rows import SharedRows, cut_rows, write_shared
from mmsent.sweep.space import Space
from mmsent.sweep.trial import Job, Outcome
from mmsent.sweep.workers import Executor, Here, Stacked, Workers, one_thread
from mmsent.system import provenance
from mmsent.system.files import passing_folder, ready_folder
from mmsent.system.process import cores
from mmsent.training.fit import Training, validated_before
from mmsent.training.runs import cache_facts
from mmsent.training.train import precision_for
from mmsent.training.tuning import TUNING, BlocksOf

TICK = 2.0  # seconds between looks at what other processes do
BUDGET, LEAST = 0.07, 12  # whole fits that trials train together: per trial and at least, where none are asked for
SHARED = "shared-"  # prefix of a folder with arrays that worker processes map


def sweep(
    cache: Cache,
    runs: Path,
    space: Space,
    split: SplitSettings,
    options: SweepSettings,
    *,
    device: str = "cpu",
    watch: Watch | None = None,
    blocks: BlocksOf | None = None,
) -> Sweep:
    """Run a sweep, or continue it, and return its result. It reads only the training rows.

    blocks: fresh ones, for trials that tune them (see mmsent.inference.tuned). Raises UsageError if the sweep of this
    name was begun with other settings, DataError if there are too few rows, RunError if the database or the folder
    cannot be used.
    """
    began = time.monotonic()
    split = with_thresholds(split, cache.encoder)
    if cache.validation and options.folds is None:
        options = options.model_copy(update={"checks": 0})  # there are no other rows to validate on
    ready_folder(runs)
    folder = runs / options.name
    features = cache.load("train")
    tunes = space.tunes() - {""}
    lacking, kept = space.lacking(), validated_before(runs, cache, split)
    how = Training(space.recipe, device, lacking=lacking, kept=kept, blocks=blocks)
    shared = cut_rows(cache, features, split, options.folds, options.repetitions, how=how, tunes=tunes)
    url = options.storage or file_url(folder / "study.db")
    shown_url(url)
    folder.mkdir(parents=True, exist_ok=True)
    trials = min(options.trials, space.size()) if options.sampler == "grid" else options.trials
    sampling = Sampling(space, trials, options.sampler, options.seed)
    stacked = options.engine == "stacked" or (options.engine == "local" and device != "cpu")
    precision = "fp32" if stacked else precision_for(device, min(tunes, default=""))
    about = _about(cache, space, split, options) | {"validation split": _kept(shared)}
    pruner = _pruner(space, trials, options, early=not stacked and not tunes)
    ledger = Ledger(url, options.name, about, sampling, pruner=pruner, precision=precision)
    tell = watch or (lambda progress: None)
    with contextlib.ExitStack() as stack:
        make = _Lazy(lambda: stack.enter_context(_executor(shared, folder, options, device, stacked)))
        if not ledger.complete:
            _search(ledger, make.get(), shared.search, trials, options.timeout, tell)
        searched = time.monotonic() - began
        entries = _require_finished(ledger.entries())
        # If several processes run this sweep, the first one here finishes it, and the others read what it wrote.
        with FileLock(folder / "finish.lock"):
            earlier = earlier_end(folder)
            if earlier is not None and up_to_date(earlier, entries, options.repetitions):
                return earlier
            found = conclude(entries, shared, make.get, space, tell)
            saved = save_winners(cache, features, folder, found["winners"], split, how, earlier)
            for winner, name in zip(found["winners"], saved, strict=True):
                winner["run"] = name
            facts = _facts(cache, sampling, split, options) | {
                "storage": shown_url(url),
                "scored": shared.scored,
                "kept": shared.parts[0].kept,
                "trials": [record(entry) for entry in entries],
                **found,
                "importances": ledger.importances(),
                "device": device,
                "search_seconds": round(searched, 3),
                "seconds": round(time.monotonic() - began, 3),
                "finished": datetime.now(UTC).isoformat(),
                **provenance.environment(device),
            }
            return write_sweep(folder, facts)


def _pruner(space: Space, trials: int, options: SweepSettings, early: bool) -> SuccessiveHalving | None:
    if not options.prune:
        return None
    budget = options.budget or max(BUDGET * trials, min(LEAST, trials))
    return SuccessiveHalving(budget, trials, space.epochs(), options.folds or 1, early)


def _require_finished(entries: list[Entry]) -> list[Entry]:
    if not any(entry.score is not None for entry in entries):
        if entries and all(entry.outcome.problem for entry in entries):
            raise UsageError(f"no trial of {len(entries)} could be made; the first: {entries[0].outcome.problem}")
        raise DataError(
            f"no trial is finished and {len(entries)} were stopped early; run the same command again with a longer "
            "--timeout, or without one"
        )
    return entries


def _facts(cache: Cache, sampling: Sampling, split: SplitSettings, options: SweepSettings) -> dict[str, Any]:
    """What sweep.json says of the sweep's settings."""
    space = sampling.space
    values = space.to_json()
    return {
        "name": options.name,
        "cache": cache_facts(cache),
        "recipe": space.recipe,
        "space": values,
        "varied": list(space.varied),
        "ranges": {
            name: value["log"] for name, value in values.items() if isinstance(value, dict) and value.get("log")
        },
        "sampler": options.sampler,
        "seed": options.seed,
        "folds": options.folds,
        "split": split.model_dump(mode="json"),
        "asked": sampling.trials,
        "checks": options.repetitions,
        "engine": options.engine,
    }


def _about(cache: Cache, space: Space, split: SplitSettings, options: SweepSettings) -> dict[str, Any]:
    """What must be equal for scores to be comparable, by a readable name."""
    rows = digests.content(cache, "train")
    frozen = space.tunes() == {""}  # then as before there were others
    base = fit_settings(space.recipe).model_dump(mode="json", exclude=TUNING if frozen else {"lora"})
    about = {
        "cache": f"{cache.data_name} {cache.encoder} {cache.fingerprint}",
        "list of posts": {name: rows[name] for name in ("ids", "labels", "contents")},
        "number of folds": options.folds,
        "split": split.model_dump(mode="json"),
        "space": space.to_json(),
        "recipe": {"name": space.recipe, **base},
        "sampler": options.sampler,
        "seed": options.seed,
    }
    read: dict[str, Any] = json.loads(json.dumps(about))
    return read


def _kept(shared: SharedRows) -> str | None:
    """A digest of the rows that validate where an earlier run decides which; None where they follow from the rest."""
    first = shared.parts[0]
    return digests.array_digest([first.val]) if first.kept else None


class _Lazy:
    """An executor that is created at first use."""

    def __init__(self, make: Callable[[], Executor]) -> None:
        self._make = make
        self._made: Executor | None = None

    def get(self) -> Executor:
        if self._made is None:
            self._made = self._make()
        return self._made


@contextlib.contextmanager
def _executor(
    shared: SharedRows, folder: Path, options: SweepSettings, device: str, stacked: bool
) -> Iterator[Executor]:
    workers = options.workers or cores()
    made: Executor
    if options.engine == "ray":
        from mmsent.sweep.ray_tasks import RayTasks

        made = RayTasks(shared, options.address, options.workers)
    elif stacked:
        made = Stacked(shared, device)
    elif workers == 1:
        with one_thread():
            yield Here(shared, device)
        return
    else:
        with _shared_folder(shared, folder) as arrays:
            pool = Workers(arrays, workers, shared.blocks)
            try:
                yield pool
            finally:
                pool.close()
        return
    try:
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def _shared_folder(shared: SharedRows, folder: Path) -> Iterator[Path]:
    """A folder with the rows for worker processes to map."""
    with passing_folder(folder, SHARED) as made:
        try:
            written = write_shared(shared, made)
        except OSError as error:
            why = error.strerror or error
            raise RunError(f"cannot write the embeddings for the workers in {made}: {why}") from error
        yield written


# --- the search


class _Searching:
    """Passes what trials report to the ledger, and the progress to `watch`."""

    def __init__(self, ledger: Ledger, total: int, watch: Watch) -> None:
        self._ledger, self._total, self._watch = ledger, total, watch

    def report(self, number: int, step: int, value: float) -> bool:
        return self._ledger.report(number, step, value)

    def finish(self, number: int, outcome: Outcome) -> None:
        self._ledger.finish(number, outcome)
        self.tell()

    def lost(self, number: int, why: str) -> None:
        self._ledger.give_up(number, why)

    def tell(self) -> None:
        entries = self._ledger.entries()
        self._watch(Progress("searching", min(len(entries), self._total), self._total, _best(entries)))


def _search(
    ledger: Ledger, executor: Executor, parts: tuple[int, ...], total: int, timeout: float | None, watch: Watch
) -> None:
    """Run trials until every slot has one, or until the time is up."""
    book = _Searching(ledger, total, watch)
    ends = time.monotonic() + timeout if timeout is not None else None
    next_look = time.monotonic() + TICK
    book.tell()
    with ledger.beating():
        while True:
            late = ends is not None and time.monotonic() >= ends
            while executor.room and not late:
                claim = ledger.claim()
                if claim is None:
                    break
                executor.submit(Job(*claim, parts))
            if ledger.running:
                executor.step(book, 1.0)
            elif late or ledger.complete:
                return
            else:
                time.sleep(0.5)  # the remaining trials run in other processes
            if time.monotonic() >= next_look:
                ledger.reap()
                book.tell()
                next_look = time.monotonic() + TICK


def _best(entries: Sequence[Entry]) -> Entry | None:
    finished = [entry for entry in entries if entry.score is not None]
    return max(finished, key=lambda entry: (entry.outcome.value, -entry.slot), default=None)
