"""Training a head on cached tensors: arrays in, a trained head and its history out (report, section 2).

Shapes: N rows, V views, D_image and D_text widths, C classes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.adamw import adamw

from mmsent.config import FitSettings
from mmsent.errors import DataError
from mmsent.metrics import negative_log_likelihood, scores
from mmsent.system.devices import cpu_multiplies_bf16
from mmsent.training.calibration import softmax
from mmsent.training.gradients import gradients, parameters_of
from mmsent.training.heads import Head, Trace, head_config, unit_rms
from mmsent.training.loaders import Rows, Tensors

LAYER_ROWS = 1000  # validation rows whose first-layer outputs are counted each epoch
LAYER_BINS = 60
LAYER_VALUES = 1 << 14  # of a distribution, evenly spaced, when there are more
DRAWN = 16  # batches of dropout factors drawn at a time, as far as these stay below so many values
DRAWN_VALUES = 1 << 22


@dataclass(frozen=True)
class Trained:
    """A trained head at its best epoch, with its validation logits (N_val, C). Epochs count from 1."""

    head: Head
    history: list[dict[str, Any]]
    best_epoch: int
    val_logits: NDArray[np.float32]
    seconds: float


def class_weights(labels: Tensor, classes: int, power: float) -> Tensor:
    """(C,) loss weights (N / (C * count)) ** power, scaled to sum to C; a class without rows counts as one row."""
    counts = torch.bincount(labels, minlength=classes).clamp(min=1).to(torch.float64)
    weights = (len(labels) / (classes * counts)) ** power
    return (weights * classes / weights.sum()).to(torch.float32)


def precision_for(device: str) -> Literal["fp32", "bf16"]:
    """What `auto` means for the matrix products of training: bf16 on processors that multiply it natively, else fp32.
    On a GPU fp32 too, for a head's products are too small to matter beside its launches."""
    return "bf16" if device == "cpu" and cpu_multiplies_bf16() else "fp32"


@contextmanager
def deterministic(seed: int, device: str) -> Iterator[None]:
    """Seed torch and ask for deterministic kernels; the caller's generators and switches come back afterwards."""
    before = torch.are_deterministic_algorithms_enabled()
    fill_memory: Any = torch.utils.deterministic  # a module whose one switch its type does not know
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn, fill = torch.backends.cudnn.benchmark, fill_memory.fill_uninitialized_memory
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        # On CUDA some matrix products need CUBLAS_WORKSPACE_CONFIG, which a library must not set: warn there.
        torch.use_deterministic_algorithms(True, warn_only=device != "cpu")
        torch.backends.cudnn.benchmark = False
        # Nothing here reads memory before it is written, and filling all of it first takes time at every step.
        fill_memory.fill_uninitialized_memory = False
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before, warn_only=warn_only)
            torch.backends.cudnn.benchmark = cudnn
            fill_memory.fill_uninitialized_memory = fill


