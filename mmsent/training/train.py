"""Training a head on cached tensors: arrays in, a trained head and its history out (report, section 2).

Shapes: N rows, V views, D_image and D_text widths, C classes.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from mmsent.config import FitSettings
from mmsent.errors import DataError
from mmsent.metrics import negative_log_likelihood, scores
from mmsent.system.devices import half_precision_for
from mmsent.system.memory import free_memory, out_of_memory
from mmsent.training.calibration import softmax
from mmsent.training.head_config import head_config
from mmsent.training.heads import Head, Trace
from mmsent.training.loaders import Rows, on_host
from mmsent.training.moments import set_statistics
from mmsent.training.optimizer import AdamW, one_cycle
from mmsent.training.tuning import TunedRows, require_tunable, use_bfloat16

LORA_RATE = 10.0  # of low-rank updates to that of the blocks themselves
LAYER_ROWS = 1000  # validation rows whose first-layer outputs are counted each epoch
LAYER_BINS = 60
LAYER_VALUES = 1 << 14  # of a distribution, evenly spaced, when there are more


@dataclass(frozen=True)
class Trained:
    """A trained head at its best epoch, with its validation logits (N_val, C). Epochs count from 1."""

    head: Head
    history: list[dict[str, Any]]
    best_epoch: int
    val_logits: NDArray[np.float32]
    seconds: float
    blocks: dict[str, Tensor] | None = None  # weights of tuned blocks


def class_weights(labels: Tensor, classes: int, power: float) -> Tensor:
    """(C,) loss weights (N / (C * count)) ** power, scaled to sum to C; a class without rows counts as one row."""
    counts = torch.bincount(labels, minlength=classes).clamp(min=1).to(torch.float64)
    weights = (len(labels) / (classes * counts)) ** power
    return (weights * classes / weights.sum()).to(torch.float32)


def loss_tables(labels: Tensor, classes: int, settings: FitSettings) -> tuple[Tensor, Tensor]:
    """What `smoothed_loss` looks up: each label's smoothed, weighted target (C, C), and its class weight (C,)."""
    weights, smoothing = torch.ones(classes, dtype=torch.float32), settings.label_smoothing
    if settings.balance == "weights":
        weights = class_weights(labels.cpu(), classes, settings.class_weight_power)
    targets = (1 - smoothing) * torch.diag(weights) + smoothing / classes * weights
    return targets.to(labels.device), weights.to(labels.device)


