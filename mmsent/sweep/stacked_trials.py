"""Trials of equal shape, trained together."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mmsent.errors import UsageError
from mmsent.sweep.shared_rows import PartsOf
from mmsent.sweep.trial import FOLD, Job, Outcome, outcome, run_trial, stopped
from mmsent.training.stacked import shape_of, train_stack
from mmsent.training.train import evaluate_head


def stacks_of(jobs: Sequence[Job]) -> list[list[Job]]:
    """Jobs in stacks that can train together; a job that must train alone is its own stack."""
    found: dict[Any, list[Job]] = {}
    for job in jobs:
        shape = shape_of(job.settings)
        found.setdefault((shape, job.parts) if shape is not None else job.key, []).append(job)
    return list(found.values())


def run_stack(
    jobs: Sequence[Job],
    parts: PartsOf,
    classes: int,
    report: Callable[[int, int, float], bool],
) -> Iterator[tuple[Job, Outcome]]:
    """The jobs of one stack with their outcomes, as of `run_trial`. report: called with the key, the step and the
    value; if it returns true, that job stops. Seconds are each job's share."""
    if shape_of(jobs[0].settings) is None:
        for job in jobs:
            yield job, run_trial(job, parts, classes, functools.partial(report, job.key))
        return
    started = time.monotonic()
    left = list(jobs)
    reached: dict[int, list[float]] = {job.key: [] for job in jobs}
    epochs = dict.fromkeys(reached, 0)
    best_epochs: dict[int, list[int]] = {job.key: [] for job in jobs}
    found: dict[int, list[tuple[Any, Any]]] = {job.key: [] for job in jobs}
    for at, number in enumerate(jobs[0].parts):
        part = parts(number, "")
        now = list(left)

        def on_epoch(place: int, epoch: int, best: float, at: int = at, now: list[Job] = now) -> bool:
            key = now[place].key
            epochs[key] += 1
            return report(key, at * FOLD + epoch, (sum(reached[key]) + best) / (at + 1))

        try:
            trained = train_stack(part.train, part.val, [job.settings for job in now], classes, on_epoch)
        except UsageError as error:  # what they have in common is impossible
            yield from ((job, stopped(0, 0.0, str(error))) for job in now)
            return
        for job, one in zip(now, trained, strict=True):
            if one is None:
                left.remove(job)
                yield job, stopped(epochs[job.key], (time.monotonic() - started) / len(jobs))
                continue
            reached[job.key].append(max(record["val_f1_weighted"] for record in one.history))
            best_epochs[job.key].append(one.best_epoch)
            if part.out is None:
                truth, logits = part.val.labels, one.val_logits
            else:
                truth, logits = part.out.labels, evaluate_head(one.head, part.out)[0].cpu().numpy()
            found[job.key].append((truth.cpu().numpy(), logits.argmax(axis=1).astype(np.int64)))
        if not left:
            return
    seconds = (time.monotonic() - started) / len(jobs)
    for job in left:
        yield job, outcome(found[job.key], classes, epochs[job.key], best_epochs[job.key], seconds)