def train_head(
    train: Rows,
    val: Rows,
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
    device = train.device
    with deterministic(settings.seed, device):
        head = Head(head_config(settings, *train.widths, classes)).to(device)
        precision = precision_for(device) if settings.precision == "auto" else settings.precision
        head.products = torch.bfloat16 if precision == "bf16" else torch.float32
        set_statistics(head, train)
        loss_weights = torch.ones(classes, device=device)
        if settings.balance == "weights":
            loss_weights = class_weights(train.labels, classes, settings.class_weight_power).to(device)
        criterion = SmoothedCrossEntropy(loss_weights, settings.label_smoothing)
        steps = -(-len(train) // settings.batch_size)
        cycle = OneCycle(settings.lr, settings.epochs * steps, settings.warmup)
        optimizer = AdamW(head, cycle, settings.weight_decay)
        truth, truth_here = val.labels.cpu().numpy(), val.labels.to(device)
        history: list[dict[str, Any]] = []
        before = first_layer(head, first_trace(head, val))
        best: tuple[float, int, dict[str, Tensor], Tensor] | None = None
        for epoch in range(1, settings.epochs + 1):
            train_loss = _one_epoch(head, train, criterion, optimizer, settings)
            logits, shares, first = evaluate_head(head, val)
            found = scores(truth, logits.argmax(dim=1).cpu().numpy(), classes)
            record = {
                "epoch": epoch,
                "lr": cycle.at(epoch * steps - 1)[0],
                "train_loss": train_loss,
                "val_loss": float(criterion(logits, truth_here)),
                "val_nll": negative_log_likelihood(truth, softmax(logits.cpu().numpy())),
                **{f"val_{k}": v for k, v in found.items() if k not in {"n", "confusion", "support"}},
                "image_share": shares[0] if shares else None,
                "text_share": shares[1] if shares else None,
                "first_layer": first_layer(head, first),
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
    head: Head, train: Rows, criterion: SmoothedCrossEntropy, optimizer: AdamW, settings: FitSettings
) -> float:
    """One pass over the rows, each with one view drawn for this epoch: the mean loss."""
    device = next(head.parameters()).device
    head.train()
    total, seen = torch.zeros((), device=device), 0
    width = head.config.hidden * head.config.depth  # of all hidden layers, one after the other
    factors = _dropout_factors(settings, width, device, min(settings.batch_size, len(train)))
    learns = bool(optimizer.fusion)
    for image, text, labels in train.epoch(settings, head.scale):
        missing = _drop_modalities(len(labels), settings.modality_dropout, device)
        with torch.set_grad_enabled(learns):
            fused = head.fuse(image, text, missing)
        targets, weight = criterion.targets(labels)
        found = gradients(head, fused, next(factors)[: len(labels)], targets, weight, by_fused=learns)
        slopes = found.parameters
        if learns:
            slopes += torch.autograd.grad(fused, optimizer.fusion, found.fused)
        optimizer.step(slopes)
        total += found.loss * len(labels)
        seen += len(labels)
    return float(total) / seen


class AdamW:
    """torch's fused AdamW on a head's parameters, its rate and first beta by OneCycle. torch's functional form: the
    optimizer object around it takes half as long again as the update."""

    def __init__(self, head: Head, cycle: OneCycle, weight_decay: float) -> None:
        classifier = parameters_of(head)
        known = {id(p) for p in classifier}
        self.fusion = [p for p in head.parameters() if id(p) not in known]  # behind the classifier's in every list here
        self._parameters = [*classifier, *self.fusion]
        self._cycle, self._decay, self._done = cycle, weight_decay, 0
        self._averages = [torch.zeros_like(p) for p in self._parameters]
        self._squares = [torch.zeros_like(p) for p in self._parameters]
        self._steps = [torch.zeros((), device=p.device) for p in self._parameters]

    @torch.no_grad()
    def step(self, slopes: list[Tensor]) -> None:
        """Update the classifier's and the fusion's parameters once by their gradients."""
        rate, beta = self._cycle.at(self._done)
        adamw(
            self._parameters,
            slopes,
            self._averages,
            self._squares,
            [],
            self._steps,
            fused=True,
            amsgrad=False,
            beta1=beta,
            beta2=0.999,
            lr=rate,
            weight_decay=self._decay,
            eps=1e-8,
            maximize=False,
        )
        self._done += 1


@dataclass(frozen=True)
class OneCycle:
    """The OneCycle schedule with cosine annealing (Smith and Topin 2018) as torch's OneCycleLR computes it with its
    defaults: the rate from peak / 25 to the peak and down to peak / 250,000; AdamW's first beta the other way, from
    0.95 to 0.85 and back. A function of the step alone, so that nothing is kept or computed twice."""

    peak: float
    steps: int
    warmup: float

    def at(self, step: int) -> tuple[float, float]:
        """The rate and the first beta of a step, counted from 0."""
        # A warm-up of exactly one step would divide by zero; a hair less peaks at the first step too.
        warmup = self.warmup if self.warmup * self.steps != 1 else self.warmup * (1 - 1e-9)
        top, end = float(warmup * self.steps) - 1, self.steps - 1
        low = self.peak / 25
        if step <= top:
            bend = math.cos(math.pi * (step / top)) + 1
            return self.peak + (low - self.peak) / 2 * bend, 0.85 + (0.95 - 0.85) / 2 * bend
        bend = math.cos(math.pi * ((step - top) / (end - top))) + 1
        last = low / 1e4
        return last + (self.peak - last) / 2 * bend, 0.95 + (0.85 - 0.95) / 2 * bend


class SmoothedCrossEntropy:
    """torch's CrossEntropyLoss with class weights (C,) and label smoothing: each label's soft target is looked up in a
    table. Tested against torch's."""

    def __init__(self, weights: Tensor, smoothing: float) -> None:
        self._weights = weights
        self._targets = (1 - smoothing) * torch.diag(weights) + smoothing / len(weights) * weights  # (C, C)

    def targets(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """labels (B,) -> what each class counts for each row, (B, C), and what the loss is divided by, ()."""
        return self._targets[labels], self._weights[labels].sum()

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """logits (B, C), labels (B,) -> the mean loss, weighted by the labels' class weights."""
        targets, total = self.targets(labels)
        return -(targets * logits.log_softmax(dim=1)).sum() / total


def _dropout_factors(settings: FitSettings, width: int, device: torch.device, rows: int) -> Iterator[Tensor]:
    """Batches (rows, H) of dropout factors: 0, or 1 / (1 - p). On a CPU p is rounded to a 256th and many batches
    are drawn at once from raw bytes, for torch draws one float after another there."""
    p = settings.dropout
    if device.type != "cpu":
        while True:
            yield torch.empty(rows, width, device=device).bernoulli_(1 - p).div_(1 - p)
    rng = np.random.Generator(np.random.SFC64(int(torch.randint(2**62, ()))))
    least, drawn = min(255, round(256 * p)), max(1, min(DRAWN, DRAWN_VALUES // (rows * width)))
    while True:
        raw = np.frombuffer(rng.bytes(drawn * rows * width), np.uint8).reshape(drawn, rows, width)
        yield from torch.from_numpy((raw >= least).astype(np.float32) * np.float32(256 / (256 - least)))


def _drop_modalities(n: int, share: float, device: torch.device) -> Tensor | None:
    """(n, 2) bool: rows that lose their picture or their text, never both; None where nothing is dropped."""
    if not share:
        return None
    dropped = torch.rand(n, device=device) < share
    which = torch.rand(n, device=device) < 0.5
    return torch.stack([dropped & which, dropped & ~which], dim=1)


@torch.no_grad()
def set_statistics(head: Head, rows: Rows) -> None:
    """Give a head the mean and standard deviation of its training rows."""
    if isinstance(rows, Tensors):
        head.set_statistics(rows.image[:, 0], rows.text)
        return
    sums = [torch.zeros(2, width, dtype=torch.float64, device=rows.device) for width in rows.widths]
    for _, *halves in rows.parts():
        for half, total in zip(halves, sums, strict=True):
            values = (unit_rms(half) if head.config.rms else half).double()
            total += torch.stack([values.sum(dim=0), values.square().sum(dim=0)])
    for name, total in zip(("image", "text"), sums, strict=True):
        mean, square = total / len(rows)
        head.set_moments(name, mean, (square - mean.square()).clamp(min=0).sqrt())


@torch.no_grad()
def evaluate_head(head: Head, rows: Rows, missing: Tensor | None = None) -> tuple[Tensor, list[float] | None, Trace]:
    """Logits (N, C) on the clean view, the mean shares of image and text where the fusion has such, and the trace of
    the first part of the rows."""
    head.eval()
    logits, shares = [], []
    first: Trace | None = None
    for part, image, text in rows.parts():
        trace = head.trace(image, text, missing[part] if missing is not None else None)
        first = first or trace
        logits.append(trace.logits)
        if trace.shares is not None:
            shares.append(trace.shares.sum(dim=0))
    if first is None:
        raise DataError("there are no rows to evaluate a head on")
    return torch.cat(logits), (torch.stack(shares).sum(dim=0) / len(rows)).tolist() if shares else None, first


@torch.no_grad()
@torch.no_grad()
def first_trace(head: Head, rows: Rows) -> Trace:
    """The trace that `evaluate_head` gives, without a look at the other parts of the rows."""
    head.eval()
    _, image, text = next(iter(rows.parts()))
    return head.trace(image, text, None)


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
