"""What each part of the training step costs on a whole fit, beside torch's own part and beside another checkout.

    git worktree add /tmp/before 4505b09           # the last commit with hand-written gradients
    python scripts/bench_step.py --before /tmp/before

Fits of the report's recipe (3,500 rows, five views; all six fusions) take turns in one process on one thread. A ratio
is the median over rounds of paired CPU seconds, so that a busy machine blurs it less. Columns: mmsent; the same with
one part in torch's own form (the AdamW object, nn.Dropout, CrossEntropyLoss, autocast); all of these, the plain loop;
a stack of one head (fp32 alone).
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from bench_common import machine, table
from bench_fit import CLASSES, make_rows
from torch import Tensor, nn

from mmsent.config import FitSettings, Fusion
from mmsent.training import train
from mmsent.training.heads import Head
from mmsent.training.loaders import Tensors
from mmsent.training.stacked import train_stack


class AdamWObject:
    """In the place of mmsent.training.optimizer.AdamW: torch's optimizer, with backward and zero_grad."""

    def __init__(self, head: Head, schedule: Iterator[tuple[float, float]], weight_decay: float) -> None:
        self._optimizer = torch.optim.AdamW(head.parameters(), weight_decay=weight_decay, fused=True)
        self._schedule, self.rate = schedule, 0.0

    def step(self, loss: Tensor) -> None:
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.rate, beta = next(self._schedule)
        self._optimizer.param_groups[0].update(lr=self.rate, betas=(beta, 0.999))
        self._optimizer.step()


def plain_loss(logits: Tensor, labels: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """CrossEntropyLoss with the recipe's smoothing."""
    return nn.functional.cross_entropy(logits, labels, weights, label_smoothing=0.1)


def autocast_linear(self: Head, weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    """A layer under torch.autocast."""
    with torch.autocast("cpu", torch.bfloat16, enabled=self._in_bfloat16):
        return nn.functional.linear(x, weight, bias).float()


PARTS: dict[str, tuple[Any, str, Any]] = {
    "AdamW object": (train, "AdamW", AdamWObject),
    "nn.Dropout": (train.Draws, "batch", lambda self, n: (None, None)),
    "CrossEntropyLoss": (train, "smoothed_loss", plain_loss),
    "autocast": (Head, "_linear", autocast_linear),
}


def fit(module: Any, parts: tuple[str, ...], rows: tuple[Any, Any], settings: dict[str, Any]) -> None:
    with ExitStack() as stack:
        for part in parts:
            stack.enter_context(patch.object(*PARTS[part]))
        module.train_head(*rows, module.FitSettings(**settings), CLASSES)


def stack_of_one(rows: tuple[Tensors, Tensors], settings: dict[str, Any]) -> None:
    if settings["precision"] == "fp32":
        train_stack(*rows, [FitSettings(**settings)], CLASSES)


def training_of(checkout: Path) -> Any:
    """mmsent.training.train of another checkout, beside the one that is loaded."""
    mine = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "mmsent"}
    for name in mine:
        del sys.modules[name]
    sys.path.insert(0, str(checkout))
    try:
        try:
            return importlib.import_module("mmsent.training.train")
        except ModuleNotFoundError:  # before the package was moved into rooms
            return importlib.import_module("mmsent.train")
    finally:
        sys.path.pop(0)
        for name in [name for name in sys.modules if name.partition(".")[0] == "mmsent"]:
            del sys.modules[name]
        sys.modules.update(mine)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="a checkout of another commit, compared with first")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--fusions", nargs="*", default=[fusion.value for fusion in Fusion])
    given = parser.parse_args()
    torch.set_num_threads(1)
    machine()
    rows = []
    for n, views, seed in ((3500, 5, 0), (500, 1, 1)):
        one = make_rows(n, 768, seed)
        rows.append((one.image.repeat(1, views, 1), one.text, one.labels))
    mine = (Tensors(*rows[0]), Tensors(*rows[1]))
    runs: dict[str, Callable[[dict[str, Any]], None]] = {}
    if given.before:
        old = training_of(given.before)
        runs["before"] = partial(fit, old, (), (old.Tensors(*rows[0]), old.Tensors(*rows[1])))
    runs["mmsent"] = partial(fit, train, (), mine)
    for part in PARTS:
        runs[part] = partial(fit, train, (part,), mine)
    runs["plain loop"] = partial(fit, train, tuple(PARTS), mine)
    runs["stack of one"] = partial(stack_of_one, mine)
    shown = [["", f"{next(iter(runs))}, s", *list(runs)[1:]]]
    for precision in ("bf16", "fp32"):
        for fusion in given.fusions:
            settings = {"fusion": fusion, "precision": precision, "epochs": given.epochs, "patience": given.epochs}
            seconds: dict[str, list[float]] = {name: [] for name in runs}
            for turn in range(given.rounds + 1):
                for name, run in runs.items():
                    started = time.process_time()
                    run(settings if turn else {**settings, "epochs": 1})  # the first turn warms up
                    if turn:
                        seconds[name].append(time.process_time() - started)
            first, *others = seconds.values()
            ratios = [statistics.median(b / a for a, b in zip(first, other, strict=True)) for other in others]
            cells = [f"{ratio:.2f}" if ratio > 0.1 else "" for ratio in ratios]
            shown.append([f"{fusion}, {precision}", f"{statistics.median(first):.2f}", *cells])
            print(table([shown[0], shown[-1]]), flush=True)
    print("\n" + table(shown))


if __name__ == "__main__":
    main()
