"""Training a head on cached tensors: arrays in, a trained head and its history out (report, section 2).

Shapes: N rows, V views, D_image and D_text widths, C classes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmsent.config import FitSettings
from mmsent.errors import DataError
from mmsent.heads import Head, head_config
from mmsent.metrics import Labels, Probabilities, negative_log_likelihood, scores

EVAL_BATCH = 8192
LAYER_ROWS = 1000  # validation rows whose first-layer outputs are counted each epoch
LAYER_BINS = 60


@dataclass(frozen=True)
class Tensors:
    """Rows to train or to validate on: image (N, V, D_image), text (N, D_text) float32, labels (N,) int64."""

    image: Tensor
    text: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Trained:
    """A trained head at its best epoch, with its validation logits (N_val, C). Epochs count from 1."""

    head: Head
    history: list[dict[str, Any]]
    best_epoch: int
    val_logits: NDArray[np.float32]
    seconds: float


def to_tensors(image: NDArray[np.float32], text: NDArray[np.float32], labels: Labels, device: str) -> Tensors:
    """Move arrays to a device once; training never copies rows again."""
    return Tensors(
        torch.from_numpy(image).to(device), torch.from_numpy(text).to(device), torch.from_numpy(labels).to(device)
    )


def class_weights(labels: Tensor, classes: int, power: float) -> Tensor:
    """(C,) loss weights (N / (C * count)) ** power, scaled to sum to C; a class without rows counts as one row."""
    counts = torch.bincount(labels, minlength=classes).clamp(min=1).to(torch.float64)
    weights = (len(labels) / (classes * counts)) ** power
    return (weights * classes / weights.sum()).to(torch.float32)


@contextmanager
def deterministic(seed: int, device: str) -> Iterator[None]:
    """Seed torch and ask for deterministic kernels; the caller's generators and switches come back afterwards."""
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn.benchmark
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        # On CUDA some matrix products need CUBLAS_WORKSPACE_CONFIG, which a library must not set: warn there.
        torch.use_deterministic_algorithms(True, warn_only=device != "cpu")
        torch.backends.cudnn.benchmark = False
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before, warn_only=warn_only)
            torch.backends.cudnn.benchmark = cudnn


