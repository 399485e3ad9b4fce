"""Memory that is too small: passes are halved, and what was done is kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import mmsent.training.train
from mmsent.config import FitSettings
from mmsent.errors import RunError
from mmsent.report.explanations import Explainer
from mmsent.report.study import Unavailable
from mmsent.sweep import stacked_trials
from mmsent.sweep.shared_rows import PartRows
from mmsent.sweep.trial import Job
from mmsent.sweep.workers import Stacked
from mmsent.system.memory import Halving, out_of_memory
from mmsent.training.loaders import Moved, Tensors, on_host
from mmsent.training.train import train_head
from tests.helpers.mps import MpsRows, pretended_mps

SMALL: dict[str, Any] = {"hidden": 8, "epochs": 2, "batch_size": 8, "precision": "fp32"}


def full() -> torch.OutOfMemoryError:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def rows(n: int, seed: int) -> Tensors:
    made = torch.Generator().manual_seed(seed)
    return Tensors(torch.randn(n, 2, 6, generator=made), torch.randn(n, 6, generator=made), torch.arange(n) % 3)


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (full(), True),
        (MemoryError(), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("size mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_how_a_device_says_it(error: Exception, short: bool) -> None:
    assert out_of_memory(error) is short


def test_halves_are_kept_and_other_errors_pass() -> None:
    fit, sizes = Halving(lambda: RunError("not even one")), []

    def run(size: int) -> int:
        sizes.append(size)
        if size > limit:
            raise full()
        return size

    limit = 3
    assert fit(run, 16) == 2
    assert fit(run, 1) == 1
    assert fit(run, 16) == 2
    assert sizes == [16, 8, 4, 2, 1, 2]
    limit = 0
    with pytest.raises(RunError, match="not even one"):
        fit(run, 16)
    with pytest.raises(ZeroDivisionError):
        fit(lambda _: 1 // 0, 4)


def test_a_head_trains_from_the_hosts_memory_where_the_device_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    train, val, settings = rows(40, 1), rows(20, 2), FitSettings(**SMALL)
    usual = train_head(train, val, settings, 3)
    epoch = mmsent.training.train._one_epoch
    seen: list[type] = []

    def once(head: Any, given: Any, *rest: Any) -> float:
        seen.append(type(given))
        if not isinstance(given, Moved):
            raise full()
        return epoch(head, given, *rest)

    monkeypatch.setattr(mmsent.training.train, "_one_epoch", once)
    with pretended_mps(monkeypatch) as mps:
        there = [MpsRows(*(mps.put(part.clone()) for part in (r.image, r.text, r.labels))) for r in (train, val)]
        found = train_head(*there, settings, 3)
    assert seen == [MpsRows, Moved, Moved]
    assert np.array_equal(found.val_logits, usual.val_logits)
    with pytest.raises(torch.OutOfMemoryError):  # on a CPU there is nowhere else to go
        train_head(train, val, settings, 3)


def test_rows_that_are_moved_batch_by_batch_are_the_same() -> None:
    given, settings = rows(20, 1), FitSettings(**SMALL)
    moved = on_host(given)
    assert isinstance(moved, Moved)
    assert moved.widths == given.widths
    a, b = (list(one.epoch(settings, torch.Generator().manual_seed(0))) for one in (given, moved))
    pairs = [pair for mine, its in zip(a, b, strict=True) for pair in zip(mine, its, strict=True)]
    assert all(x is y is None or torch.equal(x, y) for x, y in pairs)
    assert sum(x is None for x, _ in pairs) == len(a)  # no row lacks a half


class Book:
    """What a sweep tells of its trials."""

    def __init__(self) -> None:
        self.found: dict[int, Any] = {}

    def report(self, number: int, step: int, value: float) -> bool:
        return False

    def finish(self, number: int, outcome: Any) -> None:
        assert number not in self.found
        self.found[number] = outcome

    def lost(self, number: int, why: str) -> None:
        raise AssertionError(why)


def test_a_stack_of_trials_that_does_not_fit_goes_in_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    part = PartRows(rows(40, 1), rows(20, 2), None)
    jobs = [Job(k, FitSettings(**SMALL, seed=k), (0,)) for k in range(5)]
    sizes: list[int] = []
    train = stacked_trials.train_stack

    def small(first: Any, second: Any, wanted: Any, *rest: Any) -> Any:
        sizes.append(len(wanted))
        if len(wanted) > 2:
            raise full()
        return train(first, second, wanted, *rest)

    def computed() -> dict[int, Any]:
        executor, book = object.__new__(Stacked), Book()
        executor._parts, executor._classes, executor._size, executor._jobs = lambda *_: part, 3, 8, list(jobs)
        executor._fit = Halving(lambda: RunError("not one trial"))
        executor.step(book, 0.0)
        return {key: outcome.values for key, outcome in book.found.items()}

    whole = computed()
    monkeypatch.setattr(stacked_trials, "train_stack", small)
    assert computed() == whole
    assert sizes[-3:] == [2, 2, 1]
    assert sorted(whole) == [0, 1, 2, 3, 4]


def test_an_explanation_that_does_not_fit_costs_its_figure_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def explain(*_: Any, **__: Any) -> None:
        raise full()

    monkeypatch.setattr("mmsent.inference.explain.explain", explain)

    class Study:
        main = None

    with pytest.raises(Unavailable, match="the memory is too small to explain a post"):
        Explainer(Study(), object())._explain(None, None)  # type: ignore[arg-type]