def smoothed_loss(logits: Tensor, labels: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """torch's CrossEntropyLoss with class weights and label smoothing, (B, C) and (B,) to (): from tables, so that each
    head of a stack can have its own, and in fewer kernels."""
    return cross_entropy(logits, targets[labels], reduction="sum") / weights[labels].sum()


def precision_for(device: str, tune: str = "") -> Literal["fp32", "bf16"]:
    """What `auto` means for the matrix products of training: bf16 where it is multiplied natively, else fp32. On a GPU
    only where blocks train too, for a head's products are too small to matter beside its launches."""
    return "bf16" if (device == "cpu" or tune) and half_precision_for(device) == "bf16" else "fp32"


_ONE = threading.RLock()  # held by whoever trains: seed and switches belong to the process, not to a thread
if hasattr(os, "register_at_fork"):  # a child that is forked meanwhile trains too
    os.register_at_fork(after_in_child=_ONE._at_fork_reinit)  # type: ignore[attr-defined]


@contextmanager
def deterministic(seed: int, device: str) -> Iterator[None]:
    """Seed torch and ask for deterministic kernels; the caller's generators and switches come back afterwards. Threads
    take turns. On a CPU nothing here wakes a GPU: a head is built on the CPU, and its draws have their own generators.
    """
    fill_memory: Any = torch.utils.deterministic  # a module whose one switch its type does not know
    with _ONE, torch.random.fork_rng(devices=[]), _on_cpu():
        before = torch.get_deterministic_debug_mode()
        cudnn, fill = torch.backends.cudnn.benchmark, fill_memory.fill_uninitialized_memory
        torch.default_generator.manual_seed(seed)
        # On CUDA some matrix products need CUBLAS_WORKSPACE_CONFIG, which a library must not set: warn there.
        # Not by use_deterministic_algorithms, which imports torch's whole compiler to tell it too.
        torch.set_deterministic_debug_mode("error" if device == "cpu" else "warn")
        torch.backends.cudnn.benchmark = False
        # Nothing here reads memory before it is written, and filling all of it first takes time at every step.
        fill_memory.fill_uninitialized_memory = False
        try:
            yield
        finally:
            torch.set_deterministic_debug_mode(before)
            torch.backends.cudnn.benchmark = cudnn
            fill_memory.fill_uninitialized_memory = fill


def _on_cpu() -> AbstractContextManager[Any]:
    """New tensors are made on the CPU where a caller has set another default device."""
    return nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")


def train_head(
    train: Rows,
    val: Rows,
    settings: FitSettings,
    classes: int,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    *,
    traced: bool = True,
    on_third: Callable[[float], None] | None = None,
) -> Trained:
    """Train one head: AdamW, OneCycle with cosine annealing, early stopping on validation weighted F1, best epoch kept.

    Rows with blocks (see mmsent.training.tuning) train these too; both sides share them, and they are left as they were
    at the best epoch. The same tensors, settings and device give bit-identical weights. Where a GPU's memory cannot
    hold the rows and a step, it begins again with the rows in the host's memory, and the same weights come out; not
    where blocks are tuned. traced: the history says how the first layer is distributed. on_third: told the weighted F1
    on the validation rows after a third of the first epoch's batches, which the weights do not depend on; not where
    blocks are tuned. Raises DataError where a split has no rows, UsageError where the settings tune blocks and the rows
    have none.
    """
    try:
        return _train_head(train, val, settings, classes, on_epoch, traced, on_third)
    except (RuntimeError, MemoryError) as error:
        if train.device == "cpu" or isinstance(train, TunedRows) or not out_of_memory(error):
            raise
    free_memory()
    return _train_head(on_host(train), on_host(val), settings, classes, on_epoch, traced, on_third)


def _train_head(
    train: Rows,
    val: Rows,
    settings: FitSettings,
    classes: int,
    on_epoch: Callable[[dict[str, Any]], None] | None,
    traced: bool,
    on_third: Callable[[float], None] | None,
) -> Trained:
    if not len(train) or not len(val):
        raise DataError(f"training needs rows on both sides; got {len(train)} to train on, {len(val)} to validate on")
    started = time.monotonic()
    device = train.device
    blocks = train.blocks if isinstance(train, TunedRows) else None
    require_tunable(settings, blocks)
    with deterministic(settings.seed, device):
        head = Head(head_config(settings, *train.widths, classes)).to(device)
        precision = precision_for(device, settings.tune) if settings.precision == "auto" else settings.precision
        head.products = torch.bfloat16 if precision == "bf16" else torch.float32
        if blocks is not None and settings.lora:
            blocks.use_low_rank(settings.lora)
        if blocks is not None and precision == "bf16":
            use_bfloat16(blocks)
        set_statistics(head, train)
        tables = loss_tables(train.labels.to(device), classes, settings)
        steps = settings.epochs * -(-len(train) // settings.batch_size)
        groups = [(list(head.parameters()), 1.0)]
        if blocks is not None:
            groups.append((blocks.trained, settings.tune_lr / settings.lr * (LORA_RATE if settings.lora else 1)))
        optimizer = AdamW(groups, one_cycle(settings.lr, steps, settings.warmup), settings.weight_decay)
        draws = Draws(settings, head, device)
        truth, truth_here = val.labels.cpu().numpy(), val.labels.to(device)
        history: list[dict[str, Any]] = []
        before = {"first_layer_before": first_layer(head, first_trace(head, val))} if traced else {}
        best: tuple[float, int, tuple[dict[str, Tensor], ...], Tensor] | None = None

        def scored(logits: Tensor) -> dict[str, Any]:
            return scores(truth, logits.argmax(dim=1).cpu().numpy(), classes)

        def look() -> None:
            if on_third and blocks is None:
                on_third(scored(evaluate_head(head, val)[0])["f1_weighted"])
                head.train()

        for epoch in range(1, settings.epochs + 1):
            pause = look if epoch == 1 else None
            train_loss = _one_epoch(head, train, tables, optimizer, draws, settings, pause)
            logits, shares, first = evaluate_head(head, val)
            found = scored(logits)
            record = {
                "epoch": epoch,
                "lr": optimizer.rate,
                "train_loss": train_loss,
                "val_loss": float(smoothed_loss(logits, truth_here, *tables)),
                "val_nll": negative_log_likelihood(truth, softmax(logits.cpu().numpy())),
                **{f"val_{k}": v for k, v in found.items() if k not in {"n", "confusion", "support"}},
                "image_share": shares[0] if shares else None,
                "text_share": shares[1] if shares else None,
                **({"first_layer": first_layer(head, first)} if traced else {}),
                **(before if epoch == 1 else {}),
            }
            history.append(record)
            if on_epoch:
                on_epoch(record)
            if best is None or found["f1_weighted"] > best[0]:
                now = [head.state_dict(), *([blocks.weights()] if blocks is not None else [])]
                state = tuple({k: v.detach().clone() for k, v in one.items()} for one in now)
                best = (found["f1_weighted"], epoch, state, logits)
            elif epoch - best[1] >= settings.patience:
                break
        assert best is not None
        head.load_state_dict(best[2][0])
        if blocks is not None:
            blocks.load(best[2][1])
    head.eval()
    seconds = time.monotonic() - started
    return Trained(head, history, best[1], best[3].cpu().numpy(), seconds, *best[2][1:])


def _one_epoch(
    head: Head,
    train: Rows,
    tables: tuple[Tensor, Tensor],
    optimizer: AdamW,
    draws: Draws,
    settings: FitSettings,
    on_third: Callable[[], None] | None,
) -> float:
    """One pass over the rows, each with one view drawn for this epoch: the mean loss."""
    head.train()
    total = torch.zeros((), dtype=torch.float32, device=train.device)
    third = -(-len(train) // (3 * settings.batch_size))
    for at, (image, text, labels, missing) in enumerate(train.epoch(settings, draws.rows)):
        if at == third and on_third:
            on_third()
        loss = smoothed_loss(head(image, text, *draws.batch(len(labels), missing)), labels, *tables)
        optimizer.step(loss)
        total.add_(loss.detach(), alpha=len(labels))
    return float(total) / len(train)


class Draws:
    """The random numbers of one head's training, from generators of its own that go on from its initial weights: alone
    or in a stack, a head trains on the same draws."""

    def __init__(self, settings: FitSettings, head: Head, device: str) -> None:
        self._settings, self._device = settings, device
        self._hidden = len(head.hidden_layers) * settings.hidden
        seed = int(torch.randint(2**62, ()))
        self.rows = torch.Generator().manual_seed(seed)  # which rows and views: on the CPU
        self._masks = torch.Generator(device).manual_seed(seed + 1)

    def batch(self, n: int, lacking: Tensor | None = None) -> tuple[Tensor | None, Tensor | None]:
        """For the next n rows: which of them lose or lack their image or their text (n, 2), None where none can; and
        the factors of dropout, 0 or 1 / (1 - p), layer by layer (n, L·H), None without a hidden layer. lacking (n, 2):
        the halves that rows do not have; such a row loses nothing more."""
        settings, missing, factors = self._settings, lacking, None
        if settings.modality_dropout:
            dropped, which = (self._uniform(n) for _ in range(2))
            lost = dropped < settings.modality_dropout
            missing = torch.stack([lost & (which < 0.5), lost & (which >= 0.5)], dim=1)  # never both
            if lacking is not None:
                missing = torch.where(lacking.any(dim=1, keepdim=True), lacking, missing)
        if self._hidden:
            factors = self._uniform(n, self._hidden)
            factors.ge_(settings.dropout).div_(1 - settings.dropout)
        return missing, factors

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, dtype=torch.float32, device=self._device, generator=self._masks)


@torch.no_grad()
def evaluate_head(head: Head, rows: Rows) -> tuple[Tensor, list[float] | None, Trace]:
    """Logits (N, C) on the clean view, the mean shares of image and text where the fusion has such, and the trace of
    the first part of the rows."""
    head.eval()
    logits, shares = [], []
    first: Trace | None = None
    for _, image, text, missing in rows.parts():
        trace = head.trace(image, text, missing)
        first = first or trace
        logits.append(trace.logits)
        if trace.shares is not None:
            shares.append(trace.shares.sum(dim=0))
    if first is None:
        raise DataError("there are no rows to evaluate a head on")
    return torch.cat(logits), (torch.stack(shares).sum(dim=0) / len(rows)).tolist() if shares else None, first


@torch.no_grad()
def first_trace(head: Head, rows: Rows) -> Trace:
    """The trace that `evaluate_head` gives, without a look at the other parts of the rows."""
    head.eval()
    _, image, text, missing = next(iter(rows.parts()))
    return head.trace(image, text, missing)


def first_layer(head: Head, trace: Trace) -> dict[str, Any]:
    """How the weights of the first linear layer, and its outputs on clean rows, are distributed (report, Figure 2)."""
    return {"weights": distribution(head.first_linear.weight), "outputs": distribution(trace.first[:LAYER_ROWS])}


def distribution(values: Tensor) -> dict[str, Any]:
    """A histogram as plain numbers: low and high edge, counts in equal bins, mean and standard deviation. Values that
    are not finite, of a head that diverges, are left out."""
    flat = values.detach().flatten()
    flat = flat[:: -(-len(flat) // LAYER_VALUES)].float()
    if not bool(flat.isfinite().all()):
        flat = flat[flat.isfinite()]
    if not len(flat):
        return {"low": 0.0, "high": 0.0, "counts": [0] * LAYER_BINS, "mean": 0.0, "std": 0.0}
    low, high = float(flat.min()), float(flat.max())
    counts = torch.histc(flat.cpu(), LAYER_BINS, low, high)
    mean = float(flat.mean())
    spread = float((flat - mean).square().mean().sqrt())  # torch's own std is ten times slower here
    return {"low": low, "high": high, "counts": counts.int().tolist(), "mean": mean, "std": spread}