def train_head(
    train: Tensors,
    val: Tensors,
    settings: FitSettings,
    classes: int,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> Trained:
    """Train one head: AdamW, OneCycle with cosine annealing, early stopping on validation weighted F1, best epoch kept.

    The same tensors, settings and device give bit-identical weights. Raises DataError where a split has no rows.
    """
    if not len(train) or not len(val):
        raise DataError(f"training needs rows on both sides; got {len(train)} to train on, {len(val)} to validate on")
    started = time.monotonic()
    device = str(train.labels.device)
    with deterministic(settings.seed, device):
        head = Head(head_config(settings, train.image.shape[2], train.text.shape[1], classes)).to(device)
        head.set_statistics(train.image[:, 0], train.text)
        loss_weights = None
        if settings.balance == "weights":
            loss_weights = class_weights(train.labels, classes, settings.class_weight_power).to(device)
        criterion = torch.nn.CrossEntropyLoss(weight=loss_weights, label_smoothing=settings.label_smoothing)
        steps = -(-len(train) // settings.batch_size)
        optimizer = torch.optim.AdamW(head.parameters(), settings.lr, weight_decay=settings.weight_decay, fused=True)
        total = settings.epochs * steps
        # A warm-up of exactly one step would make OneCycleLR divide by zero; a hair less peaks at the first step too.
        warmup = settings.warmup if settings.warmup * total != 1 else settings.warmup * (1 - 1e-9)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.lr, total_steps=total, pct_start=warmup)
        truth = val.labels.cpu().numpy()
        history: list[dict[str, Any]] = []
        before = first_layer(head, val)
        best: tuple[float, int, dict[str, Tensor], Tensor] | None = None
        for epoch in range(1, settings.epochs + 1):
            train_loss, rate = _one_epoch(head, train, criterion, optimizer, schedule, settings)
            logits, shares = evaluate_head(head, val)
            found = scores(truth, logits.argmax(dim=1).cpu().numpy(), classes)
            record = {
                "epoch": epoch,
                "lr": rate,
                "train_loss": train_loss,
                "val_loss": float(criterion(logits, val.labels)),
                "val_nll": negative_log_likelihood(truth, softmax(logits.cpu().numpy())),
                **{f"val_{k}": v for k, v in found.items() if k not in {"n", "confusion", "support"}},
                "image_share": shares[0] if shares else None,
                "text_share": shares[1] if shares else None,
                "first_layer": first_layer(head, val),
                **({"first_layer_before": before} if epoch == 1 else {}),
            }
            history.append(record)
            if on_epoch:
                on_epoch(record)
            if best is None or found["f1_weighted"] > best[0]:
                state = {k: v.detach().clone() for k, v in head.state_dict().items()}
                best = (found["f1_weighted"], epoch, state, logits)
            elif epoch - best[1] >= settings.patience:
                break
        assert best is not None
        head.load_state_dict(best[2])
    head.eval()
    return Trained(head, history, best[1], best[3].cpu().numpy(), time.monotonic() - started)


def _one_epoch(
    head: Head,
    train: Tensors,
    criterion: torch.nn.CrossEntropyLoss,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    settings: FitSettings,
) -> tuple[float, float]:
    """One pass over the rows, each with one view drawn for this epoch: the mean loss and the last step's rate."""
    n, views, _ = train.image.shape
    device = train.labels.device
    head.train()
    if settings.balance == "sampler":
        inverse = 1.0 / torch.bincount(train.labels).clamp(min=1).to(torch.float64)
        order = torch.multinomial(inverse[train.labels], n, replacement=True)
    else:
        order = torch.randperm(n, device=device)
    view = torch.randint(views, (n,), device=device) if settings.views and views > 1 else None
    total = torch.zeros((), device=device)
    for rows in torch.split(order, settings.batch_size):
        image = train.image[rows, view[rows]] if view is not None else train.image[rows, 0]  # (B, D_image)
        missing = _drop_modalities(len(rows), settings.modality_dropout, device)
        loss = criterion(head(image, train.text[rows], missing), train.labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate = float(optimizer.param_groups[0]["lr"])
        schedule.step()
        total += loss.detach() * len(rows)
    return float(total) / n, rate


def _drop_modalities(n: int, share: float, device: torch.device) -> Tensor | None:
    """(n, 2) bool: rows that lose their picture or their text, never both; None where nothing is dropped."""
    if not share:
        return None
    dropped = torch.rand(n, device=device) < share
    which = torch.rand(n, device=device) < 0.5
    return torch.stack([dropped & which, dropped & ~which], dim=1)


@torch.no_grad()
def evaluate_head(head: Head, rows: Tensors, missing: Tensor | None = None) -> tuple[Tensor, list[float] | None]:
    """Logits (N, C) on the clean view, and the mean shares of image and text where the fusion has such."""
    head.eval()
    logits, shares = [], []
    for start in range(0, len(rows), EVAL_BATCH):
        part = slice(start, start + EVAL_BATCH)
        gone = missing[part] if missing is not None else None
        trace = head.trace(rows.image[part, 0], rows.text[part], gone)
        logits.append(trace.logits)
        if trace.shares is not None:
            shares.append(trace.shares)
    return torch.cat(logits), torch.cat(shares).mean(dim=0).tolist() if shares else None


@torch.no_grad()
def first_layer(head: Head, rows: Tensors) -> dict[str, Any]:
    """How the weights of the first linear layer, and its outputs on clean rows, are distributed (report, Figure 2)."""
    head.eval()
    part = slice(0, LAYER_ROWS)
    fused = head.trace(rows.image[part, 0], rows.text[part]).fused
    layer = head.first_linear
    return {"weights": distribution(layer.weight), "outputs": distribution(layer(fused))}


def distribution(values: Tensor) -> dict[str, Any]:
    """A histogram as plain numbers: low and high edge, counts in equal bins, mean and standard deviation. Values that
    are not finite, of a head that diverges, are left out."""
    flat = values.detach().flatten().float()
    flat = flat[flat.isfinite()]
    if not len(flat):
        return {"low": 0.0, "high": 0.0, "counts": [0] * LAYER_BINS, "mean": 0.0, "std": 0.0}
    low, high = float(flat.min()), float(flat.max())
    counts = torch.histc(flat.cpu(), LAYER_BINS, low, high)
    spread = float(flat.std(correction=0))
    return {"low": low, "high": high, "counts": counts.int().tolist(), "mean": float(flat.mean()), "std": spread}


def softmax(logits: NDArray[Any]) -> Probabilities:
    """Row-wise softmax in float64: (N, C) logits to probabilities."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    exp = np.exp(shifted)
    out: Probabilities = exp / exp.sum(axis=1, keepdims=True)
    return out
